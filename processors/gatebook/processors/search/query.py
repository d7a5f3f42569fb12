"""The query language: text to a tree, and a tree back to text. Pure.

    user.id:alice and event.outcome:failure      field equals value; and, or, not, ( )
    user.name:"Alice Example"                    quoted: taken as it is, no wildcards
    url.path:/v1/*                               * stands for any characters
    http.response.status_code >= 500             > >= < <= on numbers, times and addresses
    event.action:(chat or embeddings)            several values of one field
    error.type:*                                 the field is there
    password reset                               words in prompts, answers and reasons

A backslash takes the meaning from the character after it. It reads like Kibana's KQL; unlike
there, clauses side by side need `and` or `or` between them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from gatebook.schemas.errors import GatebookError

MAX_QUERY_CHARACTERS = 8_192
MAX_DEPTH = 40
MAX_CLAUSES = 500
OPERATORS = (":", ">=", "<=", ">", "<")
KEYWORDS = ("and", "or", "not")
QUOTE_KEYWORD = "put it in quotes if you mean the word itself"
_ENDS_WORD = frozenset('()"')
_ENDS_NAME = frozenset(':<>="()')
_SURROGATE = re.compile("[\ud800-\udfff]")
_CARET_CONTEXT_CHARACTERS = 60


class QueryError(GatebookError):
    """A query that cannot be understood. `position` is the index of the character at fault."""

    exit_code = 2

    def __init__(self, message: str, query: str, position: int, next_step: str = "") -> None:
        super().__init__(f"{message}\n{_pointed(query, position)}")
        self.message = message
        self.position = position
        self.next_step = next_step


def _pointed(query: str, position: int) -> str:
    """The query with a caret under one character; control characters shown as `?`."""
    start = max(0, position - _CARET_CONTEXT_CHARACTERS)
    shown = query[start : position + _CARET_CONTEXT_CHARACTERS]
    printable = "".join(
        c if unicodedata.category(c)[0] in "LNPS" or c == " " else "?" for c in shown
    )
    return f"    {printable}\n    {' ' * (position - start)}^"


@dataclass(frozen=True, slots=True)
class Value:
    """What a field is compared with. Between two pieces stands a wildcard: ("ab", "c") is ab*c.
    A quoted value has one piece."""

    pieces: tuple[str, ...]
    quoted: bool = False
    at: int = field(default=0, compare=False)

    @property
    def is_exists(self) -> bool:
        """The value `*` alone."""
        return not self.quoted and len(self.pieces) > 1 and not any(self.pieces)

    @property
    def has_wildcard(self) -> bool:
        return len(self.pieces) > 1

    @property
    def text(self) -> str:
        """The value without wildcards in it; `*` where one stood."""
        return "*".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Comparison:
    """field : value, or field >= value, and so on."""

    name: str
    operator: str
    value: Value
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Words:
    """Free text: every word has to occur."""

    words: tuple[Value, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Everything that does not match."""

    part: Node


@dataclass(frozen=True, slots=True)
class And:
    """All parts match. Never holds another And directly."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part matches. Never holds another Or directly."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """The empty query."""


Node = Comparison | Words | Not | And | Or | Everything


def parse(query: str) -> Node:
    """The tree of a query. Raises QueryError, and nothing else, on any text."""
    if len(query) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"the query is longer than {MAX_QUERY_CHARACTERS} characters",
            query,
            MAX_QUERY_CHARACTERS,
        )
    if surrogate := _SURROGATE.search(query):
        raise QueryError("the query is not valid text", query, surrogate.start())
    return _Parser(query).whole()


def both(kind: type[And] | type[Or], parts: list[Node]) -> Node:
    """And or Or of parts, flat, and without a shell around a single part."""
    flat: list[Node] = []
    for part in parts:
        flat += part.parts if isinstance(part, kind) else (part,)
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


class _Parser:
    """Recursive descent over the characters of one query."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._at = 0
        self._depth = 0
        self._clauses = 0

    def whole(self) -> Node:
        self._skip_space()
        if self._is_end():
            return Everything()
        node = self._either()
        if self._is_end():
            return node
        if self._peek() == ")":
            raise self._error("this ) closes nothing")
        raise self._error(
            "`and` or `or` is missing here", 'quote a value that has spaces: field:"two words"'
        )

    # -- and, or, not, parentheses

    def _either(self) -> Node:
        parts = [self._all()]
        while self._take_keyword("or"):
            parts.append(self._all())
        return both(Or, parts)

    def _all(self) -> Node:
        parts = [self._maybe_not()]
        while self._take_keyword("and"):
            parts.append(self._maybe_not())
        return both(And, parts)

    def _maybe_not(self) -> Node:
        start = self._at
        if self._take_keyword("not"):
            with _Deeper(self, start):
                return Not(self._maybe_not())
        return self._group() if self._peek() == "(" else self._clause()

    def _group(self) -> Node:
        start = self._at
        self._at += 1
        self._skip_space()
        with _Deeper(self, start):
            node = self._either()
        self._close(start)
        return node

    def _close(self, start: int) -> None:
        if self._peek() != ")":
            if self._is_end():
                raise self._error("this ( is not closed", at=start)
            raise self._error("`and`, `or` or ) is missing here")
        self._at += 1
        self._skip_space()

    # -- clauses

    def _clause(self) -> Node:
        start = self._at
        self._count(start)
        if self._is_end():
            raise self._error("the query ends where a clause should stand")
        if self._peek() == ")":
            raise self._error("a clause is missing before )")
        if keyword := self._at_keyword():
            raise self._error(f"a clause is missing before `{keyword}`", QUOTE_KEYWORD)
        if self._peek() == '"':
            return self._free_text(start)
        name = self._plain(_ENDS_NAME)
        self._skip_space()
        operator = self._take_operator()
        if operator is None:
            self._at = start
            return self._free_text(start)
        if name.has_wildcard or not name.text:
            raise self._error("a field name is missing before the operator", at=start)
        return self._compared(name.text, operator, start)

    def _compared(self, name: str, operator: str, start: int) -> Node:
        self._skip_space()
        if operator == ":" and self._peek() == "(":
            return self._value_group(name)
        return Comparison(name, operator, self._value(), start)

    def _value_group(self, name: str) -> Node:
        """field:(a or not b): the same clause once per value."""
        start = self._at
        self._at += 1
        self._skip_space()
        with _Deeper(self, start):
            parts = [self._values_and(name)]
            while self._take_keyword("or"):
                parts.append(self._values_and(name))
        self._close(start)
        return both(Or, parts)

    def _values_and(self, name: str) -> Node:
        parts = [self._values_not(name)]
        while self._take_keyword("and"):
            parts.append(self._values_not(name))
        return both(And, parts)

    def _values_not(self, name: str) -> Node:
        start = self._at
        self._count(start)
        if self._take_keyword("not"):
            with _Deeper(self, start):
                return Not(self._values_not(name))
        if self._peek() == "(":
            return self._value_group(name)
        return Comparison(name, ":", self._value(), start)

    def _free_text(self, start: int) -> Node:
        words: list[Value] = []
        while not self._is_end() and self._peek() not in "()" and not self._at_keyword():
            words.append(self._word())
        return Words(tuple(words), start)

    def _word(self) -> Value:
        if self._peek() == '"':
            return self._quoted()
        word = self._plain(_ENDS_NAME)
        if self._peek() and self._peek() in ":<>=":
            raise self._error(
                "`and` or `or` is missing before this field"
                if word.text
                else "a field name is missing before the operator"
            )
        self._skip_space()
        return word

    # -- values

    def _value(self) -> Value:
        if self._peek() == '"':
            return self._quoted()
        if self._at_keyword():
            raise self._error("a value is missing here", QUOTE_KEYWORD)
        value = self._plain(_ENDS_WORD)
        if not value.has_wildcard and not value.text:
            raise self._error("a value is missing here")
        self._skip_space()
        return value

    def _quoted(self) -> Value:
        start = self._at
        self._at += 1
        text: list[str] = []
        while not self._is_end():
            char = self._query[self._at]
            if char == '"':
                self._at += 1
                if not self._is_end() and not self._peek().isspace() and self._peek() not in "()":
                    raise self._error("a space is missing after the quoted text")
                self._skip_space()
                return Value(("".join(text),), True, start)
            text.append(self._escaped() if char == "\\" else char)
            self._at += 1
        raise self._error("this quote is not closed", at=start)

    def _plain(self, ends: frozenset[str]) -> Value:
        """Characters up to white space or one of `ends`, with wildcards cut out."""
        start = self._at
        pieces: list[list[str]] = [[]]
        while not self._is_end():
            char = self._query[self._at]
            if char == '"' and self._at > start:
                raise self._error("a quote inside a word", 'write \\" for the character itself')
            if char.isspace() or char in ends:
                break
            if char == "*":
                pieces.append([])
            else:
                pieces[-1].append(self._escaped() if char == "\\" else char)
            self._at += 1
        return Value(_without_runs(["".join(piece) for piece in pieces]), False, start)

    def _escaped(self) -> str:
        """The character after the backslash at hand."""
        self._at += 1
        if self._is_end():
            raise self._error("nothing follows this backslash", at=self._at - 1)
        return self._query[self._at]

    # -- characters

    def _take_operator(self) -> str | None:
        for operator in (">=", "<=", ":", ">", "<"):
            if self._query.startswith(operator, self._at):
                self._at += len(operator)
                return operator
        if self._peek() == "=":
            raise self._error("= is not an operator", "write field:value")
        return None

    def _at_keyword(self) -> str | None:
        for keyword in KEYWORDS:
            end = self._at + len(keyword)
            if self._query[self._at : end].lower() == keyword and (
                end >= len(self._query) or self._query[end].isspace() or self._query[end] in '()"'
            ):
                return keyword
        return None

    def _take_keyword(self, keyword: str) -> bool:
        if self._at_keyword() != keyword:
            return False
        self._at += len(keyword)
        self._skip_space()
        return True

    def _peek(self) -> str:
        return self._query[self._at] if self._at < len(self._query) else ""

    def _is_end(self) -> bool:
        return self._at >= len(self._query)

    def _skip_space(self) -> None:
        while self._at < len(self._query) and self._query[self._at].isspace():
            self._at += 1

    def _count(self, at: int) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise self._error(f"the query has more than {MAX_CLAUSES} clauses", at=at)

    def _error(self, message: str, next_step: str = "", at: int | None = None) -> QueryError:
        return QueryError(message, self._query, self._at if at is None else at, next_step)

    def deeper(self, by: int, at: int) -> None:
        self._depth += by
        if self._depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}", at=at)


class _Deeper:
    """Counts nesting, so that a hostile query cannot exhaust the stack."""

    def __init__(self, parser: _Parser, at: int) -> None:
        self._parser = parser
        self._at = at

    def __enter__(self) -> None:
        self._parser.deeper(1, self._at)

    def __exit__(self, *_: object) -> None:
        self._parser.deeper(-1, self._at)


def _without_runs(pieces: list[str]) -> tuple[str, ...]:
    """** means the same as *: drop empty pieces in the middle."""
    if len(pieces) <= 2:
        return tuple(pieces)
    middle = [piece for piece in pieces[1:-1] if piece]
    return (pieces[0], *middle, pieces[-1])


# --- back to text ------------------------------------------------------------------------------


def to_text(node: Node) -> str:
    """A query that parses to an equal tree."""
    match node:
        case Everything():
            return ""
        case Comparison(name, operator, value):
            space = "" if operator == ":" else " "
            return f"{_escape(name)}{space}{operator}{space}{_value_text(value)}"
        case Words(words):
            return " ".join(_value_text(word) for word in words)
        case Not(part):
            return f"not {_inner(part)}"
        case And(parts):
            return " and ".join(_inner(part) for part in parts)
        case Or(parts):
            return " or ".join(_inner(part) for part in parts)


def _inner(node: Node) -> str:
    text = to_text(node)
    return f"({text})" if isinstance(node, And | Or) else text


def _value_text(value: Value) -> str:
    if value.quoted:
        return '"' + value.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "*".join(_escape(piece) for piece in value.pieces)


def _escape(text: str) -> str:
    escaped = "".join(f"\\{c}" if c in '\\():<>="*' or c.isspace() else c for c in text)
    return f"\\{escaped}" if escaped.lower() in KEYWORDS else escaped


def comparisons(node: Node) -> Iterator[Comparison]:
    """Every comparison in a tree, in order."""
    match node:
        case Comparison():
            yield node
        case Not(part):
            yield from comparisons(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from comparisons(part)
        case _:
            return
