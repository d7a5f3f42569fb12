"""The detection engine of one partition: documents in, findings out, state beside.

Pure: no clock, no I/O, no randomness. Whoever drives it keeps this order for every message or
batch of messages:

1. `process` the message;
2. deliver the findings, until they are acknowledged;
3. deliver what `drain_state` gave, in its order, until it is acknowledged;
4. commit the message's offset.

If we die between 2 and 3, the replay makes the same findings with the same ids. If we die amid 3,
entries that arrived are ahead of the committed offset: each skips what it has already counted and
its findings were delivered in 2. If we die between 3 and 4, the checkpoint that closes a drain
says so, and the replayed messages are passed over as a whole. A new engine is made, loaded and
fed from the committed offset whenever the partition is assigned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access, is_intent, read_access
from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.findings import Finding, build_finding
from gatebook.processors.detect.registry import all_detectors, retired_ids
from gatebook.processors.detect.state import Entry, pack, position_of, unpack

__all__ = ["Counts", "DetectionEngine", "Limits", "all_detectors"]

StateEntry = tuple[bytes, bytes | None]
# Sorts apart from detector ids, which start with a letter.
CHECKPOINT_KEY = b"~checkpoint|1|"

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds on time and memory, for all detectors alike."""

    allowed_lateness_seconds: NotNegative = 300
    """How far behind its key's newest event an event may be and still count."""
    max_clock_ahead_seconds: NotNegative = 120
    """How far ahead of intake's clock an event time may be; beyond it counts as intake's time."""
    max_keys_per_detector: Positive = 20_000
    """Keys a detector remembers in one partition; the least recently seen goes first, and starts
    afresh when it comes back: it may then fire a second time in a window."""
    remembered_ids_per_key: Positive = 1024
    """Event ids a key keeps at least, to count a repeated event once."""


class Counts(msgspec.Struct):
    """What the engine did since it was made; for metrics, not part of its state."""

    documents: int = 0
    """Documents given, replayed ones included."""
    replayed: int = 0
    """Documents passed over because the state already holds them."""
    unreadable: int = 0
    """Documents without id or time, or not shaped like an access."""
    intents: int = 0
    """Records written before a call; not counted, their terminal event is."""
    no_principal: int = 0
    """Accesses with neither principal, user, key nor address."""
    clamped: int = 0
    """Accesses whose clock ran too far ahead; counted at intake's time."""
    late: int = 0
    """Steps ignored because the event came after its window was closed, per detector."""
    duplicate: int = 0
    """Steps ignored because the event id was counted before, per detector."""
    evicted: int = 0
    """Keys forgotten because there were too many."""
    state_unreadable: int = 0
    """Stored entries that could not be read; their keys started afresh."""
    state_foreign: int = 0
    """Stored entries of detectors that are not switched on; left alone."""
    state_discarded: int = 0
    """Stored entries of a topic that was deleted and made anew since."""
    findings: int = 0
    """Findings made."""


class _Lane:
    """One detector with its entries, least recently seen first."""

    def __init__(self, detector: Detector, limits: Limits, counts: Counts) -> None:
        self.detector = detector
        self.prefix = f"{detector.rule.id}|{detector.rule.version}|".encode()
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.dirty: dict[str, None] = {}
        self.gone: dict[str, None] = {}
        self._max_keys = limits.max_keys_per_detector
        self._lateness_ns = limits.allowed_lateness_seconds * NANOSECONDS
        self._span_ns = max(self._lateness_ns, NANOSECONDS)
        self._ids = limits.remembered_ids_per_key
        self._counts = counts

    def step(self, position: int, access: Access) -> Finding | None:
        """Take one access in, unless it is another's, replayed, late or known."""
        key = self.detector.key(access)
        if key is None:
            return None
        entry = self.entries.get(key)
        if entry is None:
            entry = self._enter(key)
        elif not self._wanted(entry, position, access):
            return None
        entry.position = position
        entry.watermark_ns = max(entry.watermark_ns, access.timestamp_ns)
        entry.remember(access, self._span_ns, self._ids)
        self.entries.move_to_end(key)
        self.dirty[key] = None
        horizon_ns = entry.watermark_ns - self._lateness_ns
        signal = self.detector.apply(entry.state, access, horizon_ns)
        if signal is None:
            return None
        return build_finding(self.detector.rule, key, access, signal)

    def _wanted(self, entry: Entry, position: int, access: Access) -> bool:
        if position <= entry.position:
            self._counts.replayed += 1
        elif entry.knows(access.id_digest):
            self._counts.duplicate += 1
        elif access.timestamp_ns < entry.watermark_ns - self._lateness_ns:
            self._counts.late += 1
        else:
            return True
        return False

    def _enter(self, key: str) -> Entry:
        entry = self.entries[key] = Entry(self.detector.state_type())
        self.gone.pop(key, None)
        self.trim()
        return entry

    def trim(self) -> None:
        """Forget the least recently seen keys beyond the limit."""
        while len(self.entries) > self._max_keys:
            key, entry = self.entries.popitem(last=False)
            self.dirty.pop(key, None)
            self._counts.evicted += 1
            if entry.stored:
                self.gone[key] = None

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take stored entries over, in the order in which they were last seen."""
        read: list[tuple[str, Entry]] = []
        for key, value in stored.items():
            try:
                read.append((key, unpack(value, self.detector.state_type)))
            except msgspec.MsgspecError:
                self._counts.state_unreadable += 1
        read.sort(key=lambda item: item[1].position)
        self.entries = OrderedDict(read)
        self.trim()

    def drain(self) -> Iterator[StateEntry]:
        """Entries that changed since the last drain."""
        for key in self.dirty:
            entry = self.entries[key]
            entry.stored = True
            yield self._full(key), pack(entry)
        self.dirty = {}

    def drain_gone(self) -> Iterator[StateEntry]:
        """Tombstones of keys that were stored and are forgotten since."""
        for key in self.gone:
            yield self._full(key), None
        self.gone = {}

    def _full(self, key: str) -> bytes:
        return self.prefix + key.encode()


class DetectionEngine:
    """Runs detectors over one partition of event.v1. Not for use from several threads."""

    def __init__(self, detectors: Iterable[Detector], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.counts = Counts()
        self._lanes = [_Lane(detector, self.limits, self.counts) for detector in detectors]
        self._max_ahead_ns = self.limits.max_clock_ahead_seconds * NANOSECONDS
        self._checkpoint = -1
        self._last_offset = -1
        self._stale: dict[bytes, None] = {}

    @property
    def keys(self) -> dict[str, int]:
        """How many keys each detector remembers."""
        return {lane.detector.rule.id: len(lane.entries) for lane in self._lanes}

    @property
    def checkpoint(self) -> int:
        """Messages up to this offset are wholly in the loaded state; -1: none."""
        return self._checkpoint

    def load(self, entries: Iterable[StateEntry], end_offset: int | None = None) -> None:
        """Take over the state of this partition: what `drain_state` gave, in topic order, where a
        later value replaces an earlier one. Call it once, before `process`.

        Entries of an older version of a detector, or of a retired one, are dropped with a
        tombstone in the next drain. `end_offset` is the end of the partition's log: state that is
        ahead of it belongs to a topic that was deleted since, and is dropped as a whole, or every
        message of the new topic would pass for a replayed one.
        """
        latest: dict[bytes, bytes] = {}
        for key, value in entries:
            latest.pop(key, None)
            if value is not None:
                latest[key] = value
        self._checkpoint = self._read_checkpoint(latest.pop(CHECKPOINT_KEY, None))
        if end_offset is not None and self._checkpoint >= end_offset:
            self._discard(latest)
            return
        for lane, stored in self._by_lane(latest):
            lane.load(stored)

    def _discard(self, latest: Mapping[bytes, bytes]) -> None:
        self.counts.state_discarded += len(latest)
        self._stale = dict.fromkeys(latest)
        self._checkpoint = -1

    def _read_checkpoint(self, value: bytes | None) -> int:
        try:
            return -1 if value is None else msgspec.msgpack.decode(value, type=int)
        except msgspec.MsgspecError:
            self.counts.state_unreadable += 1
            return -1

    def _by_lane(self, latest: Mapping[bytes, bytes]) -> list[tuple[_Lane, dict[str, bytes]]]:
        lanes = {lane.prefix: (lane, dict[str, bytes]()) for lane in self._lanes}
        running = {lane.detector.rule.id for lane in self._lanes}
        for full_key, value in latest.items():
            detector_id, _, rest = full_key.partition(b"|")
            version, _, key = rest.partition(b"|")
            lane = lanes.get(detector_id + b"|" + version + b"|")
            name = detector_id.decode("utf-8", "replace")
            if lane is not None:
                lane[1][key.decode("utf-8", "replace")] = value
            elif name in running or name in retired_ids():
                self._stale[full_key] = None
            else:
                self.counts.state_foreign += 1
        return list(lanes.values())

    def process(self, offset: int, documents: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Take in the documents of the message at `offset`, loaded from JSON. Returns records of
        schema finding.v1, in order; they are not delivered yet, nor is the state kept.

        Never raises because of a document: what cannot be read is counted and passed over.
        """
        self.counts.documents += len(documents)
        if offset <= self._checkpoint:
            self.counts.replayed += len(documents)
            return []
        self._last_offset = max(self._last_offset, offset)
        findings: list[Finding] = []
        for index, document in enumerate(documents):
            access = self._read(document)
            if access is not None:
                findings += self._step(position_of(offset, index), access)
        self.counts.findings += len(findings)
        return findings

    def _read(self, document: Mapping[str, Any]) -> Access | None:
        try:
            if is_intent(document):
                self.counts.intents += 1
                return None
            access = read_access(document, self._max_ahead_ns)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.counts.unreadable += 1
            return None
        self.counts.clamped += access.clamped
        if not access.principal:
            self.counts.no_principal += 1
            return None
        return access

    def _step(self, position: int, access: Access) -> Iterator[Finding]:
        for lane in self._lanes:
            finding = lane.step(position, access)
            if finding is not None:
                yield finding

    def drain_state(self) -> list[StateEntry]:
        """Entries that changed since the last call, a checkpoint, then tombstones (None).

        Deliver them in this order: an arrived checkpoint says that everything before it arrived,
        and a tombstone must not arrive where its checkpoint did not.
        """
        drained = [entry for lane in self._lanes for entry in lane.drain()]
        gone = [entry for lane in self._lanes for entry in lane.drain_gone()]
        fresh = {key for key, _ in drained}
        gone += [(key, None) for key in self._stale if key not in fresh]
        self._stale = {}
        if not drained and not gone:
            return []
        checkpoint = max(self._last_offset, self._checkpoint)
        return [*drained, (CHECKPOINT_KEY, msgspec.msgpack.encode(checkpoint)), *gone]
