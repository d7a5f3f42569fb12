"""What stands in lists and objects below the name of a credential, in JSON text.

`{"passwords": ["...", "..."]}` and `{"api_key": {"old": "..."}}` in a text are read by the names
that `keyed` lists for objects, so that both forms hide the same. JSON that breaks off, or that
stands in code, is read as far as it goes; YAML's inline form is, too, for what is mixed as
passwords are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .budget import Budget
from .keyed import VALUES, kind_under, named_by
from .probe import Found, Probe, is_placeholder, is_variable, plain

MAX_BYTES = 65_536
"""Of one list or object; what stands further down stays."""
MAX_DEPTH = 32
_KEY_BYTES = 160
_TOKEN_UNITS = 2

# All patterns are read from one place on; what they repeat is consumed once.
_AFTER_KEY = re.compile(
    rb"""[\w .\-/\x80-\xff]{0,40}+(?:(?P<quote>["'])"""
    rb"""(?:\s{0,8}:|\s{0,3},\s{0,24}["']value["']\s{0,3}:)\s{0,8}(?=[\[{"'])"""
    rb"""|:[ \t]{1,4}(?=[\[{]))"""
)
_LINE_BEFORE = re.compile(rb"(?:\A|\n)[ \t]{0,40}(?:-[ ])?(?P<key>[\w\-.\x80-\xff]{0,60})\Z")
_ENDS = rb"""(?=\s{0,8}(?:[,:\]}]|\Z))"""
_TOKEN = re.compile(
    rb"""[\s,]*+(?:(?P<open>[\[{(])|(?P<close>[\]})])"""
    rb'''|"(?P<double>(?:[^"\\]++|\\.|"(?!\s{0,8}(?:[,:\]}]|\Z)))*+)"'''
    rb"""|'(?P<single>(?:[^'\\]++|\\.|'(?!\s{0,8}(?:[,:\]}]|\Z)))*+)'"""
    rb"""|["'](?P<cut>[^\n]*)"""
    rb"""|(?P<number>-?[0-9][0-9.eE+\-]*+)""" + _ENDS + rb"""|(?P<bare>(?:[^\s,:\[\]{}()"']"""
    rb"""|:(?!\s))(?:[^,:\[\]{}()"'\n\x00]|:(?!\s))*+))""",
    re.DOTALL,
)
_COLON = re.compile(rb"\s{0,8}:")
_MIXED = re.compile(rb"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])\S{5,200}")

# What takes a value's place in quotes, below a name: less than elsewhere (`is_variable`).
_TEMPLATE = re.compile(
    rb"<[A-Za-z_ \-]{1,80}>|\$[A-Z_][A-Z0-9_]*|\$[{(][^\s]*|\{\{[^{}]*\}\}|%[({][^(){}]*[)}]s?"
    rb"|\*+|\.+|[xX]{3,}|-+|_+|(?i:none|null|nil|true|false|undefined|changeme|redacted|hidden"
    rb"|masked|optional|required|string|str|your[_-][a-z_-]*)"
    rb"|(?:os|env|self|config|settings|process|request|args)\.[A-Za-z_.]+|[a-z_.]+\(\)"
)


class _Leaf(NamedTuple):
    start: int
    end: int
    text: str
    is_bare: bool


class _Group(NamedTuple):
    is_object: bool
    items: list[tuple[str, _Leaf | _Group]]
    """With their keys, which are empty in a list."""


def below_name(probe: Probe) -> list[Found] | None:
    """Accept all that stands below the name of a credential of the rule's kind: what is in a list
    or an object, and a text of many digits. None where the name is to be read as any other."""
    after = _AFTER_KEY.match(probe.data, probe.end)
    if after is None or _is_part(probe):
        return None
    key = _key(probe, after)
    if not kind_under(key, None):
        return None
    stop = min(len(probe.data), after.end() + MAX_BYTES)
    node = _Reader(probe.data, after.end(), stop, probe.budget).value()
    if node is None:
        return None
    found = list(_found(probe, node, key, is_quoted=after["quote"] is not None))
    return found if found or (after["quote"] and isinstance(node, _Group)) else None


def _found(probe: Probe, node: _Leaf | _Group, key: str, *, is_quoted: bool) -> Iterator[Found]:
    accepts = _is_numbered if isinstance(node, _Leaf) else _is_kept if is_quoted else _is_mixed
    for kind, leaf in _leaves(node, kind_under(key, _shape(node))):
        value = probe.data[leaf.start : leaf.end]
        if kind == probe.rule.kind and accepts(value, leaf):
            yield Found(leaf.start, leaf.end, plain(value))


def _is_part(probe: Probe) -> bool:
    """Tell `pass` in `password`, which is a keyword of its own."""
    start = probe.start
    word = probe.data[start : start + 8].lower()
    return word == b"password" and probe.end - start < len(word)


def _key(probe: Probe, after: re.Match[bytes]) -> str:
    """The whole of the key in which the probe stands, or an empty text."""
    data, start = probe.data, probe.start
    left = max(0, start - _KEY_BYTES)
    if after["quote"]:
        first = data.rfind(after["quote"], left, start) + 1
        return plain(data[first or left : after.start("quote")])
    line = _LINE_BEFORE.search(data, left, start)
    return plain(data[line.start("key") : after.end()].rstrip(b": \t")) if line else ""


def _is_kept(value: bytes, leaf: _Leaf) -> bool:
    """Tell a text or a number that is no variable; most bare words are code."""
    if leaf.is_bare or not value.strip():
        return _is_mixed(value, leaf)
    return not _TEMPLATE.fullmatch(value.strip())


def _is_mixed(value: bytes, leaf: _Leaf) -> bool:
    return bool(_MIXED.fullmatch(value)) and not is_variable(value)


def _is_numbered(value: bytes, leaf: _Leaf) -> bool:
    """Tell `xk-123456789012` from names; other values are told by their randomness."""
    digits = len(value) - len(value.translate(None, b"0123456789"))
    return digits >= 6 and bool(_MIXED.fullmatch(value)) and not is_placeholder(value)


def _shape(node: _Leaf | _Group) -> dict[str, str | None] | None:
    """An object's keys and texts, as `keyed` asks for them."""
    if isinstance(node, _Leaf) or not node.is_object:
        return None
    return {key: item.text if isinstance(item, _Leaf) else None for key, item in node.items}


def _leaves(node: _Leaf | _Group, kind: str) -> Iterator[tuple[str, _Leaf]]:
    """The values in a node, and the kind of credential that the keys above each of them name: the
    next list or object that has such a key, for a rule may leave a value that has one itself."""
    if isinstance(node, _Leaf):
        yield kind, node
        return
    named = named_by(_shape(node) or {})
    for key, item in node.items:
        name = named if named and key in VALUES else key
        inner = kind_under(name, _shape(item))
        yield from _leaves(item, (kind or inner) if isinstance(item, _Leaf) else (inner or kind))


class _Reader:
    """Reads one value of JSON, or of what resembles it, in one pass that is paid for."""

    def __init__(self, data: bytes, at: int, stop: int, budget: Budget) -> None:
        self._data = data
        self._at = at
        self._stop = stop
        self._budget = budget
        self._bare_end = -1

    def value(self) -> _Leaf | _Group | None:
        """The value that begins here."""
        token = self._next()
        if token is None or token["close"]:
            return None
        return self._group(token, MAX_DEPTH) if token["open"] else self._leaf(token)

    def _next(self) -> re.Match[bytes] | None:
        token = _TOKEN.match(self._data, self._at, self._stop)
        is_whole = token is not None and token["cut"] is None
        end = token.end() if token and is_whole else self._stop
        self._budget.spend(_TOKEN_UNITS + (end - self._at) // 64)
        self._at = end
        return token

    def _leaf(self, token: re.Match[bytes]) -> _Leaf:
        start, end = token.span(token.lastgroup or 0)
        is_bare = token.lastgroup == "bare"
        end = start + len(self._data[start:end].rstrip()) if is_bare else end
        self._bare_end = end if is_bare else -1
        return _Leaf(start, end, plain(self._data[start:end]), is_bare)

    def _group(self, opening: re.Match[bytes], room: int) -> _Group:
        """What stands up to the bracket that closes; deeper than the room, the reading ends."""
        group, key = _Group(opening["open"] == b"{", []), ""
        while room and (token := self._next()) and not token["close"]:
            item: _Leaf | _Group
            if token["open"]:
                is_code = token["open"] == b"(" or token.start("open") == self._bare_end
                item = self._group(token, room - 1)
                if is_code:
                    continue
            else:
                item = self._leaf(token)
                colon = _COLON.match(self._data, self._at, self._stop)
                if colon and group.is_object:
                    key, self._at = item.text, colon.end()
                    continue
            group.items.append((key, item))
            key = ""
        if not room:
            self._at = self._stop
        return group
