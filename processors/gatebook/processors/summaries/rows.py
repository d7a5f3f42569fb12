"""The rows of a summary: what is counted, for whom, and how rows add up. Pure.

A row by principal has every dimension. A row over all principals is the sum of the rows by
principal that are alike otherwise, with a sketch of how many principals they are. A day's row is
the sum of its hours' rows. Nothing is counted twice or by another way.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from datasketches import hll_sketch, hll_union, tgt_hll_type

from gatebook.processors.summaries.spread import Spread

HOUR = "hour"
DAY = "day"
BY_PRINCIPAL = "principal"
BY_ALL = "all"
# 2**12 registers: a standard error of 1.6 %; exact up to some hundred principals.
LG_K = 12
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
Document = dict[str, Any]


class Key(NamedTuple):
    """What a row is about; an empty text where the events do not say.

    subject: tag of the person whose principal this is; empty where a service acts for somebody
    else, or where the person was erased. principal, user and subject are empty in a row over all.
    """

    tenant: str = ""
    service: str = ""
    model: str = ""
    operation: str = ""
    outcome: str = ""
    principal: str = ""
    user: str = ""
    subject: str = ""


# Where a part of the key stands, in summaries and in details alike.
FIELDS: Mapping[str, str] = {
    "tenant": "organization.id",
    "service": "service.name",
    "model": "gen_ai.request.model",
    "operation": "gen_ai.operation.name",
    "outcome": "event.outcome",
    "principal": "gatebook.principal",
    "user": "user.id",
    "subject": "gatebook.subject",
}
OF_PERSON = ("principal", "user", "subject")
COUNTS = ("events", "input_tokens", "output_tokens", *(f"status_{s}" for s in STATUSES))


class Row:
    """What was counted. All counts are exact; durations are kept as spreads."""

    __slots__ = ("duration", "events", "first_chunk", "input_tokens", "output_tokens", "statuses")

    def __init__(self) -> None:
        self.events = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.statuses = [0] * len(STATUSES)
        self.duration = Spread()
        self.first_chunk = Spread()

    def merge(self, other: Row) -> None:
        """Add another row."""
        self.events += other.events
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.statuses = [a + b for a, b in zip(self.statuses, other.statuses, strict=True)]
        self.duration.merge(other.duration)
        self.first_chunk.merge(other.first_chunk)

    def subtract(self, other: Row) -> None:
        """Take a part away that was added before."""
        self.events -= other.events
        self.input_tokens -= other.input_tokens
        self.output_tokens -= other.output_tokens
        self.statuses = [a - b for a, b in zip(self.statuses, other.statuses, strict=True)]
        self.duration.subtract(other.duration)
        self.first_chunk.subtract(other.first_chunk)

    def counts(self) -> dict[str, int]:
        """The exact counts by name."""
        found = (self.events, self.input_tokens, self.output_tokens, *self.statuses)
        return dict(zip(COUNTS, found, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and measures(self) == measures(other)

    __hash__ = None  # type: ignore[assignment]  # it changes as events are added


Rows = dict[Key, Row]


def merged(parts: Iterable[Mapping[Key, Row]]) -> Rows:
    """All rows of several parts, those of one key added up. The parts stay as they are."""
    total: Rows = {}
    for part in parts:
        for key, row in part.items():
            if key not in total:
                total[key] = Row()
            total[key].merge(row)
    return total


def difference(whole: Mapping[Key, Row], part: Mapping[Key, Row]) -> Rows:
    """What is in the whole and not in the part; rows of nothing are left out."""
    left = merged([whole])
    for key, row in part.items():
        if key in left:
            left[key].subtract(row)
    return {key: row for key, row in left.items() if row.events > 0}


def over_all(rows: Mapping[Key, Row]) -> tuple[Rows, dict[Key, set[str]]]:
    """Rows without principals, and the principals that are in each."""
    total: Rows = {}
    principals: dict[Key, set[str]] = {}
    for key, row in rows.items():
        bare = key._replace(principal="", user="", subject="")
        if bare not in total:
            total[bare], principals[bare] = Row(), set()
        total[bare].merge(row)
        principals[bare].add(key.principal)
    return total, principals


def sketch_of(principals: Iterable[str]) -> str:
    """A sketch of how many they are; the same text for the same principals."""
    sketch = hll_sketch(LG_K, tgt_hll_type.HLL_4)
    for principal in sorted(principals):
        sketch.update(principal)
    return base64.b64encode(sketch.serialize_compact()).decode()


class Principals:
    """How many different principals are in several sketches together."""

    def __init__(self) -> None:
        self._union = hll_union(LG_K)
        self._is_empty = True

    def add(self, sketch: str) -> None:
        """Unite with what `sketch_of` gave."""
        self._union.update(hll_sketch.deserialize(base64.b64decode(sketch)))
        self._is_empty = False

    def add_one(self, principal: str) -> None:
        """Count one principal; again is no more."""
        self._union.update(principal)
        self._is_empty = False

    def estimate(self) -> int:
        """About how many, to 1.6 % (one standard error); exact while they are few."""
        return 0 if self._is_empty else round(self._union.get_estimate())


# --- documents ---------------------------------------------------------------------------------


def documents(grain: str, at: datetime, rows: Mapping[Key, Row]) -> dict[str, Document]:
    """Every document of an hour or a day, by id: those by principal, and those over all."""
    total, principals = over_all(rows)
    time = _iso(at)
    found: dict[str, Document] = {}
    for key, row in rows.items():
        found[row_id(grain, at, BY_PRINCIPAL, key)] = _document(grain, time, key, row)
    for key, row in total.items():
        document = _document(grain, time, key, row)
        document["summary"] |= {"by": BY_ALL, "principals": sketch_of(principals[key])}
        found[row_id(grain, at, BY_ALL, key)] = document
    return found


def row_id(grain: str, at: datetime, by: str, key: Key) -> str:
    """The id of a row: the same whenever it is made."""
    text = orjson.dumps((grain, at, by, *key))
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()[:18]).decode()


def _document(grain: str, time: str, key: Key, row: Row) -> Document:
    document: Document = {
        "@timestamp": time,
        "summary": {"grain": grain, "by": BY_PRINCIPAL, **measures(row)},
    }
    for path, value in zip(_PATHS, key, strict=True):
        if value:
            node = document
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value
    return document


_PATHS = tuple(tuple(field.split(".")) for field in FIELDS.values())


def measures(row: Row) -> Document:
    """Counts and spreads, as they stand in a document; what is not there is zero."""
    found: Document = {name: count for name, count in row.counts().items() if count}
    for name, spread in (("duration", row.duration), ("first_chunk", row.first_chunk)):
        if spread.count:
            found[name] = {
                "count": spread.count,
                "sum_ns": spread.sum_ns,
                "max_ns": spread.max_ns,
                "spread": spread.pack(),
            }
    return found


def read_document(document: Mapping[str, Any]) -> tuple[Key, Row]:
    """Key and row of a stored document."""
    return Key(*(_get(document, path) for path in _PATHS)), read_row(document["summary"])


def read_row(found: Mapping[str, Any]) -> Row:
    """What `measures` gave."""
    row = Row()
    counts = [found.get(name, 0) for name in COUNTS]
    row.events, row.input_tokens, row.output_tokens, *row.statuses = counts
    for name in ("duration", "first_chunk"):
        if name in found:
            one = found[name]
            setattr(row, name, Spread.unpack(one["spread"], one["sum_ns"], one["max_ns"]))
    return row


def _get(document: Mapping[str, Any], path: Sequence[str]) -> str:
    node: Any = document
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, str) else ""


def _iso(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
