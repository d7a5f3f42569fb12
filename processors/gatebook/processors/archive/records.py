"""What an archive holds of a document: canonical JSON, without what has to stay erasable.

Sealed content goes along as it is: an erasure destroys its key, wherever the copies are. Text
that was opened for search, and names, would stay readable in an archive; so they are left out
unless they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from gatebook.processors import render
from gatebook.processors.archive.errors import Differs
from gatebook.processors.subjects.layers import IDENTIFIERS, SEARCHED, value_at, without

TEXT_FIELDS = tuple(SEARCHED.values())
# Kinds whose digest covers their id alone: what is repeated after a crash is the same alert.
REPEATABLE = ("alert", "deadletter")
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """One document of an archive. `document` is canonical JSON (keys sorted, no spaces);
    `left_out` names the fields that the index holds and the archive does not."""

    id: str
    timestamp_ns: int
    hash: str
    left_out: tuple[str, ...]
    document: str

    @property
    def place(self) -> tuple[int, bytes]:
        """Where it stands in an archive: by time, then by id."""
        return self.timestamp_ns, self.id.encode()


@dataclass(frozen=True, slots=True)
class Kept:
    """What of the erasable fields is archived in the open."""

    text: bool = False
    names: bool = False

    def paths_left_out(self) -> tuple[tuple[str, ...], ...]:
        """Fields that are left out where a document has them."""
        return (*(() if self.text else TEXT_FIELDS), *(() if self.names else IDENTIFIERS))


def record_of(document_id: str, source: Mapping[str, Any], kept: Kept) -> Record:
    """The record of a stored document."""
    gone = [path for path in kept.paths_left_out() if value_at(source, path) is not None]
    document = without(source, gone) if gone else source
    return Record(
        document_id,
        nanoseconds(str(source["@timestamp"])),
        str(value_at(source, ("event", "hash")) or ""),
        tuple(".".join(path) for path in gone),
        canonical(document),
    )


def canonical(document: Mapping[str, Any]) -> str:
    """A document as it is archived."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of a time in UTC as documents hold it. Raises ValueError."""
    if not text.endswith("Z"):
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1_000
    fraction = text[20:-1] if len(text) > 20 else ""
    return _second(text[:19]) * NS + int(fraction.ljust(9, "0")[:9] or 0)


def checked(record: Record, kind: str) -> bool:
    """Whether the record's document has the digest that stands in it. False where that cannot be
    said: event.hash covers fields that were left out. Raises Differs without a place."""
    try:
        document = orjson.loads(record.document)
        stored = document["event"]["hash"]
        time_of = nanoseconds(str(document["@timestamp"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise Differs("this is no document") from None
    if stored != record.hash or time_of != record.timestamp_ns:
        raise Differs("the document and the columns beside it say different things")
    if canonical(document) != record.document:
        raise Differs("the document is not in canonical form")
    if kind not in REPEATABLE and record.left_out and not render.commits(document):
        return False
    if _digest(document, kind) != stored:
        raise Differs("event.hash is not the digest of the document")
    return True


def _digest(document: dict[str, Any], kind: str) -> str:
    if kind in REPEATABLE:
        return render.digest({"event": {"id": document["event"].get("id", "")}})
    return render.digest(document)
