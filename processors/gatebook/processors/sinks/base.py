"""What a sink is: rows in, and for each row a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

KINDS = ("access", "finding", "deadletter", "alert")


@dataclass(frozen=True, slots=True)
class Row:
    """One document on its way into an index.

    kind: one of KINDS. day: the UTC day of the document's own timestamp, `YYYY.MM.DD`.
    id: the document id, at most 512 bytes of UTF-8. hash: `event.hash` as it stands in the body,
    or "" for a kind that has none (identity is then the whole document).
    body: one JSON object in UTF-8 without a line feed; written as it is, never rendered again.
    """

    kind: str
    day: str
    id: str
    hash: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is refused for good. `reason` is of the dead letters' closed list (oversize,
    index_rejected, id_conflict); `detail` names an error type and a field, never a value."""

    row: Row
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of the rows of one `write`: every row is counted exactly once.

    indexed: stored by this call. duplicates: the same document was stored before.
    """

    indexed: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = field(default_factory=list)

    def __add__(self, other: BulkOutcome) -> BulkOutcome:
        return BulkOutcome(
            self.indexed + other.indexed,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
        )


class Sink(Protocol):
    """Stores rows. Implementations pass tests/contracts/test_sink.py."""

    async def write(self, rows: Sequence[Row]) -> BulkOutcome:
        """Decide every row: stored, known duplicate, or rejected for good.

        Retries and pauses inside, so a call may last as long as an outage does. Rows that count
        as indexed survive a crash of the store. A return does NOT mean that a search finds the
        rows yet (the store refreshes on its own clock). If the call is cancelled or raises,
        nothing is known about its rows: write them again, what was stored comes back as duplicate.
        Raises Fatal where a person has to act (credentials, missing template).
        """

    async def close(self) -> None:
        """Release connections and files. Rows of a `write` that has not returned are undecided."""
