"""The journal: gives events their numbers and keeps them by the rules of the delivery mode."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from gatebook.producers.config import ProducerSettings
from gatebook.producers.spool import (
    FileSpool,
    MemorySpool,
    SpooledEvent,
    SpoolFull,
    SpoolUnavailable,
)

log = logging.getLogger("gatebook.producers")

RETRY_SPOOL_SECONDS = 1.0


def _free_epoch(settings: ProducerSettings, epoch: int) -> int:
    while (settings.spool_path / settings.effective_producer_id / str(epoch)).exists():
        epoch += 1
    return epoch


class Journal:
    """One producer epoch: numbering, the spool, and memory where the mode allows it.

    best_effort: memory only. buffered: the file spool; where that cannot be written, memory takes
    over (`degraded`) until it can. strict: the file spool or nothing. Events in memory are always
    newer than those in the file, so publishing the file first keeps the order.
    """

    def __init__(self, settings: ProducerSettings, epoch: int) -> None:
        self.producer_id = settings.effective_producer_id
        self.epoch = _free_epoch(settings, epoch)
        self.degraded = False
        self.degraded_events = 0
        self.next_sequence = 0
        self._acknowledged = 0
        self._settings = settings
        self._memory = MemorySpool(settings.memory_buffer_max_bytes)
        self._file: FileSpool | None = None
        self._retry_at = 0.0
        if settings.delivery_mode != "best_effort":
            self._restore()

    @property
    def memory_bytes(self) -> int:
        """Bytes of events that stand in memory only."""
        return self._memory.pending_bytes

    @property
    def memory_events(self) -> int:
        """Events that stand in memory only."""
        return self._memory.pending_events

    @property
    def spool_bytes(self) -> int:
        """Bytes of the file spool."""
        return self._file.pending_bytes if self._file else 0

    @property
    def corrupt_events(self) -> int:
        """Events that were spooled and could not be read back."""
        return self._file.corrupt_events if self._file else 0

    @property
    def first_unacknowledged(self) -> int:
        """The lowest number that is not published; `next_sequence` where all are."""
        in_file = self._file.state.acknowledged if self._file else 0
        return max(self._acknowledged, in_file)

    @property
    def drained(self) -> bool:
        """Whether every event is published."""
        return (self._file is None or self._file.drained) and self._memory.drained

    def append(self, events: Sequence[bytes]) -> bool:
        """Number the events and keep them, all or none. True: they are fsynced; False: they stand
        in memory only, as the mode allows. Raises SpoolFull, SpoolUnavailable: none was kept, and
        their numbers go to the next events."""
        mode = self._settings.delivery_mode
        durable = mode != "best_effort" and self._append_durably(events, strict=mode == "strict")
        if not durable:
            self._memory.append(self.next_sequence, events)
            self.degraded_events += len(events) if mode != "best_effort" else 0
        self.next_sequence += len(events)
        return durable

    def _append_durably(self, events: Sequence[bytes], *, strict: bool) -> bool:
        try:
            if (self._file is None or self.degraded) and not self._restore():
                raise SpoolUnavailable("the spool cannot be written")
            assert self._file is not None
            self._file.append(self.next_sequence, events)
            return True
        except SpoolUnavailable as error:
            self._degrade(error)
            if strict:
                raise
            return False

    def _degrade(self, error: SpoolUnavailable) -> None:
        if not self.degraded:
            log.error("%s; mode %s", error, self._settings.delivery_mode)
            self._retry_at = time.monotonic() + RETRY_SPOOL_SECONDS
        self.degraded = True

    def _restore(self) -> bool:
        """Try the file spool again, at most once a second; move to it what stands in memory."""
        if time.monotonic() < self._retry_at:
            return False
        self._retry_at = time.monotonic() + RETRY_SPOOL_SECONDS
        try:
            self.move_to_file()
        except (SpoolUnavailable, SpoolFull) as error:
            if not self.degraded:
                log.error("%s; mode %s", error, self._settings.delivery_mode)
            self.degraded = True
            return False
        self.degraded = False
        return True

    def move_to_file(self) -> None:
        """Make durable what stands in memory. Raises SpoolFull, SpoolUnavailable.

        If we die after the append and before memory is cleared, the file alone counts. If the
        publisher has sent some of it meanwhile, the acknowledgement clears both.
        """
        if self._file is None:
            self._file = FileSpool.create(
                self._settings.spool_path,
                self.producer_id,
                self.epoch,
                self._settings.spool_max_bytes,
            )
        waiting = self._memory.peek(self._memory.pending_events or 1, 1 << 62)
        if waiting:
            self._file.append(waiting[0].sequence, [event.data for event in waiting])
            self._memory.acknowledge(waiting[-1].sequence + 1)

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        """The oldest unpublished events, numbered without a gap."""
        if self._file is not None and not self._file.drained:
            found = self._file.peek(max_events, max_bytes)
            if found:
                return found
        return self._memory.peek(max_events, max_bytes)

    def acknowledge(self, next_sequence: int) -> None:
        """Every event below `next_sequence` is published."""
        self._acknowledged = max(self._acknowledged, next_sequence)
        self._memory.acknowledge(next_sequence)
        if self._file is not None:
            self._file.acknowledge(next_sequence)

    def note(self, losses: dict[str, int], *, closed: bool = False) -> None:
        """Keep totals of losses where a recovery finds them."""
        if self._file is not None:
            self._file.note(losses, closed=closed)

    def close(self) -> None:
        """Let go of files, and delete the spool if it is drained and the epoch's end is told."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Delete the spool: everything is published, the closed frame too."""
        if self._file is not None:
            self._file.remove()
