"""Objects whose keys say what their values are: arguments of tools, attributes, rows of a table.

`{"ssn": "536904399"}` says with its key what the value alone does not. So such an object is
written as the JSON text that it would be, and that text is read: the same rules decide as in a
string that holds JSON. What is found is masked in the value where it begins. Messages and their
parts, whose keys are those of a protocol, are left out: their texts are read as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import RedactionFailed

CHUNK_CHARS = 8192
"""A larger object is written as several texts, each read for itself, as its values are."""

FAMILIAR = frozenset(
    {
        "annotations", "audio", "cache_control", "call_id", "content", "data", "delta", "detail",
        "file", "file_id", "filename", "finish_reason", "function", "id", "image_url", "images",
        "index", "is_error", "logprobs", "media_type", "message", "name", "output", "parts",
        "reasoning", "reasoning_content", "refusal", "role", "signature", "source", "status",
        "strict", "summary", "text", "thinking", "tool_call_id", "tool_calls", "tool_use_id",
        "ttl", "type", "$defs", "$ref", "$schema", "additionalProperties", "allOf", "anyOf",
        "description", "enum", "format", "items", "maxItems", "maxLength", "maximum", "minItems",
        "minLength", "minimum", "multipleOf", "oneOf", "parameters", "pattern", "properties",
        "required", "title", "uniqueItems", "input_schema",
    }
)  # fmt: skip
"""Keys of messages, their parts and declared tools: they say nothing of the text under them."""
_SCHEMA = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "description", "enum", "format",
        "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum",
        "multipleOf", "oneOf", "pattern", "properties", "required", "title", "type",
        "uniqueItems",
    }
)  # fmt: skip
_DECLARES = frozenset(["$ref", "allOf", "anyOf", "description", "oneOf", "type"])
_ARGUMENTS = ("input", "arguments")
"""Under these, an object holds arguments whatever its keys are; a text is read as it is."""

_NAMES = ("name", "key", "field", "label", "header", "parameter", "variable")
VALUES = frozenset(("value", "val", "secret", "content", "data"))
"""Where a pair of a name and a value holds the value."""

_LONG_WORDS = r"password|passwd|passphrase|passcode|passwort|kennwort|wachtwoord"
_SHORT_WORDS = (
    r"pwd|pass|pw|pswd|contraseña|contrasena|senha|mot_de_passe|mdp|hasło|haslo|lösenord"
    r"|пароль|密码|密碼|パスワード|비밀번호"
)
_ENDS = (
    r"s?(?:_?[0-9]{1,3})?"
    r"(?:_(?:again|confirm|confirmation|current|new|old|plain|plaintext|repeat|text|value))?"
)
_SECRET_KEYS = {
    "password": re.compile(rf"(?:.*(?:{_LONG_WORDS})|(?:.*_)?(?:{_SHORT_WORDS})){_ENDS}"),
    "api_key": re.compile(
        r"(?:.*_)?(?:.*api_?key|.*secret|secret_?(?:access_)?key|client_?secret"
        r"|(?:access|api|auth|bearer|bot|deploy|github|gitlab|id|personal|refresh|security|service"
        r"|session|slack|user|x)_?token|(?:access|account|encryption|private|shared|signing|ssh)_?key"
        rf"|authorization|bearer|credentials?|(?:set_?)?cookie){_ENDS}"
    ),
}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_JOINTS = re.compile(r"[\s._/:\-]+")
_KEY_CHARS = 128


@lru_cache(maxsize=4096)
def secret_kind(key: str) -> str:
    """Return the kind of credential that a key names, or an empty string. The end of a key
    decides, and `dbPassword`, `DB-PASSWORD` and `db_password` are one name."""
    name = _JOINTS.sub("_", _CAMEL.sub("_", key[-_KEY_CHARS:].strip())).lower()
    return next((kind for kind, names in _SECRET_KEYS.items() if names.fullmatch(name)), "")


def is_keyed(items: Mapping[Any, Any]) -> bool:
    """Whether an object is to be read with its keys. Not where they are all a protocol's, nor
    where they are names of what a tool is declared to take."""
    if FAMILIAR.issuperset(items):
        return False
    return any(_tells(key, item) for key, item in items.items() if key not in FAMILIAR)


def _tells(key: Any, item: Any) -> bool:
    if item is None or item is True or item is False:
        return False
    kind = type(item)
    if key in _ARGUMENTS:
        return kind is dict
    return not (kind is dict and _is_schema(item))


def _is_schema(items: Mapping[Any, Any]) -> bool:
    """Whether an object declares a value instead of holding it."""
    return _SCHEMA.issuperset(items) and not _DECLARES.isdisjoint(items)


class Said(NamedTuple):
    """One value in the text that an object is written as, and what stands between it and the one
    before: keys, quotes and brackets."""

    before: str
    text: str
    kind: str
    """The kind of credential that a key says the value is, or an empty string."""


class Chunk(NamedTuple):
    """A text that an object is read as, or a part of it is."""

    values: list[Said]
    after: str
    """What stands after the last value."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join([part for said in self.values for part in said[:2]]) + self.after


def written(items: Mapping[Any, Any], most_depth: int) -> list[Chunk]:
    """The texts that an object is to be read as. Raises RedactionFailed on what is no JSON, and
    deeper than `most_depth`."""
    writer = _Writer()
    writer.object(items, "", most_depth)
    return writer.ended()


class _Writer:
    """Writes a value as JSON would, in chunks."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._values: list[Said] = []
        self._before = ""
        self._chars = 0

    def ended(self) -> list[Chunk]:
        """What was written."""
        return [*self._chunks, Chunk(self._values, self._before)]

    def value(self, value: Any, kind: str, room: int) -> None:
        """Write a value that holds so many levels; `kind` is what the keys above it name."""
        if isinstance(value, str):
            self._before += '"'
            self._said(value, kind if value else "", '"')
        elif value is None or isinstance(value, bool):
            self._before += json.dumps(value)
        elif isinstance(value, int | float):
            self._said(number_text(value), kind, "")
        elif isinstance(value, dict):
            self.object(value, kind, room)
        elif isinstance(value, list | tuple):
            self._list(value, kind, room)
        else:
            raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)

    def _said(self, text: str, kind: str, after: str) -> None:
        self._values.append(Said(self._before, text, kind))
        self._chars += len(self._before) + len(text)
        self._before = after
        if self._chars > CHUNK_CHARS:
            self._chunks += self.ended()[-1:]
            self._values, self._before, self._chars = [], "", 0

    def object(self, items: Mapping[Any, Any], kind: str, room: int) -> None:
        """Write an object."""
        if room < 0:
            raise RedactionFailed(RedactionFailed.TOO_DEEP)
        named, before = named_by(items), "{"
        for key, item in items.items():
            if not isinstance(key, str):
                raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)
            name = named if named and key in VALUES else key
            self._before += f'{before}"{name}": '
            self.value(item, kind_under(name, item) or kind, room - 1)
            before = ", "
        self._before += "}" if items else "{}"

    def _list(self, items: Sequence[Any], kind: str, room: int) -> None:
        if room < 0:
            raise RedactionFailed(RedactionFailed.TOO_DEEP)
        before = "["
        for item in items:
            self._before += before
            self.value(item, kind, room - 1)
            before = ", "
        self._before += "]" if items else "[]"


def named_by(items: Mapping[Any, Any]) -> str:
    """The name of a pair of a name and a value: `{"name": "DB_PASSWORD", "value": ...}`."""
    if VALUES.isdisjoint(items) or "role" in items:
        return ""
    name = next((items[name] for name in _NAMES if type(items.get(name)) is str), "")
    return name if len(name) <= _KEY_CHARS else ""


def kind_under(key: str, item: Any) -> str:
    """The kind of credential that a key says is in an item, or an empty string."""
    kind = secret_kind(key)
    return "" if kind and type(item) is dict and _is_schema(item) else kind


def number_text(number: int | float) -> str:
    """A number as it is read: digits, without an exponent where there is one to spare."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e40:
        return format(number, ".0f")
    return str(number) if abs(number) < 1e40 else "0"


def refilled(value: Any, texts: Iterator[str]) -> Any:
    """The same value with the texts of its pieces that are values, in order; a number stays one
    unless its text is another."""
    if isinstance(value, str):
        return next(texts)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        text = next(texts)
        return value if text == number_text(value) else text
    if isinstance(value, dict):
        return {key: refilled(item, texts) for key, item in value.items()}
    return [refilled(item, texts) for item in value]
