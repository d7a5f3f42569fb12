"""A reader of the few Go expressions that test cases are written in.

It reads text and computes values itself; nothing of Go is built or run. What it knows: strings in
both quotes, `+`, `[]string{...}`, `map[string]string{...}`, `[]byte(...)`, names, calls of
functions that it was given, `append`, and functions whose body is assignments and one `return`.
Anything else is `Unreadable`: a value is never guessed.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|//[^\n]*|/\*.*?\*/)|(?P<line>\n)|(?P<raw>`[^`]*`)
    |(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<rune>'(?:[^'\\\n]|\\.)+')|(?P<name>[^\W\d]\w*)
    |(?P<number>\d[\w.]*)|(?P<sign>\.\.\.|:=|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r'\\(?:x(..)|([0-7]{3})|u(.{4})|U(.{8})|([abfnrtv\\"\']))')
_ESCAPES = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_ENDS_STATEMENT = ("raw", "text", "rune", "name", "number")


class Unreadable(Exception):
    """An expression that the reader does not know; it says nothing about the others."""


class Planted(str):
    """A text that a secret was put into."""

    secret: str = ""

    @classmethod
    def of(cls, text: str, secret: str) -> Planted:
        planted = cls(text)
        planted.secret = secret
        return planted


Value = str | int | Sequence[str] | Mapping[str, str]
Function = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: raw, text, rune, name, number or sign. Statements end with the sign `;`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Declared:
    """A function of a file."""

    parameters: tuple[str, ...]
    body: tuple[Token, ...]


def tokens(source: str) -> list[Token]:
    """The tokens of a file, with the `;` that Go puts at the ends of lines."""
    found: list[Token] = []
    for match in _TOKEN.finditer(source + "\n"):
        kind, text = str(match.lastgroup), match.group()
        if kind == "line" and found and _ends(found[-1]):
            found.append(Token("sign", ";"))
        elif kind not in ("space", "line"):
            found.append(Token(kind, text))
    return found


def _ends(last: Token) -> bool:
    return last.kind in _ENDS_STATEMENT or last.text in _CLOSE


def statements(stream: Sequence[Token]) -> Iterator[list[Token]]:
    """What stands between the `;` that are in no brackets."""
    depth, now = 0, list[Token]()
    for token in stream:
        if token.kind == "sign":
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if not depth and token == Token("sign", ";"):
            yield from [now] if now else []
            now = []
        else:
            now.append(token)
    yield from [now] if now else []


def functions(stream: Sequence[Token]) -> dict[str, Declared]:
    """The functions of a file by name; methods are left out."""
    return {
        statement[1].text: Declared(_parameters(statement), _body(statement))
        for statement in statements(stream)
        if statement[0].text == "func" and statement[1].kind == "name"
    }


def _parameters(statement: Sequence[Token]) -> tuple[str, ...]:
    names = list[str]()
    for before, token in itertools.pairwise(statement[2:]):
        if token.text == ")":
            break
        if before.text in ("(", ",") and token.kind == "name":
            names.append(token.text)
    return tuple(names)


def _body(statement: Sequence[Token]) -> tuple[Token, ...]:
    begin = next(at for at, token in enumerate(statement) if token == Token("sign", "{"))
    return tuple(statement[begin + 1 : -1])


def unquoted(token: Token) -> str:
    """What a string literal stands for."""
    if token.kind == "raw":
        return token.text[1:-1].replace("\r", "")
    return _ESCAPE.sub(_character, token.text[1:-1])


def _character(match: re.Match[str]) -> str:
    byte, octal, short, long, letter = match.groups()
    if letter:
        return _ESCAPES[letter]
    value = int(octal, 8) if octal else int(byte or short or long, 16)
    if value > 0x7F and (byte or octal):
        raise Unreadable("a byte that is no character")
    return chr(value)


class Scope:
    """Names and functions that are known, and what follows from them."""

    def __init__(self, names: Mapping[str, Value], known: Mapping[str, Function]) -> None:
        self.names = dict(names)
        self.known = known

    def call(self, declared: Declared, *arguments: Value) -> Value:
        """What a function returns."""
        if len(arguments) != len(declared.parameters):
            raise Unreadable("a call with other arguments")
        inner = dict(zip(declared.parameters, arguments, strict=True))
        returned = Scope(self.names | inner, self.known).run(declared.body)
        if returned is None:
            raise Unreadable("a function that returns nothing")
        return returned

    def run(self, body: Sequence[Token]) -> Value | None:
        """Assign what is assigned; the value of the first `return`, None without one.

        A name whose value is beyond the reader is forgotten, and unreadable where it is used.
        """
        for statement in statements(body):
            first, rest = statement[0].text, statement[1:]
            if first == "return":
                return self.value(rest)
            if first == "var" and rest[0].text == "(":
                self.run(rest[1:-1])
            elif first == "var":
                self._assign(rest)
            else:
                self._assign(statement)
        return None

    def _assign(self, statement: Sequence[Token]) -> None:
        if len(statement) < 3 or statement[1].text not in ("=", ":="):
            raise Unreadable(f"a statement that begins with {statement[0].text}")
        name = statement[0].text
        try:
            self.names[name] = self.value(statement[2:])
        except Unreadable:
            self.names.pop(name, None)

    def value(self, expression: Sequence[Token]) -> Value:
        """What an expression stands for."""
        reading = _Reading(self, expression)
        value = reading.sum()
        if not reading.done:
            raise Unreadable(f"an expression with {reading.next}")
        return value


class _Reading:
    """One expression, read from left to right."""

    def __init__(self, scope: Scope, stream: Sequence[Token]) -> None:
        self.scope, self.stream, self.at = scope, stream, 0

    @property
    def done(self) -> bool:
        return self.at >= len(self.stream)

    @property
    def next(self) -> str:
        """The next sign or name; literals and the end are the empty text."""
        if self.done or self.stream[self.at].kind not in ("sign", "name"):
            return ""
        return self.stream[self.at].text

    def take(self, *wanted: str) -> bool:
        """Step over these signs or names if they come next."""
        ahead = [token.text for token in self.stream[self.at : self.at + len(wanted)]]
        if ahead != list(wanted):
            return False
        self.at += len(wanted)
        return True

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise Unreadable(f"{self.next or 'a literal'} where {wanted} was expected")

    def sum(self) -> Value:
        value = self.operand()
        while self.take("+"):
            value = text(value) + text(self.operand())
        return value

    def operand(self) -> Value:
        if self.done:
            raise Unreadable("an expression that ends early")
        token = self.stream[self.at]
        if token.kind in ("raw", "text"):
            self.at += 1
            return unquoted(token)
        if token.kind == "number" and token.text.isdigit():
            self.at += 1
            return int(token.text)
        if self.take("("):
            return self.inner()
        if self.take("[", "]", "byte", "("):
            return text(self.inner())
        if self.take("[", "]", "string", "{"):
            return self.listed("}")
        if self.take("map", "[", "string", "]", "string", "{"):
            return self.mapping()
        self.take("&")
        return self.named()

    def inner(self) -> Value:
        value = self.sum()
        self.need(")")
        return value

    def named(self) -> Value:
        name = self.name()
        while self.take("."):
            name += "." + self.name()
        if self.take("("):
            return self.called(name)
        if self.take("{"):
            return self.structure()
        if name not in self.scope.names:
            raise Unreadable(f"the name {name}")
        return self.scope.names[name]

    def name(self) -> str:
        if self.done or self.stream[self.at].kind != "name":
            raise Unreadable(f"{self.next} where a name was expected")
        self.at += 1
        return self.stream[self.at - 1].text

    def called(self, name: str) -> Value:
        arguments = self.arguments(")")
        if name not in self.scope.known:
            raise Unreadable(f"the function {name}")
        try:
            return self.scope.known[name](*arguments)
        except TypeError as error:
            raise Unreadable(f"a call of {name} with other arguments") from error

    def arguments(self, end: str) -> list[Value]:
        found: list[Value] = []
        while not self.take(end):
            value = self.sum()
            found += texts(value) if self.take("...") else [value]
            if self.next != end:
                self.need(",")
        return found

    def listed(self, end: str) -> list[str]:
        return [text(value) for value in self.arguments(end)]

    def mapping(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while not self.take("}"):
            key = text(self.sum())
            self.need(":")
            found[key] = text(self.sum())
            if self.next != "}":
                self.need(",")
        return found

    def structure(self) -> str:
        """A structure stands for its RuleID, the only field that matters; the rest is not read."""
        depth, rule = 1, ""
        while depth:
            if self.done:
                raise Unreadable("a structure without an end")
            if depth == 1 and self.take("RuleID", ":"):
                rule = unquoted(self.stream[self.at])
            depth += (self.next in _OPEN) - (self.next in _CLOSE)
            self.at += 1
        return rule


def text(value: Value) -> str:
    """That value if it is a string."""
    if not isinstance(value, str):
        raise Unreadable("something else where a string was expected")
    return value


def texts(value: Value) -> list[str]:
    """That value if it is a list of strings."""
    if isinstance(value, str | int | Mapping):
        raise Unreadable("something else where a list was expected")
    return [text(one) for one in value]


# ---- functions of Go's own library ---------------------------------------------------------------


def _append(first: Value, *more: Value) -> list[str]:
    return [*texts(first), *(text(one) for one in more)]


def _sprintf(form: Value, *values: Value) -> str:
    left = list(values)

    def put(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        if match.group() != "%s" or not left:
            raise Unreadable("a form of Sprintf")
        return text(left.pop(0))

    return re.sub(r"%.?", put, text(form))


def _base64(value: Value) -> str:
    return base64.b64encode(text(value).encode()).decode()


LIBRARY: Mapping[str, Function] = {
    "append": _append,
    "fmt.Sprintf": _sprintf,
    "base64.StdEncoding.EncodeToString": _base64,
    "strings.ToUpper": lambda value: text(value).upper(),
    "strings.Repeat": lambda value, times: text(value) * int(times),
}
