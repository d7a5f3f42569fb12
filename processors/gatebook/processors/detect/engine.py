"""The detection engine of one partition: documents in, findings out, state beside.

Pure: no clock, no I/O, no randomness. Whoever drives it keeps this order for every message or
batch of messages:

1. `process` the message, or `advance` time;
2. deliver the findings, until they are acknowledged;
3. deliver what `drain_state` gave as one transaction;
4. commit the message's offset.

If we die between 2 and 3, the replay makes the same findings with the same ids. A drain arrives
whole or not at all, and the checkpoint in it says up to which offset the messages are in the
state: if we die between 3 and 4, the replayed messages are passed over. A new engine is made,
loaded and fed from the committed offset whenever the partition is assigned.

There are two times. Event time is a key's own: an access that is later than the newest one of its
key by more than the allowed lateness is ignored. Progress is the partition's: the greatest time
at which a message of it was written, or that nothing more was there to read. It says when windows
of idle keys end, and never makes an access late. A key whose accesses come long after they
happened, because something before us was down, has its windows end by as much later.

Where accesses come from several partitions (`observe`), those that are past decide: the slowest
source's event time says what is late, the slowest source's progress what has ended.

Every message brings its progress, so advancing time early, while a partition is idle, does only
what its next message would do first: the findings are the same however often, or whether at all,
an idle partition was advanced.
"""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access, is_intent, read_access
from gatebook.processors.detect.base import Clock, Detector
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.lanes import Lane
from gatebook.processors.detect.limits import Counts, Limits
from gatebook.processors.detect.observations import Source
from gatebook.processors.detect.plans import Plans
from gatebook.processors.detect.registry import all_detectors, retired_ids
from gatebook.processors.detect.scopes import FRAMES, SCOPES
from gatebook.processors.detect.state import Track, pack, position_of, unpack

__all__ = ["Counts", "DetectionEngine", "Limits", "all_detectors"]

StateEntry = tuple[bytes, bytes | None]
# The form of the entries; sorts apart from theirs, which were detector ids, in older versions.
FORM = b"2|"
CLOCKS: tuple[Clock, ...] = ("event", "frame")
CHECKPOINT_KEY = b"~checkpoint|2|"


def where(error: BaseException) -> str:
    """Class and line of an error; its words may quote a document."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    line = f" at {Path(last.filename).name}:{last.lineno}" if last else ""
    return type(error).__name__ + line


class _Scope:
    """The keys of one scope, least recently seen first, with their detectors."""

    def __init__(self, name: str, lanes: list[Lane], limits: Limits, counts: Counts) -> None:
        self.name = name
        self.key = SCOPES[name].key
        self.clock: Clock = "frame" if name == FRAMES else "event"
        self.prefix = FORM + name.encode() + b"|"
        self.tracks: OrderedDict[str, Track] = OrderedDict()
        self.state_bytes = 0
        self.progress_ns = -1
        # How far the source had come that sent what is being processed.
        self.arrived_ns = -1
        # Event time all sources are past, where accesses come from several; else a key's own.
        self.floor_ns: int | None = None
        # Event time the slowest source is at; where there is one, the key's own.
        self.slowest_ns: int | None = None
        self._about = SCOPES[name].about
        self._lanes = lanes
        self.looking = Plans(lanes).looking
        self._limits = limits
        self._counts = counts
        # Rule id to the latest error it raised: class and line, never its words.
        self.failures: dict[str, str] = {}
        self._lateness_ns = limits.allowed_lateness_seconds * NANOSECONDS
        # Frames are stamped when they come in: none comes late.
        self._delay_ns = 0 if self.clock == "frame" else self._lateness_ns
        self._span_ns = max(self._lateness_ns, NANOSECONDS)
        self._forget_ns = limits.forget_after_hours * 3600 * NANOSECONDS
        self._dirty: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._due: list[tuple[int, str]] = []
        self._scheduled: dict[str, int] = {}

    def step(self, position: int, access: Access) -> list[Finding]:
        """Take one access in, unless nobody looks at it, or it is replayed, late or known."""
        findings: list[Finding] = []
        key = self.key(access)
        looking = self.looking(access) if key else ()
        if not looking:
            return findings
        track = self.tracks.get(key)
        if track is None:
            track = self.tracks[key] = Track(self._about(access))
            if key in self._gone:  # forgotten since the last drain: its old entry is still there
                del self._gone[key]
                track.stored = True
        elif not self._wanted(track, position, access):
            return findings
        track.position = position
        if track.watermark_ns < access.timestamp_ns:
            track.watermark_ns = access.timestamp_ns
        at_ns = track.watermark_ns if self.slowest_ns is None else self.slowest_ns
        track.lag_ns = max(0, self.arrived_ns - at_ns)
        track.remember(access, self._span_ns, self._limits.remembered_ids_per_key)
        self.tracks.move_to_end(key)
        self._dirty[key] = None
        passed_ns = self._passed_ns(track)
        horizon_ns, due_ns = passed_ns - self._lateness_ns, passed_ns - self._delay_ns
        if track.deadlines and min(track.deadlines.values()) <= due_ns:
            findings += self._expire(track, key, due_ns)
        for lane, detector in looking:
            try:
                findings += lane.apply(track, key, detector, access, horizon_ns)
            except Exception as error:
                self._failed(lane, error)
        if track.deadlines:
            self._schedule(key, track)
        if len(self.tracks) > self._limits.max_keys_per_scope:
            findings += self.trim()
        return findings

    def _wanted(self, track: Track, position: int, access: Access) -> bool:
        if position <= track.position:
            self._counts.replayed += 1
        elif track.knows(access.id_digest):
            self._counts.duplicate += 1
        elif access.timestamp_ns < self._passed_ns(track) - self._lateness_ns:
            self._counts.late += 1
        else:
            return True
        return False

    def _passed_ns(self, track: Track) -> int:
        return track.watermark_ns if self.floor_ns is None else self.floor_ns

    def _expire(self, track: Track, key: str, now_ns: int) -> Iterator[Finding]:
        """Everything of a key that is due at a time."""
        if min(track.deadlines.values()) > now_ns:
            return
        for lane in self._lanes:
            while 0 < (due_ns := track.deadlines.get(lane.name, 0)) <= now_ns:
                try:
                    yield from lane.expire(track, key, due_ns)
                except Exception as error:
                    self._failed(lane, error)
                self._dirty[key] = None
                if track.deadlines.get(lane.name) == due_ns:  # it would be asked for ever
                    del track.deadlines[lane.name]

    def _failed(self, lane: Lane, error: Exception) -> None:
        """A rule is wrong about one access: the others, and the accesses after it, go on. Ended
        by it, the worker would meet the same access again for ever."""
        self._counts.failed += 1
        self.failures[lane.rule.id] = where(error)

    def _schedule(self, key: str, track: Track) -> None:
        """Look at this key again when its first deadline has passed."""
        due_ns = min(track.deadlines.values()) + track.lag_ns
        if due_ns < self._scheduled.get(key, due_ns + 1):
            self._scheduled[key] = due_ns
            heappush(self._due, (due_ns, key))

    def advance(self, progress_ns: int) -> Iterator[Finding]:
        """Time went on: windows of keys that were not seen end, long unseen keys go."""
        if progress_ns <= self.progress_ns:
            return
        self.progress_ns = progress_ns
        now_ns = progress_ns - self._delay_ns
        while self._due and self._due[0][0] <= now_ns:
            due_ns, key = heappop(self._due)
            if self._scheduled.get(key) == due_ns:
                del self._scheduled[key]
                yield from self._look_again(key, due_ns)
        yield from self._forget_unseen(now_ns - self._forget_ns)

    def _look_again(self, key: str, now_ns: int) -> Iterator[Finding]:
        track = self.tracks.get(key)
        if track is None or not track.deadlines:
            return
        yield from self._expire(track, key, now_ns - track.lag_ns)
        if track.deadlines:
            self._schedule(key, track)

    def _forget_unseen(self, before_ns: int) -> Iterator[Finding]:
        while self.tracks:
            key, track = next(iter(self.tracks.items()))
            if track.watermark_ns + track.lag_ns >= before_ns or track.deadlines:
                return
            self._counts.expired += 1
            yield from self._forget(key)

    def trim(self) -> Iterator[Finding]:
        """Forget the least recently seen keys beyond the limit."""
        while len(self.tracks) > self._limits.max_keys_per_scope:
            self._counts.evicted += 1
            yield from self._forget(next(iter(self.tracks)))

    def _forget(self, key: str) -> Iterator[Finding]:
        track = self.tracks.pop(key)
        for lane in self._lanes:
            yield from lane.give_up(track)
        self._dirty.pop(key, None)
        self._scheduled.pop(key, None)
        self.state_bytes -= track.size
        if track.stored:
            self._gone[key] = None

    def load(self, stored: Mapping[str, bytes], running: Container[str]) -> None:
        """Take stored entries over, in the order in which they were last seen."""
        read: list[tuple[str, Track]] = []
        for key, value in stored.items():
            try:
                read.append((key, unpack(value)))
            except msgspec.MsgspecError:
                self._counts.state_unreadable += 1
        read.sort(key=lambda item: item[1].position)
        self.tracks = OrderedDict(read)
        self.state_bytes = sum(track.size for track in self.tracks.values())
        for key, track in self.tracks.items():
            self._drop_old_slots(track, running)
            if track.deadlines:
                self._schedule(key, track)

    def _drop_old_slots(self, track: Track, running: Container[str]) -> None:
        """Slots of older versions and of retired rules go; those of rules that are switched off
        stay, for when they are switched on again. Nobody ends their incidents meanwhile."""
        names = {lane.name for lane in self._lanes}
        for name in [name for name in track.packed if name not in names]:
            track.deadlines.pop(name, None)
            rule_id = name.partition("|")[0]
            if rule_id in running or rule_id in retired_ids():
                del track.packed[name]
            else:
                self._counts.state_foreign += 1

    def drain(self) -> Iterator[StateEntry]:
        """Entries that changed since the last drain."""
        for key in self._dirty:
            track = self.tracks[key]
            value = pack(track)
            self.state_bytes += len(value) - track.size
            track.stored, track.size = True, len(value)
            yield self._full(key), value
        self._dirty = {}

    def drain_gone(self) -> Iterator[StateEntry]:
        """Tombstones of keys that were stored and are forgotten since."""
        for key in self._gone:
            yield self._full(key), None
        self._gone = {}

    def _full(self, key: str) -> bytes:
        return self.prefix + key.encode("utf-8", "surrogatepass")


class _Checkpoint(msgspec.Struct, array_like=True):
    """Up to where the messages are in the state, and the progress by clock."""

    offset: int
    progress: dict[Clock, int]
    sources: dict[str, Source] = {}


class DetectionEngine:
    """Runs detectors over one partition. Not for use from several threads.

    `scopes` names those it serves; None: all that its detectors have. `awaited` says how many
    partitions there are of each clock, where accesses come by `observe`.
    """

    def __init__(
        self,
        detectors: Iterable[Detector],
        limits: Limits | None = None,
        scopes: Container[str] | None = None,
        awaited: Mapping[Clock, int] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.counts = Counts()
        gathers = awaited is not None
        lanes = [Lane(detector, self.limits, self.counts, gathers) for detector in detectors]
        self._running = {lane.rule.id for lane in lanes}
        by_scope: dict[str, list[Lane]] = {}
        for lane in lanes:
            by_scope.setdefault(lane.rule.detect.scope, []).append(lane)
        made = [
            _Scope(name, own, self.limits, self.counts)
            for name, own in by_scope.items()
            if scopes is None or name in scopes
        ]
        self._scopes = {scope.name: scope for scope in made}
        self._of_access = [scope for scope in made if scope.name != FRAMES]
        self._awaited = awaited or {}
        self._sources: dict[str, Source] = {}
        self._idle_wait_ns = self.limits.idle_wait_seconds * NANOSECONDS
        self._max_ahead_ns = self.limits.max_clock_ahead_seconds * NANOSECONDS
        self._checkpoint = -1
        self._last_offset = -1
        self._stale: dict[bytes, None] = {}

    @property
    def keys(self) -> dict[str, int]:
        """How many keys each scope remembers."""
        return {name: len(scope.tracks) for name, scope in self._scopes.items()}

    def take_failures(self) -> dict[str, str]:
        """Rule id to the latest error it raised since the last call, by class and line."""
        found: dict[str, str] = {}
        for scope in self._scopes.values():
            found |= scope.failures
            scope.failures = {}
        return found

    @property
    def state_bytes(self) -> int:
        """Length of all entries as they were stored last."""
        return sum(scope.state_bytes for scope in self._scopes.values())

    @property
    def checkpoint(self) -> int:
        """Messages up to this offset are wholly in the loaded state; -1: none."""
        return self._checkpoint

    def progress_ns(self, clock: Clock = "event") -> int:
        """How far a clock has come; -1: it has not begun."""
        own = (s.progress_ns for s in self._scopes.values() if s.clock == clock)
        return max(own, default=-1)

    def load(self, entries: Iterable[StateEntry], end_offset: int | None = None) -> None:
        """Take over the state of this partition: what `drain_state` gave, in topic order, where a
        later value replaces an earlier one. Call it once, before `process`.

        Entries of an older form are dropped with a tombstone in the next drain. `end_offset` is
        the end of the partition's log: state that is ahead of it belongs to a topic that was
        deleted since, and is dropped as a whole, or every message of the new topic would pass for
        a replayed one.
        """
        latest: dict[bytes, bytes] = {}
        for key, value in entries:
            latest.pop(key, None)
            if value is not None:
                latest[key] = value
        checkpoint = self._read_checkpoint(latest.pop(CHECKPOINT_KEY, None))
        if end_offset is not None and checkpoint.offset >= end_offset:
            self.counts.state_discarded += len(latest)
            self._stale = dict.fromkeys(latest)
            return
        self._checkpoint = checkpoint.offset
        for scope, stored in self._by_scope(latest):
            scope.load(stored, self._running)
            scope.progress_ns = checkpoint.progress.get(scope.clock, -1)
        self._sources = checkpoint.sources
        if self._sources:
            self._raise_floors()

    def _read_checkpoint(self, value: bytes | None) -> _Checkpoint:
        if value is None:
            return _Checkpoint(-1, {})
        try:
            return msgspec.msgpack.decode(value, type=_Checkpoint)
        except msgspec.MsgspecError:
            self.counts.state_unreadable += 1
            return _Checkpoint(-1, {})

    def _by_scope(self, latest: Mapping[bytes, bytes]) -> list[tuple[_Scope, dict[str, bytes]]]:
        scopes = {scope.prefix: (scope, dict[str, bytes]()) for scope in self._scopes.values()}
        for full_key, value in latest.items():
            form, _, rest = full_key.partition(b"|")
            name, _, key = rest.partition(b"|")
            found = scopes.get(form + b"|" + name + b"|")
            if found is not None:
                found[1][key.decode("utf-8", "surrogatepass")] = value
            elif form + b"|" == FORM:
                self.counts.state_foreign += 1
            else:
                self._stale[full_key] = None
        return list(scopes.values())

    def process(
        self, offset: int, documents: Sequence[Mapping[str, Any]], progress_ns: int = -1
    ) -> list[Finding]:
        """Take in the documents of the message at `offset`, loaded from JSON, which was written
        at `progress_ns`. Returns records of schema finding.v2, in order; they are not delivered
        yet, nor is the state kept.

        Never raises because of a document: what cannot be read is counted and passed over.
        """
        return self.take(offset, self.read(documents), progress_ns)

    def read(self, documents: Iterable[Mapping[str, Any]]) -> list[Access | None]:
        """The accesses in documents, each in its place; None where there is none."""
        return [self._read(document) for document in documents]

    def take(
        self, offset: int, accesses: Sequence[Access | None], progress_ns: int = -1
    ) -> list[Finding]:
        """As `process`, with accesses that `read` gave."""
        self.counts.documents += len(accesses)
        if self._is_replayed(offset, len(accesses)):
            return []
        findings = list(self._advance(progress_ns, "event"))
        self._arrive(progress_ns)
        for index, access in enumerate(accesses):
            if access is not None:
                position = position_of(offset, index)
                for scope in self._of_access:
                    findings += scope.step(position, access)
        self.counts.findings += len(findings)
        return findings

    def observe(
        self,
        offset: int,
        observations: Sequence[tuple[Container[str], Access]],
        sources: Sequence[Source],
    ) -> list[Finding]:
        """As `process`, with accesses and frames that were passed on for some scopes, and how far
        the sources have come that the message is from."""
        self.counts.documents += len(observations)
        if self._is_replayed(offset, len(observations)):
            return []
        self._note(sources)
        self._arrive(max((source.progress_ns for source in sources), default=-1))
        findings = [f for clock in CLOCKS for f in self._advance(self._slowest(clock), clock)]
        for index, (scopes, access) in enumerate(observations):
            for name, scope in self._scopes.items():
                if name in scopes:
                    findings += scope.step(position_of(offset, index), access)
        self._raise_floors()  # only now: its own accesses are among those the source is past
        self.counts.findings += len(findings)
        return findings

    def _arrive(self, at_ns: int) -> None:
        for scope in self._scopes.values():
            scope.arrived_ns = max(scope.progress_ns, at_ns)

    def _note(self, sources: Iterable[Source]) -> None:
        """How far sources have come."""
        for source in sources:
            self._sources[source.name] = source.latest(self._sources.get(source.name))

    def _raise_floors(self) -> None:
        """What lies before the event time that all sources are past comes late from now on."""
        for scope in self._scopes.values():
            passed = (s.passed_ns(self._idle_wait_ns) for s in self._of_clock(scope.clock))
            scope.floor_ns = max(scope.floor_ns or -1, min(passed, default=-1))
            known = (s.now_ns for s in self._of_clock(scope.clock) if s.progress_ns >= 0)
            scope.slowest_ns = min(known, default=None)

    def _of_clock(self, clock: Clock) -> Iterator[Source]:
        for number in range(self._awaited.get(clock, 1)):
            yield self._sources.get(f"{clock}/{number}") or Source(clock, number, -1)

    def _slowest(self, clock: Clock) -> int:
        """The progress of the source that is furthest behind; -1 while one was not heard."""
        return min((source.progress_ns for source in self._of_clock(clock)), default=-1)

    def advance(self, progress_ns: int, clock: Clock = "event") -> list[Finding]:
        """Time went on though no message came: windows of idle keys close. `progress_ns` must not
        be later than the time at which the next message will have been written."""
        findings = list(self._advance(progress_ns, clock))
        self.counts.findings += len(findings)
        return findings

    def _is_replayed(self, offset: int, number: int) -> bool:
        if offset <= self._checkpoint:
            self.counts.replayed += number
            return True
        self._last_offset = max(self._last_offset, offset)
        return False

    def _advance(self, progress_ns: int, clock: Clock) -> Iterator[Finding]:
        for scope in self._scopes.values():
            if scope.clock == clock:
                yield from scope.advance(progress_ns)

    def _read(self, document: Mapping[str, Any]) -> Access | None:
        """The access in a document; None where there is none, or it counts for nobody."""
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

    def drain_state(self) -> list[StateEntry]:
        """Entries that changed since the last call, a checkpoint, and tombstones (None).

        They belong together: deliver all of them or none.
        """
        scopes = self._scopes.values()
        drained = [entry for scope in scopes for entry in scope.drain()]
        gone = [entry for scope in scopes for entry in scope.drain_gone()]
        fresh = {key for key, _ in drained}
        gone += [(key, None) for key in self._stale if key not in fresh]
        self._stale = {}
        if not drained and not gone:
            return []
        return [*drained, (CHECKPOINT_KEY, self._packed_checkpoint()), *gone]

    def _packed_checkpoint(self) -> bytes:
        progress = {scope.clock: scope.progress_ns for scope in self._scopes.values()}
        offset = max(self._last_offset, self._checkpoint)
        return msgspec.msgpack.encode(_Checkpoint(offset, progress, self._sources))
