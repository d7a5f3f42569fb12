"""Accesses on their way to where their key is counted.

The event topic is partitioned by principal, so an API key, a model or an address has its accesses
in all partitions. Each partition's worker passes on what a rule of such a scope looks at, to the
partition of the observation topic that the key falls into; all accesses of a key meet there. Frames
of producers come the same way, from intake.

Every message says how far its source has come. The partition that gathers takes as its own progress
that of the source which is furthest behind: its windows close only when all sources are past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access, id_digest
from gatebook.processors.detect.base import Clock, Detector
from gatebook.processors.detect.scopes import FRAMES, LOCAL, SCOPES

MAX_OBSERVATIONS = 2000  # a message; about 1 MB


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A partition whose accesses or frames are passed on: how far its time has come, the greatest
    event time in it, and how far its time had come with the last event. -1: not known."""

    clock: Clock
    partition: int
    progress_ns: int
    event_ns: int = -1
    seen_ns: int = -1

    @property
    def name(self) -> str:
        """Clock and partition."""
        return f"{self.clock}/{self.partition}"

    def latest(self, known: Source | None) -> Source:
        """This and what was known of the same source before."""
        if known is None:
            return self
        return Source(
            self.clock,
            self.partition,
            max(self.progress_ns, known.progress_ns),
            max(self.event_ns, known.event_ns),
            max(self.seen_ns, known.seen_ns),
        )

    @property
    def now_ns(self) -> int:
        """Event time it is at: that of its last event, gone on with its progress since."""
        if self.event_ns < 0:
            return self.progress_ns
        return self.event_ns + max(0, self.progress_ns - self.seen_ns)

    def passed_ns(self, idle_wait_ns: int) -> int:
        """Event time it is past: that of its events while they come, going on with its progress
        when there were none for `idle_wait_ns`."""
        if self.event_ns < 0:
            return self.progress_ns - idle_wait_ns
        return self.event_ns + max(0, self.progress_ns - self.seen_ns - idle_wait_ns)


class Packed(NamedTuple):
    """An access with the scopes it is passed on for, encoded."""

    scopes: tuple[str, ...]
    access: msgspec.Raw


class Observation(NamedTuple):
    """An access with the scopes it is passed on for: it may go elsewhere for others."""

    scopes: tuple[str, ...]
    access: Access


class Message(msgspec.Struct, array_like=True):
    """A message of the observation topic, as it is read."""

    sources: list[Source]
    observations: list[Observation] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def pack_message(sources: Iterable[Source], observations: Sequence[Packed]) -> bytes:
    """A message of the observation topic."""
    return _encoder.encode([list(sources), observations])


def unpack_message(data: bytes) -> Message:
    """What `pack_message` wrote. Raises msgspec.MsgspecError for anything else."""
    return _decoder.decode(data)


def partition_of(scope: str, key: str, partitions: int) -> int:
    """Where all accesses of a key meet."""
    return crc32(f"{scope}|{key}".encode("utf-8", "surrogatepass")) % partitions


class Router:
    """Decides who else must see an access. `rules` are all that are on; those of the scope by
    which the event topic is partitioned need no passing on."""

    def __init__(self, detectors: Iterable[Detector], partitions: int) -> None:
        self._partitions = partitions
        self._looking: dict[str, list[Detector]] = {}
        for detector in detectors:
            if detector.rule.detect.scope not in (LOCAL, FRAMES):
                everybodys = [d for d in (detector, *detector.tenants.values()) if d is not None]
                self._looking.setdefault(detector.rule.detect.scope, []).extend(everybodys)

    @property
    def idle(self) -> bool:
        """Whether no rule needs anything passed on."""
        return not self._looking

    def route(self, access: Access) -> dict[int, Packed]:
        """Partitions of the observation topic with what they get of this access."""
        found: dict[int, tuple[str, ...]] = {}
        for scope, detectors in self._looking.items():
            key = SCOPES[scope].key(access)
            if key and any(detector.matches(access) for detector in detectors):
                number = partition_of(scope, key, self._partitions)
                found[number] = (*found.get(number, ()), scope)
        if not found:
            return {}
        raw = msgspec.Raw(_encoder.encode(access))
        return {number: Packed(scopes, raw) for number, scopes in found.items()}


class Outbox:
    """What is to be passed on, by partition of the observation topic."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._waiting: dict[int, list[Packed]] = {}

    def add(self, routed: Mapping[int, Packed]) -> None:
        """Put one access in."""
        for number, packed in routed.items():
            self._waiting.setdefault(number, []).append(packed)

    def take(self, sources: Sequence[Source], everywhere: bool = False) -> list[tuple[int, bytes]]:
        """Messages by partition; `everywhere`: those that get nothing else hear of the progress
        all the same. Empties the box."""
        numbers = range(self._partitions) if everywhere else sorted(self._waiting)
        messages = []
        for number in numbers:
            waiting = self._waiting.get(number, [])
            for start in range(0, max(1, len(waiting)), MAX_OBSERVATIONS):
                part = waiting[start : start + MAX_OBSERVATIONS]
                messages.append((number, pack_message(sources, part)))
        self._waiting = {}
        return messages


def frame_access(
    producer_id: str,
    epoch: int,
    first_sequence: int,
    count: int,
    sent_ns: int,
    state: str,
    losses: Mapping[str, int],
    received_ns: int,
) -> Access:
    """A producer's frame as detectors see it. The same frame sent twice has the same id."""
    part = f"{first_sequence}/{count}" if count else f"{first_sequence}/at/{sent_ns}"
    event_id = f"{producer_id}/{epoch}/{part}"
    return Access(
        event_id=event_id,
        id_digest=id_digest(event_id),
        timestamp_ns=received_ns,
        kind="frame",
        producer_id=producer_id,
        epoch=epoch,
        sequence=first_sequence,
        frame_count=count,
        frame_sent_ns=sent_ns,
        frame_state=state,
        frame_losses=sum(losses.values()),
    )


def pack_frame(access: Access, partitions: int) -> tuple[int, Packed]:
    """Where a frame goes, and what goes there."""
    number = partition_of(FRAMES, access.producer_id, partitions)
    return number, Packed((FRAMES,), msgspec.Raw(_encoder.encode(access)))


def seconds_to_ns(seconds: float) -> int:
    """A length of time in nanoseconds."""
    return round(seconds * NANOSECONDS)
