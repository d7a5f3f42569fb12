"""Imports existing access logs, line by line, so that each line is in the index once.

A line's event id follows from where the line stands: the source (a digest of its first line and a
label), the offset and the bytes. Whatever is read twice is therefore the same event, and the index
knows it. The resume point only saves the work: it moves when a batch is durable.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import sys
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import msgspec

from gatebook.producers.adapters.importer_formats import Reader
from gatebook.producers.adapters.outside import OutsideEvent, Policy
from gatebook.producers.recorder import Recorder
from gatebook.schemas.errors import Fatal, RecordRejected

BATCH_LINES = 500
MAX_LINE_BYTES = 1024 * 1024
# What is full or away now may have room a little later: the lines are kept and tried again.
PATIENT_REASONS = frozenset({"buffer_full", "spool_full", "spool_unavailable", "not_durable"})
INVALID_REASONS = frozenset({"invalid_event", "oversize"})
MOST_SPOOL_SHARE = 0.4
RETRY_SECONDS = 0.5
STDIN = "-"


class Point(msgspec.Struct):
    """The resume point of one source: everything before `offset` is durable or rejected."""

    offset: int = 0
    lines: int = 0
    imported: int = 0
    rejected: int = 0
    rejects_bytes: int = 0
    size: int = 0
    inode: int = 0
    path: str = ""


class Line(msgspec.Struct, frozen=True):
    """A line with its number, where it begins, and where the next one does."""

    number: int
    offset: int
    end: int
    data: bytes
    too_long: bool = False


@dataclass
class Report:
    """What an import did in this run; `resumed_at` lines were done before."""

    source: str
    resumed_at: int = 0
    imported: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unfinished_line: bool = False


class Source:
    """An input: a file, packed or not, or standard input. Offsets are those of the plain bytes."""

    def __init__(self, path: str, label: str = "") -> None:
        self.path = path
        self.is_stdin = path == STDIN
        self.is_packed = False
        self._file = self._open()
        self.first_line = self._file.readline(MAX_LINE_BYTES)
        digest = hashlib.sha256(label.encode() + b"\0" + self.first_line)
        self.identity = digest.hexdigest()

    def _open(self) -> IO[bytes]:
        if self.is_stdin:
            return sys.stdin.buffer
        try:
            self._raw = raw = open(self.path, "rb")  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise Fatal(f"{self.path} cannot be read: {error.strerror}", "check the path") from None
        self.is_packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self.is_packed else raw

    @property
    def total_bytes(self) -> int:
        """Plain bytes, where they are known; else 0."""
        if self.is_stdin or self.is_packed:
            return 0
        return Path(self.path).stat().st_size

    @property
    def may_grow(self) -> bool:
        """Whether a last line without an end may be half a line."""
        return not self.is_stdin and not self.is_packed

    def stat(self) -> tuple[int, int]:
        """Size and inode; zeros for standard input."""
        if self.is_stdin:
            return 0, 0
        found = Path(self.path).stat()
        return found.st_size, found.st_ino

    def lines(self, offset: int, number: int) -> Iterator[Line]:
        """Lines from an offset on; the last one even where it has no end. Raises Fatal for a
        packed file that is damaged."""
        if not self.is_stdin:
            self._file.seek(offset)
        waiting = self.first_line if self.is_stdin else b""
        while True:
            data = waiting or self._read_line()
            waiting = b""
            if not data:
                return
            number += 1
            end = offset + len(data)
            too_long = len(data) >= MAX_LINE_BYTES and not data.endswith(b"\n")
            if too_long:
                end += self._skip_line()
            yield Line(number, offset, end, b"" if too_long else data, too_long)
            offset = end

    def _read_line(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE_BYTES)
        except (OSError, EOFError, zlib.error):
            raise Fatal(
                f"{self.path} cannot be read to its end",
                "a packed file may be damaged; what stood before is imported",
            ) from None

    def _skip_line(self) -> int:
        skipped = 0
        while part := self._read_line():
            skipped += len(part)
            if part.endswith(b"\n"):
                break
        return skipped

    def close(self) -> None:
        """Let go of the file."""
        if not self.is_stdin:
            self._file.close()
            self._raw.close()


class ResumeFile:
    """Where the resume point of a source is kept, and what was rejected of it."""

    def __init__(self, folder: Path, identity: str, rejects: Path | None = None) -> None:
        self._path = folder / f"{identity[:32]}.json"
        self.rejects_path = rejects or folder / f"{identity[:32]}.rejects.ndjson"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.rejects_path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Fatal(
                f"the resume point cannot be kept in {folder}: {error.strerror}",
                "set GATEBOOK_HOME to a folder that can be written",
            ) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """One import of a source at a time. Raises Fatal for the second."""
        with self._path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Fatal("another import is at work on the same log", "wait for it") from None
            yield

    def load(self) -> Point:
        """The last point; the beginning where there is none, or none that can be read: then what
        is imported again is recognised by its ids."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Point)
        except (OSError, msgspec.DecodeError):
            return Point()

    def forget(self) -> None:
        """Begin anew."""
        self._path.unlink(missing_ok=True)

    def save(self, point: Point) -> None:
        """Whole or not at all, and on disk on return."""
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(point))
            file.flush()
            os.fsync(file.fileno())
        # If we die before this, the last batch is read again and recognised by its ids.
        draft.replace(self._path)


class Importer:
    """One source into a recorder. `progress` is called with the offset after each batch.

    Without a recorder it is a dry run: lines are read and judged, nothing is kept.
    """

    def __init__(
        self,
        source: Source,
        reader: Reader,
        policy: Policy,
        recorder: Recorder | None,
        resume: ResumeFile | None,
        progress: Callable[[int], None] = lambda offset: None,
        take_last_line: bool = False,
    ) -> None:
        self._source = source
        self._reader = reader
        self._policy = policy
        self._recorder = recorder
        self._resume = resume
        self._progress = progress
        self._take_last = take_last_line or not source.may_grow
        self._pause = threading.Event()

    def run(self) -> Report:
        """Import what stands behind the resume point. Raises Fatal."""
        point = self._resume.load() if self._resume else Point()
        self._check_point(point)
        report = Report(self._source.path, resumed_at=point.lines)
        self._cut_rejects(point)
        for batch in _batches(self._whole_lines(point, report)):
            self._take(batch, point, report)
            self._progress(point.offset)
        return report

    def _check_point(self, point: Point) -> None:
        size, _ = self._source.stat()
        if not self._source.is_stdin and not self._source.is_packed and size < point.offset:
            raise Fatal(
                f"{self._source.path} is shorter than what was imported of it",
                "if it was cut or rewritten: --restart reads it from its beginning",
            )

    def _whole_lines(self, point: Point, report: Report) -> Iterator[Line]:
        for line in self._source.lines(point.offset, point.lines):
            if not self._take_last and not line.too_long and not line.data.endswith(b"\n"):
                report.unfinished_line = True
                return
            yield line

    def _take(self, batch: Sequence[Line], point: Point, report: Report) -> None:
        good: list[tuple[int, OutsideEvent]] = []
        bad: list[tuple[int, str]] = []
        for line in batch:
            try:
                event = self._read(line)
            except RecordRejected as error:
                bad.append((line.number, error.detail or error.reason))
            else:
                good += [(line.number, event)] if event is not None else []
        refused = self._record(good, self._recorder) if self._recorder is not None else []
        imported = len(good) - len(refused)
        bad += refused
        report.imported += imported
        report.rejected += len(bad)
        report.reasons.update(reason for _, reason in bad)
        point.rejects_bytes += self._note_rejects(bad)
        point.imported, point.rejected = point.imported + imported, point.rejected + len(bad)
        point.offset, point.lines = batch[-1].end, batch[-1].number
        if self._resume is not None:
            point.size, point.inode = self._source.stat()
            point.path = self._source.path
            self._resume.save(point)

    def _read(self, line: Line) -> OutsideEvent | None:
        if line.too_long:
            raise RecordRejected("invalid_event", f"is longer than {MAX_LINE_BYTES} bytes")
        if not line.data.strip():
            return None
        try:
            event = self._reader(line.data)
            if not event.get("timestamp") and not event.get("@timestamp"):
                raise RecordRejected("invalid_event", "@timestamp: is missing")
            return self._policy.admit(event, event_id=self._event_id(line))
        except RecordRejected:
            raise
        except Exception as error:  # one line must not stop the import
            raise RecordRejected("invalid_event", type(error).__name__) from None

    def _event_id(self, line: Line) -> str:
        """A UUID (version 8) of the source, the offset and the line."""
        text = f"{self._source.identity}/{line.offset}/".encode()
        raw = bytearray(hashlib.sha256(text + line.data.rstrip(b"\r\n")).digest()[:16])
        raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(raw)))

    def _record(
        self, events: Sequence[tuple[int, OutsideEvent]], recorder: Recorder
    ) -> list[tuple[int, str]]:
        """Returns when all of them are durable, but for those that no frame can hold: their lines
        and why. Where there is no room, waits for it."""
        waiting, refused = list(events), []
        while waiting:
            self._wait_for_room(recorder)
            outcomes = recorder.emit_all_durable([event for _, event in waiting])
            pairs = [(one, reason) for one, (_, reason) in zip(waiting, outcomes, strict=True)]
            refused += [(one[0], reason) for one, reason in pairs if reason in INVALID_REASONS]
            waiting = [one for one, reason in pairs if reason and reason not in INVALID_REASONS]
            hopeless = {reason for _, reason in pairs} - PATIENT_REASONS - INVALID_REASONS - {""}
            if hopeless:
                raise Fatal(
                    f"events could not be recorded: {', '.join(sorted(hopeless))}",
                    "start the import again when that is mended: it goes on where it stopped",
                )
            if waiting:
                self._pause.wait(RETRY_SECONDS)
        return refused

    def _wait_for_room(self, recorder: Recorder) -> None:
        """An import can wait, a service cannot: so the degrade ladder takes nothing from it."""
        limit = recorder.settings.spool_max_bytes * MOST_SPOOL_SHARE
        while recorder.counters().spool_bytes > limit:
            self._pause.wait(RETRY_SECONDS)

    def _cut_rejects(self, point: Point) -> None:
        """What was written after the last point is written again."""
        if self._resume is None:
            return
        with suppress(FileNotFoundError):
            os.truncate(self._resume.rejects_path, point.rejects_bytes)

    def _note_rejects(self, bad: Sequence[tuple[int, str]]) -> int:
        if not bad or self._resume is None:
            return 0
        rows = [{"line": number, "reason": reason} for number, reason in bad]
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        with self._resume.rejects_path.open("ab") as file:
            file.write(data)
        return len(data)


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH_LINES:
            yield batch
            batch = []
    if batch:
        yield batch
