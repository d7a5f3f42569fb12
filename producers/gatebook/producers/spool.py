"""The spool: numbered, encoded events kept until the broker has acknowledged them.

A file spool is one folder per (producer id, epoch), locked by its process:

    <root>/<producer id>/<epoch>/lock      held with flock while the owner lives
                                 state     cursor, losses, closed; two slots, written in turn
                                 <n>-<first sequence>-<seed>.seg

A segment is a row of records: magic, length, sequence, CRC of the payload, CRC of the header,
payload. Both CRCs start from the segment's random seed, so that bytes of a payload that look like
a record are never taken for one.

What a crash leaves, and what recovery (`FileSpool.adopt`) does with it:
- died inside a write: the last record is cut short; it is cut off, the rest is kept. Its append
  never returned, so nobody was told that it is durable.
- died between write and fsync: records may be whole; they are kept and published.
- died between the broker's acknowledgement and the cursor's write: those events are sent again
  under the same numbers and ids; the index knows them by their ids.
- a bit flipped later: that record is skipped and counted, its neighbours are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gatebook.schemas.errors import Fatal, GatebookError

MAGIC = b"Gb"
_HEADER = struct.Struct("<2sIQI")  # magic, length, sequence, payload CRC
_CRC = struct.Struct("<I")
RECORD_OVERHEAD_BYTES = _HEADER.size + _CRC.size
SEGMENT_MAX_BYTES = 8 * 1024 * 1024
SEGMENTS_PER_SPOOL = 8
_STATE_SLOT_BYTES = 4096
_PRIVATE_DIR, _PRIVATE_FILE = 0o700, 0o600


class SpooledEvent(NamedTuple):
    """One numbered, encoded event."""

    sequence: int
    data: bytes


class SpoolFull(GatebookError):
    """The spool holds as much as it may. Nothing of the batch was kept; its numbers are free."""

    reason = "spool_full"


class SpoolUnavailable(GatebookError):
    """The file system refused (full, read-only, broken). The batch must not be taken as kept,
    though its bytes may have reached the disk; its numbers belong to these events or to none."""

    reason = "spool_unavailable"


class Spool(Protocol):
    """Keeps numbered events, in order, until they are acknowledged. One thread appends, one other
    peeks and acknowledges."""

    @property
    def durable(self) -> bool:
        """Whether an event survives SIGKILL once `append` has returned."""

    @property
    def drained(self) -> bool:
        """Whether every event is acknowledged."""

    @property
    def pending_bytes(self) -> int:
        """Bytes held, on disk or in memory."""

    def append(self, first_sequence: int, events: Sequence[bytes]) -> None:
        """Keep events numbered from `first_sequence` on: all or none. On return they are as safe
        as `durable` says; that does not mean published. Raises SpoolFull, SpoolUnavailable."""

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        """The oldest unacknowledged events, numbered without a gap, at least one if there is any;
        `max_bytes` counts payloads. Does not remove them."""

    def acknowledge(self, next_sequence: int) -> None:
        """Every event below `next_sequence` is published; forget it."""

    def close(self) -> None:
        """Let go of files. Keeps what is unacknowledged, if durable. A second call is harmless."""


class MemorySpool:
    """Events in memory: nothing survives the process."""

    durable = False

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[SpooledEvent] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def drained(self) -> bool:
        return not self._events

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    @property
    def pending_events(self) -> int:
        """Events held."""
        return len(self._events)

    def append(self, first_sequence: int, events: Sequence[bytes]) -> None:
        size = sum(map(len, events))
        with self._lock:
            if self._bytes + size > self._max_bytes:
                raise SpoolFull("the memory spool is full")
            self._events.extend(SpooledEvent(first_sequence + i, e) for i, e in enumerate(events))
            self._bytes += size

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        with self._lock:
            return _contiguous(iter(self._events), max_events, max_bytes)

    def acknowledge(self, next_sequence: int) -> None:
        with self._lock:
            while self._events and self._events[0].sequence < next_sequence:
                self._bytes -= len(self._events.popleft().data)

    def close(self) -> None:
        """Nothing to let go of."""


def _contiguous(
    events: Iterator[SpooledEvent], max_events: int, max_bytes: int
) -> list[SpooledEvent]:
    """The first events up to a limit or a gap in their numbers."""
    out: list[SpooledEvent] = []
    size = 0
    for event in events:
        size += len(event.data)
        gap = bool(out) and event.sequence != out[-1].sequence + 1
        if out and (gap or size > max_bytes or len(out) >= max_events):
            break
        out.append(event)
    return out


def encode_record(sequence: int, payload: bytes, seed: int) -> bytes:
    """One record of a segment."""
    head = _HEADER.pack(MAGIC, len(payload), sequence, zlib.crc32(payload, seed))
    return b"".join((head, _CRC.pack(zlib.crc32(head, seed)), payload))


class _Header(NamedTuple):
    length: int
    sequence: int
    payload_crc: int


def _header_at(data: bytes, offset: int, seed: int) -> _Header | None:
    """The header at `offset`, if there is a whole, undamaged one."""
    body = data[offset : offset + _HEADER.size]
    crc = data[offset + _HEADER.size : offset + RECORD_OVERHEAD_BYTES]
    if len(crc) < _CRC.size or zlib.crc32(body, seed) != _CRC.unpack(crc)[0]:
        return None
    magic, length, sequence, payload_crc = _HEADER.unpack(body)
    return _Header(length, sequence, payload_crc) if magic == MAGIC else None


@dataclass
class Scan:
    """What was found in bytes of a segment. `consumed` is the end of the last thing understood: a
    good record, or a damaged one whose header and length held. `next_sequence` follows the last
    record whose header was read."""

    next_sequence: int
    records: list[tuple[SpooledEvent, int]] = field(default_factory=list)  # event, end offset
    consumed: int = 0


def scan_records(data: bytes, seed: int, expected: int, max_records: int | None = None) -> Scan:
    """Read records until the bytes end; skip damage by searching for the next whole header.

    Numbers below `expected` are refused: they cannot follow in this segment.
    """
    found = Scan(expected)
    offset = 0
    while offset < len(data):
        header = _header_at(data, offset, seed)
        if header is None or header.sequence < found.next_sequence:
            offset = data.find(MAGIC, offset + 1)
            if offset < 0:
                break
            continue
        start = offset + RECORD_OVERHEAD_BYTES
        end = start + header.length
        if end > len(data):
            break  # cut short; what follows a whole header of a cut record is its own payload
        payload = data[start:end]
        if zlib.crc32(payload, seed) == header.payload_crc:
            found.records.append((SpooledEvent(header.sequence, payload), end))
        found.next_sequence, found.consumed, offset = header.sequence + 1, end, end
        if len(found.records) == max_records:
            break
    return found


@dataclass
class _Segment:
    """A segment file. `size` and `end_sequence` speak of what is synced, or was recovered."""

    path: Path
    ordinal: int
    first_sequence: int
    seed: int
    size: int = 0
    end_sequence: int = 0

    @classmethod
    def at(cls, path: Path) -> _Segment | None:
        """From a file name; None for a name that is not ours."""
        try:
            ordinal, first, seed = path.stem.split("-")
            return cls(path, int(ordinal), int(first), int(seed, 16), 0, int(first))
        except ValueError:
            return None


@dataclass(frozen=True)
class SpoolState:
    """What a spool remembers beside its events. `losses` are totals per reason; `closed` says that
    the producer numbered its last event in good order."""

    acknowledged: int = 0
    losses: Mapping[str, int] = field(default_factory=dict)
    closed: bool = False


class _StateFile:
    """Two slots written in turn: a write cut by a crash leaves the other slot. The blocks exist
    from the start, so that losses can still be noted on a full disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
        try:
            if os.fstat(self._fd).st_size < 2 * _STATE_SLOT_BYTES:
                _write_all(self._fd, bytes(2 * _STATE_SLOT_BYTES), 0)
        except OSError:
            os.close(self._fd)
            raise
        self._generation = 0

    def load(self) -> SpoolState:
        slots = [self._load_slot(i) for i in range(2)]
        self._generation, fields = max((s for s in slots if s), key=lambda s: s[0], default=(0, {}))
        return SpoolState(**fields)

    def _load_slot(self, index: int) -> tuple[int, dict[str, Any]] | None:
        return _parse_slot(os.pread(self._fd, _STATE_SLOT_BYTES, index * _STATE_SLOT_BYTES))

    def save(self, state: SpoolState, *, sync: bool) -> None:
        """May raise OSError. Without `sync` it survives SIGKILL, not a power failure."""
        self._generation += 1
        fields = {"generation": self._generation, **vars(state)}
        body = json.dumps(fields).encode()
        slot = struct.pack("<II", len(body), zlib.crc32(body)) + body
        _write_all(self._fd, slot, (self._generation % 2) * _STATE_SLOT_BYTES)
        if sync:
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def _parse_slot(data: bytes) -> tuple[int, dict[str, Any]] | None:
    """Generation and fields of a state slot; None where it was never written, or not to the end."""
    if len(data) < 8:
        return None
    length, crc = struct.unpack_from("<II", data)
    body = data[8 : 8 + length]
    if not body or zlib.crc32(body) != crc:
        return None
    fields = json.loads(body)
    return fields.pop("generation"), fields


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock(path: Path, flags: int = 0) -> int | None:
    """Hold the folder's lock; None where another process, or another spool here, holds it."""
    fd = os.open(path, os.O_RDWR | flags, _PRIVATE_FILE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    # The folder may have been drained and removed between open and flock.
    if not path.exists() or os.fstat(fd).st_ino != path.stat().st_ino:
        os.close(fd)
        return None
    return fd


def _make_directory(parent: Path, epoch: int) -> tuple[Path, int]:
    """A new folder with its lock held. It is locked under a name that nobody adopts and then
    renamed, so that it is never seen without its lock."""
    draft = parent / f".new-{os.getpid()}-{secrets.token_hex(4)}"
    draft.mkdir(mode=_PRIVATE_DIR)
    lock_fd = _lock(draft / "lock", os.O_CREAT)
    assert lock_fd is not None, "nobody else knows this name"
    try:
        directory = draft.rename(parent / str(epoch))
        _sync_directory(parent)
    except OSError:
        os.close(lock_fd)
        raise
    return directory, lock_fd


class FileSpool:
    """Events in segment files, synced before `append` returns. See the module's text."""

    durable = True

    def __init__(
        self, directory: Path, lock_fd: int, max_bytes: int, segments: Iterable[_Segment] = ()
    ) -> None:
        """Use `create` or `adopt`; `lock_fd` holds the folder's lock."""
        self.directory = directory
        self.producer_id = directory.parent.name
        self.epoch = int(directory.name)
        self._lock_fd = lock_fd
        self._max_bytes = max_bytes
        self._segment_max_bytes = min(SEGMENT_MAX_BYTES, max(max_bytes // SEGMENTS_PER_SPOOL, 1))
        self._segments = deque(segments)
        self._ordinal = max((s.ordinal for s in self._segments), default=0)
        self._state_file = _StateFile(directory / "state")
        self._state = self._state_file.load()
        self._write_fd: int | None = None  # of the last segment, while it may be appended to
        self._read: tuple[_Segment, int] | None = None  # open for reading: segment, descriptor
        self._position: dict[int, tuple[int, int]] = {}  # ordinal -> offset, sequence expected
        self._ends: list[tuple[int, int, int]] = []  # after a peek: sequence, ordinal, end offset
        self._corrupt = 0
        self._judged_until = 0  # numbers below this are read, or counted as missing
        self._mutex = threading.Lock()
        self._closed = False

    @classmethod
    def create(cls, root: Path, producer_id: str, epoch: int, max_bytes: int) -> FileSpool:
        """A new, locked spool. Raises SpoolUnavailable, also where the epoch is taken."""
        parent = root / producer_id
        try:
            parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_DIR)
            directory, lock_fd = _make_directory(parent, epoch)
        except OSError as error:
            raise SpoolUnavailable(f"cannot make a spool in {root}: {error.strerror}") from error
        try:
            return cls(directory, lock_fd, max_bytes)
        except OSError as error:
            os.close(lock_fd)  # the next adoption finds the folder empty and deletes it
            raise SpoolUnavailable(f"cannot make a spool in {root}: {error.strerror}") from error

    @classmethod
    def adopt(cls, directory: Path, max_bytes: int) -> FileSpool | None:
        """The spool a dead process left; None while its owner lives. Cuts a torn tail. May raise
        OSError."""
        try:
            lock_fd = _lock(directory / "lock")
        except FileNotFoundError:
            # Being removed, or its remover died before the last step: finish that.
            with contextlib.suppress(OSError):
                directory.rmdir()
            return None
        if lock_fd is None:
            return None
        try:
            return cls(directory, lock_fd, max_bytes, _recovered_segments(directory))
        except OSError:
            os.close(lock_fd)
            raise

    @property
    def state(self) -> SpoolState:
        """Cursor, losses and whether it was closed."""
        return self._state

    @property
    def next_sequence(self) -> int:
        """The sequence after the last one kept."""
        with self._mutex:
            return max([self._state.acknowledged, *(s.end_sequence for s in self._segments)])

    @property
    def corrupt_events(self) -> int:
        """Events that were kept and could not be read back. Each is counted once."""
        return self._corrupt

    @property
    def drained(self) -> bool:
        with self._mutex:
            return all(s.end_sequence <= self._state.acknowledged for s in self._segments)

    @property
    def pending_bytes(self) -> int:
        with self._mutex:
            return sum(s.size for s in self._segments)

    def append(self, first_sequence: int, events: Sequence[bytes]) -> None:
        size = sum(map(len, events)) + len(events) * RECORD_OVERHEAD_BYTES
        if self.pending_bytes + size > self._max_bytes:
            raise SpoolFull(f"the spool holds {self.pending_bytes} of {self._max_bytes} bytes")
        try:
            segment, fd = self._open_segment(first_sequence)
            self._write(segment, fd, first_sequence, events)
        except OSError as error:
            self._leave_segment()
            raise SpoolUnavailable(
                f"the spool {self.directory} cannot be written: {error.strerror}"
            ) from error

    def _write(self, segment: _Segment, fd: int, first: int, events: Sequence[bytes]) -> None:
        data = b"".join(encode_record(first + i, e, segment.seed) for i, e in enumerate(events))
        _write_all(fd, data, segment.size)
        # If we die here, recovery keeps the whole records and cuts a torn one.
        os.fdatasync(fd)
        # From here on the events survive. If we die before `append` returns, nobody was told so,
        # and recovery publishes them all the same.
        with self._mutex:
            segment.size += len(data)
            segment.end_sequence = first + len(events)

    def _open_segment(self, first_sequence: int) -> tuple[_Segment, int]:
        last = self._segments[-1] if self._segments else None
        if (
            last is not None
            and self._write_fd is not None
            and last.size < self._segment_max_bytes
            and last.end_sequence == first_sequence
        ):
            return last, self._write_fd
        self._leave_segment()
        return self._new_segment(first_sequence)

    def _new_segment(self, first_sequence: int) -> tuple[_Segment, int]:
        self._ordinal += 1
        seed = secrets.randbits(32)
        path = self.directory / f"{self._ordinal:08d}-{first_sequence:020d}-{seed:08x}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
        self._write_fd = fd
        segment = _Segment(path, self._ordinal, first_sequence, seed, 0, first_sequence)
        with self._mutex:
            self._segments.append(segment)
        _sync_directory(self.directory)  # without it a power failure could lose the file's name
        return segment, fd

    def _leave_segment(self) -> None:
        """No more appends to the last segment. After a failed write its tail is cut back; where
        even that fails, a following segment's first number tells recovery what to ignore."""
        with self._mutex:  # from here on an acknowledgement may remove the segment
            if self._write_fd is None:
                return
            fd, self._write_fd = self._write_fd, None
            size = self._segments[-1].size
        try:
            if os.fstat(fd).st_size > size:
                os.ftruncate(fd, size)
        except OSError:
            pass  # see above: what stays behind is ignored, or published under its own number
        finally:
            os.close(fd)
        self._remove_acknowledged()

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        with self._mutex:
            segments = [(s, s.size, s.end_sequence) for s in self._segments]
        out: list[SpooledEvent] = []
        self._ends = []
        for segment, size, end_sequence in segments:
            room = max_events - len(out), max_bytes - sum(len(e.data) for e in out)
            more = self._peek_segment(segment, size, end_sequence, *room, bool(out))
            if out and more and more[0].sequence != out[-1].sequence + 1:
                break
            out += more
            unread = not more or more[-1].sequence + 1 < end_sequence
            if out and (unread or len(out) >= max_events):
                break
        return out

    def _peek_segment(
        self, segment: _Segment, size: int, end_sequence: int,
        max_events: int, max_bytes: int, have_some: bool,
    ) -> list[SpooledEvent]:  # fmt: skip
        """Unacknowledged events of one segment, from where the last acknowledgement left off."""
        offset, expected = self._position.get(segment.ordinal, (0, segment.first_sequence))
        while offset < size:
            limit = max_bytes + min(max_events, 64) * RECORD_OVERHEAD_BYTES
            found = self._scan_some(segment, offset, size, (limit, max_events), expected)
            at_end = offset + found.consumed >= size or not found.consumed
            end = end_sequence if at_end else found.next_sequence
            self._note_missing(found, expected, end)
            fresh = [r for r in found.records if r[0].sequence >= self._state.acknowledged]
            if fresh:
                return self._choose(segment, offset, fresh, max_events, max_bytes, have_some)
            # Nothing but acknowledged or damaged records: move on for good.
            offset = size if at_end else offset + found.consumed
            expected = end
            self._position[segment.ordinal] = offset, expected
        self._note_missing(Scan(expected), expected, end_sequence)
        with self._mutex:  # the writer may have removed it meanwhile
            is_first = bool(self._segments) and segment is self._segments[0]
        if not have_some and is_first:
            self.acknowledge(max(self._state.acknowledged, end_sequence))
        return []

    def _scan_some(
        self, segment: _Segment, offset: int, size: int, limits: tuple[int, int], expected: int
    ) -> Scan:
        """Scan from `offset`, at most (bytes, records); reads on where the bytes are too few for
        even one record."""
        max_bytes, max_records = limits
        fd = self._reader(segment)
        while True:
            count = min(size - offset, max(max_bytes, RECORD_OVERHEAD_BYTES))
            data = os.pread(fd, count, offset)
            found = scan_records(data, segment.seed, expected, max_records)
            if found.consumed or count == size - offset:
                return found
            max_bytes = count * 4

    def _choose(
        self, segment: _Segment, base: int, fresh: list[tuple[SpooledEvent, int]],
        max_events: int, max_bytes: int, have_some: bool,
    ) -> list[SpooledEvent]:  # fmt: skip
        out = _contiguous((event for event, _ in fresh), max_events, max_bytes)
        if have_some and sum(len(e.data) for e in out) > max_bytes:
            out = []
        self._ends += [(e.sequence, segment.ordinal, base + end) for e, end in fresh[: len(out)]]
        return out

    def _note_missing(self, found: Scan, expected: int, end: int) -> None:
        """Numbers of this segment that no good record has."""
        for sequence in [*(event.sequence for event, _ in found.records), end]:
            # The same damage is met again, in other portions, until it is acknowledged.
            first = max(expected, self._state.acknowledged, self._judged_until)
            if sequence > first:
                self._corrupt += sequence - first
                self._judged_until = sequence
            expected = sequence + 1

    def _reader(self, segment: _Segment) -> int:
        if self._read is None or self._read[0] is not segment:
            self._close_reader()
            self._read = segment, os.open(segment.path, os.O_RDONLY)
        return self._read[1]

    def _close_reader(self) -> None:
        if self._read is not None:
            os.close(self._read[1])
            self._read = None

    def acknowledge(self, next_sequence: int) -> None:
        for sequence, ordinal, end in self._ends:
            if sequence < next_sequence:
                self._position[ordinal] = end, sequence + 1
        self._save(SpoolState(next_sequence, self._state.losses, self._state.closed), sync=False)
        self._remove_acknowledged()

    def note(self, losses: Mapping[str, int], *, closed: bool = False) -> None:
        """Keep totals of losses, and whether the producer has ended. Not raised where the disk
        refuses: then only a frame can carry them."""
        self._save(SpoolState(self._state.acknowledged, dict(losses), closed), sync=True)

    def _save(self, state: SpoolState, *, sync: bool) -> None:
        with self._mutex:
            self._state = state
            # An old cursor on disk means that events are sent twice, which the index detects.
            with contextlib.suppress(OSError):
                self._state_file.save(state, sync=sync)

    def _remove_acknowledged(self) -> None:
        """Delete segments of which everything is acknowledged, except the one in writing."""
        with self._mutex:
            gone = []
            while self._segments and self._segments[0].end_sequence <= self._state.acknowledged:
                if len(self._segments) == 1 and self._write_fd is not None:
                    break
                gone.append(self._segments.popleft())
        for segment in gone:
            self._position.pop(segment.ordinal, None)
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._write_fd is not None:
            os.close(self._write_fd)
            self._write_fd = None
        self._close_reader()
        self._state_file.close()
        os.close(self._lock_fd)  # releases the lock: from here on another process may adopt it

    def remove(self) -> None:
        """Delete the folder of a drained spool, and close it. If we die in between, what is left
        holds no unacknowledged event and is adopted and deleted later."""
        assert self.drained, "only a drained spool is removed"
        for path in sorted(self.directory.iterdir(), key=lambda p: p.name == "lock"):
            path.unlink(missing_ok=True)
        self.directory.rmdir()
        self.close()


def _recovered_segments(directory: Path) -> list[_Segment]:
    found = (_Segment.at(path) for path in directory.glob("*.seg"))
    segments = sorted((s for s in found if s), key=lambda s: s.ordinal)
    for segment, following in zip_longest(segments, segments[1:]):
        _recover(segment, following)
    return segments


def _recover(segment: _Segment, following: _Segment | None) -> None:
    """Find out what a segment holds and cut what is torn.

    Records numbered at or above the following segment's first are of a write that was reported as
    failed; their numbers went to other events, or the same events were written again.
    """
    data = segment.path.read_bytes()
    found = scan_records(data, segment.seed, segment.first_sequence)
    size, end_sequence = found.consumed, found.next_sequence
    if following is not None and following.first_sequence < end_sequence:
        kept = [end for e, end in found.records if e.sequence < following.first_sequence]
        size, end_sequence = max(kept, default=0), following.first_sequence
    elif following is not None and size < len(data):
        end_sequence = following.first_sequence  # a damaged tail, followed by other events: lost
    if size < len(data):
        os.truncate(segment.path, size)
    segment.size, segment.end_sequence = size, end_sequence


def check_root(root: Path) -> None:
    """Refuse a folder in which no spool can be made. Raises Fatal."""
    probe = root / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_DIR)
        probe.mkdir(mode=_PRIVATE_DIR)
        probe.rmdir()
    except OSError as error:
        raise Fatal(
            f"no spool can be made in {root}: {error.strerror}",
            "set GATEBOOK_SPOOL_DIR to a folder on a disk that can be written",
        ) from None


def abandoned_spools(root: Path) -> list[Path]:
    """Folders of spools under `root`, oldest epoch first. Their owners may still live: `adopt`
    tells."""
    found = [p for p in root.glob("*/*") if p.is_dir() and p.name.isdigit()]
    return sorted(found, key=lambda p: int(p.name))


class Unsent(NamedTuple):
    """What a spool's files hold that no broker has acknowledged."""

    events: int
    acknowledged_at: float
    """When the cursor was last written (seconds since 1970)."""


def look(directory: Path) -> Unsent:
    """Count the unacknowledged events of a spool without its lock and without changing anything.

    The owner may be writing: a record cut short is not counted. Raises OSError, also where the
    owner removes a file meanwhile.
    """
    data = (directory / "state").read_bytes()
    halves = data[:_STATE_SLOT_BYTES], data[_STATE_SLOT_BYTES:]
    slots = [slot for half in halves if (slot := _parse_slot(half))]
    cursor = int(max(slots, key=lambda s: s[0])[1]["acknowledged"]) if slots else 0
    events = 0
    for path in sorted(directory.glob("*.seg")):
        if segment := _Segment.at(path):
            found = scan_records(path.read_bytes(), segment.seed, segment.first_sequence)
            events += sum(event.sequence >= cursor for event, _ in found.records)
    return Unsent(events, (directory / "state").stat().st_mtime)
