"""From the tree of a query to Elasticsearch's query DSL. Pure.

Everything is a filter: matches are not scored. Prompts and answers are indexed without positions,
so a quoted phrase there matches documents that hold all of its words.
"""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import datetime
from typing import Any

from gatebook.processors.search.amounts import nanoseconds, octets, status_class
from gatebook.processors.search.fields import FieldList
from gatebook.processors.search.query import (
    And,
    Comparison,
    Everything,
    Node,
    Not,
    Or,
    QueryError,
    Value,
    Words,
    parse,
)
from gatebook.processors.search.times import EARLIEST, LATEST, TimeError, parse_time

Dsl = dict[str, Any]
MAX_PATTERN_CHARACTERS = 256  # of a word of free text, or of a value with a *
STATUS = "http.response.status_code"
DURATIONS = ("event.duration",)  # kept in nanoseconds; a person writes 2s or 150ms
RANGE_OPERATORS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
ORDERED_TYPES = ("long", "double", "date_nanos", "ip")
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_TIME = re.compile(
    r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2}(\.\d{1,9})?)?)?(Z|[+-]\d{2}:?\d{2})?)?)?)?"
    r"|now([+-]\d{1,9}[yMwdhHms])*(/[yMwdhHms])?"
)


def compile_query(query: str, fields: FieldList, now: datetime | None = None) -> Dsl:
    """The DSL of a query text. Raises QueryError with the position of what is wrong: syntax, an
    unknown field (with names close to it), or a value that does not fit its field.

    Times relative to `now` become absolute, so that the answer can be cached and shared; without
    it, `now` is Elasticsearch's own.
    """
    return _Compiler(query, fields, now).node(parse(query))


def has_pattern(dsl: Any) -> bool:
    """Whether it looks for parts of values. Every index makes the automaton of each such pattern
    anew for every request, about a millisecond, however few documents match."""
    if isinstance(dsl, dict):
        return "wildcard" in dsl or any(map(has_pattern, dsl.values()))
    return isinstance(dsl, list) and any(map(has_pattern, dsl))


class _Compiler:
    def __init__(self, query: str, fields: FieldList, now: datetime | None) -> None:
        self._query = query
        self._fields = fields
        self._now = now

    def node(self, node: Node) -> Dsl:
        match node:
            case Everything():
                return {"match_all": {}}
            case And(parts):
                return {"bool": {"filter": [self.node(part) for part in parts]}}
            case Or(parts):
                return _any([self.node(part) for part in parts])
            case Not(part):
                return {"bool": {"must_not": [self.node(part)]}}
            case Words(words):
                return {"bool": {"filter": [self._word(word) for word in words]}}
            case Comparison():
                return self._comparison(node)

    def _word(self, word: Value) -> Dsl:
        if word.is_exists:
            return {"match_all": {}}
        text = [_analysed(name, word) for name in self._fields.text_fields]
        self._check_pattern(word)
        inside = Value(("", *word.pieces, ""))
        sentences = [_wildcard(name, inside) for name in self._fields.sentence_fields]
        return _any(text + sentences)

    def _comparison(self, node: Comparison) -> Dsl:
        kind = self._fields.type_of(node.name)
        if kind is None:
            raise self._unknown(node)
        if not self._fields.is_searchable(node.name):
            raise self._unsearchable(node)
        if node.value.is_exists and node.operator == ":":
            return {"exists": {"field": node.name}}
        if kind == "binary":
            raise self._unsearchable(node)
        if node.operator != ":":
            return self._range(node, kind)
        match kind:
            case "text":
                if node.value.has_wildcard:
                    self._check_pattern(node.value)
                return _analysed(node.name, node.value)
            case "keyword":
                if node.value.has_wildcard:
                    self._check_pattern(node.value)
                return _keyword(node.name, node.value)
            case "flattened":
                return self._flattened(node)
            case "date_nanos":
                time = self._scalar(node, kind)
                return {"range": {node.name: {"gte": time, "lte": time}}}
            case _:
                return self._equal(node, kind)

    def _equal(self, node: Comparison, kind: str) -> Dsl:
        if node.name == STATUS and (hundred := status_class(node.value.text)) is not None:
            return {"range": {STATUS: {"gte": hundred, "lt": hundred + 100}}}
        return {"term": {node.name: {"value": self._scalar(node, kind)}}}

    def _unknown(self, node: Comparison) -> QueryError:
        close = self._fields.close_to(node.name)
        step = (
            f"did you mean {' or '.join(close)}?"
            if close
            else "`gatebook search --list-fields` shows them"
        )
        return QueryError("no field has this name", self._query, node.at, step)

    def _unsearchable(self, node: Comparison) -> QueryError:
        return QueryError(
            "documents cannot be found by this field: it is shown with them, and not indexed",
            self._query,
            node.at,
            "search another field, such as event.id:ID; `gatebook search --list-fields` says which",
        )

    def _range(self, node: Comparison, kind: str) -> Dsl:
        if kind not in ORDERED_TYPES:
            raise QueryError(
                f"{node.operator} needs a number, a time or an address, and this is a {kind} field",
                self._query,
                node.at,
                "write field:value",
            )
        bound = self._scalar(node, kind)
        if kind == "ip" and "/" in bound:
            raise self._wrong(node.value, "a whole network has no order; write field:network")
        return {"range": {node.name: {RANGE_OPERATORS[node.operator]: bound}}}

    def _flattened(self, node: Comparison) -> Dsl:
        value = node.value
        if not value.has_wildcard:
            return {"term": {node.name: {"value": value.text}}}
        if len(value.pieces) == 2 and not value.pieces[1]:
            return {"prefix": {node.name: {"value": value.pieces[0]}}}
        raise self._wrong(value, "in this field a * may only stand at the end")

    def _scalar(self, node: Comparison, kind: str) -> Any:
        value = node.value
        if value.has_wildcard:
            raise self._wrong(value, f"a * cannot stand in a {_CALLED[kind]}")
        found = self._read(node.name, value.text, kind)
        if found is None:
            raise self._wrong(value, f"this is not a {_CALLED[kind]}")
        return found

    def _read(self, name: str, text: str, kind: str) -> Any:
        if kind == "date_nanos" and self._now is not None:
            return _absolute(text, self._now)
        if name in DURATIONS and (length := nanoseconds(text)) is not None:
            return length
        if name.endswith(".bytes") and (size := octets(text)) is not None:
            return size
        return _READERS[kind](text)

    def _check_pattern(self, value: Value) -> None:
        """A longer pattern may take Elasticsearch more steps than it is willing to make."""
        if len(value.text) > MAX_PATTERN_CHARACTERS:
            raise self._wrong(value, f"this is longer than {MAX_PATTERN_CHARACTERS} characters")

    def _wrong(self, value: Value, message: str) -> QueryError:
        return QueryError(message, self._query, value.at)


def _any(parts: list[Dsl]) -> Dsl:
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def _analysed(name: str, value: Value) -> Dsl:
    if value.has_wildcard:
        return _wildcard(name, value)
    return {"match": {name: {"query": value.text, "operator": "and"}}}


def _keyword(name: str, value: Value) -> Dsl:
    if not value.has_wildcard:
        return {"term": {name: {"value": value.text}}}
    if len(value.pieces) == 2 and not value.pieces[1]:
        return {"prefix": {name: {"value": value.pieces[0]}}}
    return {"wildcard": {name: {"value": _pattern(value)}}}


def _wildcard(name: str, value: Value) -> Dsl:
    return {"wildcard": {name: {"value": _pattern(value), "case_insensitive": True}}}


def _pattern(value: Value) -> str:
    return "*".join(re.sub(r"([\\*?])", r"\\\1", piece) for piece in value.pieces)


def _long(text: str) -> int | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        return None
    return int(text) if _LONG_MIN <= int(text) <= _LONG_MAX else None


def _double(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,3})?", text):
        return None
    return float(text) if math.isfinite(float(text)) else None


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text, strict=False) if "/" in text else _plain_ip(text))
    except ValueError:
        return None


def _plain_ip(text: str) -> str:
    return str(ipaddress.ip_address(text.partition("%")[0]))


def _absolute(text: str, now: datetime) -> str | None:
    """now-1h and 15m by our clock; a part of a date (2026-11) is left to the server, and so are
    months, years and sums (now-1M, now-1d+2h), but from our `now` on."""
    try:
        relative = text[:1].isdigit() and not _TIME.fullmatch(text)
        return parse_time(text, now) if relative or text.startswith("now") else _time(text)
    except TimeError:
        found = _time(text)
        is_sum = found is not None and text.startswith("now")
        return f"{parse_time('now', now)}||{text[3:]}" if is_sum else found


def _time(text: str) -> str | None:
    if not _TIME.fullmatch(text):
        return None
    is_possible = text.startswith("now") or EARLIEST.year <= int(text[:4]) < LATEST.year
    return text if is_possible else None


_READERS = {
    "long": _long,
    "double": _double,
    "boolean": _boolean,
    "ip": _address,
    "date_nanos": _time,
}
_CALLED = {
    "long": "whole number",
    "double": "number",
    "boolean": "truth value (true or false)",
    "ip": "network address (10.0.0.1, 10.0.0.0/8, 2001:db8::1)",
    "date_nanos": "time from 1970 to 2261 (2026-11-23, 2026-11-23T10:15:00Z, now-1h)",
}
