"""What every stage shares: a batch comes in, and `process` returns once it is all delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Incoming:
    """A Kafka message as a stage sees it. `timestamp_ms` is Kafka's."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    headers: dict[str, bytes]


@dataclass(frozen=True)
class Held:
    """A partition this worker holds; every message before `next_offset` was processed."""

    topic: str
    partition: int
    next_offset: int


class Stage(Protocol):
    """One role of the worker."""

    @property
    def topics(self) -> Sequence[str]:
        """Names of the topics the role reads."""

    async def start(self) -> None:
        """Open clients. Raises Fatal where the role cannot run."""

    async def process(self, batch: Sequence[Incoming]) -> None:
        """Handle messages in order. When it returns, everything the batch leads to is
        delivered, and the offsets may be committed; where it raises, none may."""

    async def tick(self, held: Sequence[Held]) -> None:
        """Called about every TICK_SECONDS between batches, whether or not messages come: for
        what time alone brings about. `held` are the partitions of this worker."""

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        """These partitions are another worker's now; forget their state."""

    async def stop(self) -> None:
        """Close clients."""
