"""The recorder: takes events off the request path and sees them through to the broker.

    emit (any thread)  -> queue, bounded in bytes                        microseconds
    writer thread      -> encodes once, numbers, spools with one fsync   "spooled"
    sender thread      -> frames to the broker, moves the spool's cursor "acknowledged"

What is refused on the way is counted under a reason of `DropReason` and travels as a loss
statement in every later frame. emitted = acknowledged + dropped + still on the way, exactly.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from gatebook.producers import metrics
from gatebook.producers.config import ProducerSettings
from gatebook.producers.ids import uuid7
from gatebook.producers.journal import Journal
from gatebook.producers.publisher import KafkaPublisher, Publisher
from gatebook.producers.sender import (
    BACKOFF_SECONDS,
    EVENT_OVERHEAD_BYTES,
    Adopter,
    FrameSender,
)
from gatebook.producers.shrink import shrink_event
from gatebook.producers.spool import SpooledEvent, SpoolFull, SpoolUnavailable, check_root
from gatebook.schemas.codec import encode_event
from gatebook.schemas.errors import Fatal, GatebookError, RecordRejected

log = logging.getLogger("gatebook.producers")

Event = Mapping[str, Any]
DropReason = Literal[
    "buffer_full",  # memory is full, the broker or the disk being too slow
    "spool_full",  # the spool is full, the broker being away
    "spool_unavailable",  # the spool cannot be written, and memory is full or may not be used
    "spool_corrupt",  # spooled, and damaged when it was read back
    "invalid_event",  # does not fit the schema
    "oversize",  # too large for a frame even without content
    "not_durable",  # emit_durable gave up on it and said so to its caller
    "broker_rejected",  # the broker takes it in no form
    "shutdown",  # in memory when the process ended
    "closed",  # emitted after close
]
# These had a number already; the others were dropped before they were given one.
NUMBERED_DROP_REASONS = frozenset({"spool_corrupt", "broker_rejected"})

APPROXIMATE_EVENT_BYTES = 2048  # of a mapping in memory, without its content
_BATCH_EVENTS = 500
_HOLD_SECONDS = 0.2
_LOSS_STATEMENT_SECONDS = 1.0
_IDLE_SECONDS = 0.5
_ENDING_PAUSE_SECONDS = 0.05


class Draft(Protocol):
    """An event that is still to be built, in the writer thread rather than in the request."""

    @property
    def size_bytes(self) -> int:
        """Memory it holds, approximately."""

    def build(self) -> Event:
        """The event, without event.id and event.created. Called once. Whatever it raises, the
        event counts as dropped for invalid_event."""


class NotDurable(GatebookError):
    """The event was not known to be on disk in time. `reason` is a DropReason. It does not mean
    that the event is lost: where the time ran out during the write, it may still be published."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the event is not durable: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class FlushReport:
    """`complete`: everything emitted before the call is acknowledged or counted as dropped."""

    complete: bool
    unspooled: int
    unacknowledged: int


@dataclass(frozen=True)
class Counters:
    """Totals of this process. `degraded` counts events that stood in memory for want of a spool;
    `recovered` those sent from the spools of dead processes (not part of `acknowledged`)."""

    emitted: int = 0
    spooled: int = 0
    acknowledged: int = 0
    degraded: int = 0
    recovered: int = 0
    frames: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    queued_bytes: int = 0
    spool_bytes: int = 0
    is_degraded: bool = False

    @property
    def on_the_way(self) -> int:
        """Events neither acknowledged nor dropped yet."""
        return self.emitted - self.acknowledged - sum(self.dropped.values())


class _Entry(NamedTuple):
    event: Event | Draft
    event_id: str
    created: int
    size: int
    waiter: Future[None] | None


class _Encoded(NamedTuple):
    data: bytes
    size: int
    waiter: Future[None] | None


class Recorder:
    """Non-blocking front of a producer. Threads, spool and Kafka client are made on the first
    event, per process: after a fork the child starts its own epoch with its own spool.

    `publisher` makes the publisher of a process; the default is Kafka. Raises Fatal for settings
    that are refused, and in strict mode for a spool folder that cannot be written.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        publisher: Callable[[ProducerSettings], Publisher] = KafkaPublisher,
    ) -> None:
        self.settings = settings.check()
        if settings.delivery_mode == "strict":
            check_root(settings.spool_path)
        if settings.kafka_properties and publisher is KafkaPublisher:
            KafkaPublisher(settings).check()
        self._make_publisher = publisher
        self._reset()
        _recorders.add(self)
        metrics.COLLECTOR.add(self)
        atexit.register(_close_at_exit, weakref.ref(self))

    def _reset(self) -> None:
        """The state of a process that has not emitted yet."""
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the writer
        self._progress = threading.Condition(self._lock)  # for flush, and a writer held up
        self._sendable = threading.Event()  # for the sender
        self._ending = threading.Event()  # close was called
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._queued_events = 0  # in the queue or in the writer's hands
        self._emitted = self._spooled = self._acknowledged = 0
        self._dropped: dict[str, int] = {}
        self._blocked_reason = ""  # why the writer cannot go on, if so
        self._writer_idle = False
        self._urgent = False
        self._started = self._closed = False
        self._stop_at = float("inf")
        self._journal: Journal | None = None
        self._publisher: Publisher | None = None
        self._sender: FrameSender | None = None
        self._adopter: Adopter | None = None
        self._threads: list[threading.Thread] = []
        self._noted: dict[str, int] = {}
        self._noted_at = 0.0
        node = f"{socket.gethostname()}:{os.getpid()}"
        self._service = {
            "name": self.settings.service_name,
            "version": self.settings.service_version,
            "environment": self.settings.service_environment,
            "node": {"name": node},
        }

    # -- the request's side -------------------------------------------------------------------

    def emit(self, event: Event | Draft) -> str:
        """Take an event, without waiting, and return its id. Never raises for what is in it.

        It is not durable and not published on return; it may still be dropped, and is counted
        then. The event must not be changed afterwards.
        """
        return self._put(event, None)

    def emit_durable(self, event: Event | Draft, timeout_seconds: float | None = None) -> str:
        """Take an event and return its id once it is fsynced. Not yet published then.

        Raises NotDurable where that cannot be, or not within the time (default: the setting
        strict_timeout_seconds); the event is then dropped and counted, or see NotDurable.
        """
        waiter: Future[None] = Future()
        event_id = self._put(event, waiter)
        timeout = (
            self.settings.strict_timeout_seconds if timeout_seconds is None else timeout_seconds
        )
        try:
            waiter.result(timeout)
        except FutureTimeoutError:
            waiter.cancel()  # still queued: the writer drops and counts it
            raise NotDurable("not_durable") from None
        return event_id

    async def emit_durable_async(
        self, event: Event | Draft, timeout_seconds: float | None = None
    ) -> str:
        """`emit_durable` for a coroutine. Cancelling the coroutine does not cancel the write."""
        waiter: Future[None] = Future()
        event_id = self._put(event, waiter)
        timeout = (
            self.settings.strict_timeout_seconds if timeout_seconds is None else timeout_seconds
        )
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(waiter)), timeout)
        except TimeoutError:
            waiter.cancel()
            raise NotDurable("not_durable") from None
        return event_id

    def _strict_timeout(self, given_seconds: float | None) -> float:
        return self.settings.strict_timeout_seconds if given_seconds is None else given_seconds

    def _put(self, event: Event | Draft, waiter: Future[None] | None) -> str:
        size = _approximate_size(event)
        entry = _Entry(event, uuid7(), time.time_ns(), size, waiter)
        with self._lock:
            refused = self._refuse(size)
            if not refused:
                self._emitted += 1
                self._queue.append(entry)
                self._queued_bytes += size
                self._queued_events += 1
                if waiter is not None:
                    self._urgent = True
                if self._writer_idle or waiter is not None or len(self._queue) == _BATCH_EVENTS:
                    self._work.notify()
            else:
                self._emitted += 1
                self._drop(refused, 1)
        if refused and waiter is not None:
            waiter.set_exception(NotDurable(refused))
        if not self._started:
            self._start_quietly()
        return entry.event_id

    def _refuse(self, size: int) -> str:
        """Why an event is not even queued, if so. The newest is refused, the oldest never lost."""
        if self._closed:
            return "closed"
        held = self._queued_bytes + (self._journal.memory_bytes if self._journal else 0)
        if held + size <= self.settings.memory_buffer_max_bytes:
            return ""
        return self._blocked_reason or "buffer_full"

    def _drop(self, reason: str, count: int) -> None:
        """Count drops. Call with the lock held."""
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    def accepts_durably(self) -> bool:
        """Whether an event emitted now could be expected to become durable. No promise."""
        self.start()
        journal = self._journal
        return not (
            self._closed or self._blocked_reason or journal is None or journal.degraded
            or self.settings.delivery_mode == "best_effort"
        )  # fmt: skip

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the spool and start the threads, unless that is done. `emit` does it by itself."""
        with self._lock:
            if self._started or self._closed:
                return
            self._journal = Journal(self.settings, time.time_ns())
            self._publisher = self._make_publisher(self.settings)
            self._sender = FrameSender(self.settings, self._publisher)
            self._adopter = Adopter(self.settings, self._sender)
            self._threads = [
                threading.Thread(target=run, name=f"gatebook{run.__name__}", daemon=True)
                for run in (self._write_loop, self._send_loop)
            ]
            self._started = True
        for thread in self._threads:
            thread.start()

    def _start_quietly(self) -> None:
        """`start` within a request: what fails is logged, and tried again by the next event."""
        try:
            self.start()
        except Exception:
            log.exception("the recorder cannot start; events wait in memory")

    def flush(self, deadline_seconds: float | None = None) -> FlushReport:
        """Wait until everything emitted is acknowledged or dropped, or the deadline is over. What
        is not acknowledged then stays spooled and is sent later."""
        deadline = self._seconds(deadline_seconds)
        with self._lock:
            self._urgent = True
            self._work.notify()
            self._progress.wait_for(lambda: self._on_the_way() <= 0, deadline)
            left = self._on_the_way()
            return FlushReport(left <= 0, self._queued_events, left - self._queued_events)

    def _on_the_way(self) -> int:
        return self._emitted - self._acknowledged - sum(self._dropped.values())

    def _seconds(self, given: float | None) -> float:
        return self.settings.flush_deadline_seconds if given is None else given

    def close(self, deadline_seconds: float | None = None) -> FlushReport:
        """Take no more events, send what is there until the deadline, and say `closed`.

        What the broker has not acknowledged stays in the spool for the next process; without a
        spool it is counted as dropped. A second call is harmless.
        """
        deadline = self._seconds(deadline_seconds)
        with self._lock:
            if self._closed or not self._started:
                self._closed = True
                return FlushReport(self._on_the_way() <= 0, 0, max(0, self._on_the_way()))
            self._closed = True
            self._stop_at = time.monotonic() + deadline
            self._ending.set()
            self._sendable.set()
            self._work.notify_all()
            self._progress.notify_all()
        for thread in self._threads:
            # Both look at the deadline at least every few tenths of a second.
            thread.join(deadline + 2 * _IDLE_SECONDS)
        with self._lock:
            left = self._on_the_way()
            return FlushReport(left <= 0, self._queued_events, left - self._queued_events)

    def counters(self) -> Counters:
        """Totals so far."""
        journal, adopter, sender = self._journal, self._adopter, self._sender
        spool_bytes = journal.spool_bytes if journal else 0
        with self._lock:
            return Counters(
                emitted=self._emitted,
                spooled=self._spooled,
                acknowledged=self._acknowledged,
                degraded=journal.degraded_events if journal else 0,
                recovered=adopter.events if adopter else 0,
                frames=sender.frames_sent if sender else 0,
                dropped=dict(self._dropped),
                queued_bytes=self._queued_bytes,
                spool_bytes=spool_bytes,
                is_degraded=bool(journal and journal.degraded),
            )

    def _leave_after_fork(self) -> None:
        """In a child process: what is queued or spooled belongs to the parent, which sends it."""
        if self._publisher is not None:
            self._publisher.leave_after_fork()
        if self._adopter is not None:
            self._adopter.close()
        if self._journal is not None:
            # Closes this process's copies only: the parent still holds the spool's lock.
            self._journal.close()
        self._reset()

    # -- the writer ---------------------------------------------------------------------------

    def _write_loop(self) -> None:
        while True:
            entries = self._take()
            if not entries and self._ending.is_set():
                break
            for part in self._parts(self._encode(entries)):
                self._store_guarded(part)
            self._note_losses()
        self._finish_writing()
        self._sendable.set()

    def _take(self) -> list[_Entry]:
        """The next entries; waits for the first, and a little for company. May be none."""
        with self._lock:
            self._writer_idle = True
            self._work.wait_for(lambda: self._queue or self._ending.is_set(), _IDLE_SECONDS)
            self._writer_idle = False
            if self._queue and len(self._queue) < _BATCH_EVENTS:
                self._work.wait_for(self._in_a_hurry, self.settings.linger_seconds)
            self._urgent = False
            count = min(len(self._queue), _BATCH_EVENTS)
            return [self._queue.popleft() for _ in range(count)]

    def _in_a_hurry(self) -> bool:
        return self._urgent or self._ending.is_set() or len(self._queue) >= _BATCH_EVENTS

    def _encode(self, entries: Sequence[_Entry]) -> list[_Encoded]:
        encoded = []
        for entry in entries:
            if entry.waiter is not None and not entry.waiter.set_running_or_notify_cancel():
                self._give_up(entry.size, None, "not_durable")
                continue
            try:
                data = self._encode_one(entry)
            except RecordRejected as error:
                self._give_up(entry.size, entry.waiter, error.reason)
            else:
                encoded.append(_Encoded(data, entry.size, entry.waiter))
        return encoded

    def _encode_one(self, entry: _Entry) -> bytes:
        """Build and encode an event; RecordRejected with a DropReason where that cannot be."""
        data = encode_event(_completed(entry, self._service))
        limit = self.settings.event_max_bytes - EVENT_OVERHEAD_BYTES
        for _ in range(2):  # first without content, then with the main groups only
            if len(data) <= limit:
                return data
            data = shrink_event(data, "oversize") or data
        if len(data) > limit:
            raise RecordRejected("oversize")
        return data

    def _parts(self, encoded: Sequence[_Encoded]) -> list[list[_Encoded]]:
        """Cut a batch so that each part fits a frame's bytes: then it fits the spool as well."""
        parts: list[list[_Encoded]] = []
        room = 0
        for item in encoded:
            if not parts or len(item.data) > room:
                parts.append([])
                room = self.settings.frame_max_bytes
            parts[-1].append(item)
            room -= len(item.data)
        return parts

    def _store_guarded(self, batch: list[_Encoded]) -> None:
        """An error of our own costs this batch, not the writer."""
        try:
            self._store(batch)
        except Exception:
            log.exception("the writer goes on after an error of its own")
            for item in batch:
                self._give_up(item.size, item.waiter, "spool_unavailable")

    def _store(self, batch: list[_Encoded]) -> None:
        """Spool a batch. Where the spool refuses: waiters are told at once, the others are held
        here until there is room, while the queue fills up behind them."""
        assert self._journal is not None
        while batch:
            try:
                durable = self._journal.append([item.data for item in batch])
            except (SpoolFull, SpoolUnavailable) as error:
                batch = self._held(batch, error.reason)
                self._note_losses()
            else:
                self._stored(batch, durable)
                return

    def _stored(self, batch: Sequence[_Encoded], durable: bool) -> None:
        with self._lock:
            self._blocked_reason = ""
            self._spooled += len(batch) if durable else 0
            self._queued_events -= len(batch)
            self._queued_bytes -= sum(item.size for item in batch)
            self._progress.notify_all()
        self._sendable.set()
        for item in batch:
            if item.waiter is not None:
                if durable:
                    item.waiter.set_result(None)
                else:  # kept in memory and published from there, but that was not the question
                    item.waiter.set_exception(NotDurable("spool_unavailable"))

    def _held(self, batch: list[_Encoded], reason: str) -> list[_Encoded]:
        kept = [item for item in batch if item.waiter is None]
        for item in batch:
            if item.waiter is not None:
                self._give_up(item.size, item.waiter, reason)
        with self._lock:
            self._blocked_reason = reason
            self._fail_queued_waiters(reason)
            if time.monotonic() < self._stop_at:
                self._progress.wait(_HOLD_SECONDS)
                return kept
        for item in kept:
            self._give_up(item.size, None, reason)
        return []

    def _fail_queued_waiters(self, reason: str) -> None:
        """Call with the lock held."""
        queue, self._queue = self._queue, deque()
        for entry in queue:
            if entry.waiter is None:
                self._queue.append(entry)
                continue
            self._queued_events -= 1
            self._queued_bytes -= entry.size
            self._drop(reason, 1)
            if entry.waiter.set_running_or_notify_cancel():
                entry.waiter.set_exception(NotDurable(reason))

    def _give_up(self, size: int, waiter: Future[None] | None, reason: str) -> None:
        with self._lock:
            self._queued_events -= 1
            self._queued_bytes -= size
            self._drop(reason, 1)
            self._progress.notify_all()
        if waiter is not None and not waiter.done():
            waiter.set_exception(NotDurable(reason))

    def _note_losses(self, *, closed: bool = False, always: bool = False) -> None:
        """Keep the losses where a recovery finds them: if they changed, a few times a second."""
        assert self._journal is not None
        losses = self.losses()
        due = losses != self._noted and time.monotonic() - self._noted_at >= _HOLD_SECONDS
        if due or always:
            self._noted, self._noted_at = losses, time.monotonic()
            self._journal.note(losses, closed=closed)

    def losses(self) -> dict[str, int]:
        """Events dropped so far in this process, per reason."""
        with self._lock:
            return dict(self._dropped)

    def settle(self, acknowledged: int, dropped: Mapping[str, int]) -> None:
        """Count what became of numbered events. For the sender."""
        with self._lock:
            self._acknowledged += acknowledged
            for reason, count in dropped.items():
                self._drop(reason, count)
            self._progress.notify_all()

    def _finish_writing(self) -> None:
        """The queue is empty for good. Make durable what stands in memory, if it can be."""
        assert self._journal is not None
        if self.settings.delivery_mode != "best_effort":
            try:
                self._journal.move_to_file()
            except (SpoolFull, SpoolUnavailable) as error:
                log.error("%s; events stand in memory at the end", error)
        self._note_losses(closed=not self._journal.memory_events, always=True)

    # -- the sender ---------------------------------------------------------------------------

    def _send_loop(self) -> None:
        assert self._journal is not None
        source = _OwnSource(self, self._journal)
        pulse = _Pulse(self.settings.heartbeat_interval_seconds)
        while not self._send_finished():
            try:
                self._send_step(source, pulse)
            except Fatal as error:  # a configuration that librdkafka refuses; events stay spooled
                log.error("%s; %s", error, error.next_step)
                self._pause(BACKOFF_SECONDS)
            except Exception:
                log.exception("the sender goes on after an error of its own")
                self._pause(BACKOFF_SECONDS)
        self._finish_sending(source)

    def _send_step(self, source: _OwnSource, pulse: _Pulse) -> None:
        """One frame of ours and one of an adopted spool; a heartbeat when there is neither."""
        assert self._journal is not None
        assert self._sender is not None
        assert self._adopter is not None
        sent = self._sender.send(source, self._give_up_sending)
        if pulse.due_for_adoption() and not self._ending.is_set():
            self._adopter.look()
        adopted = not self._ending.is_set() and self._adopter.step(self._ending.is_set)
        if sent:
            pulse.told(source.losses())
            return
        if adopted:
            return
        if self._journal.drained:
            if pulse.due(source.losses()) and self._say(source):
                pulse.told(source.losses())
            self._sendable.wait(_IDLE_SECONDS)
            self._sendable.clear()
        else:
            self._pause(BACKOFF_SECONDS if self._sender.last_error else 0.0)

    def _say(self, source: _OwnSource, state: str = "open") -> bool:
        """An empty frame: a heartbeat, a loss statement or the end."""
        assert self._journal is not None
        assert self._sender is not None
        number = self._journal.first_unacknowledged
        return self._sender.send_frame(source, number, [], self._give_up_sending, state)

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            time.sleep(min(seconds, _ENDING_PAUSE_SECONDS))

    def _give_up_sending(self) -> bool:
        return time.monotonic() >= self._stop_at

    def _send_finished(self) -> bool:
        assert self._journal is not None
        if self._give_up_sending():
            return True
        writing = not self._ending.is_set() or self._threads[0].is_alive()
        return not writing and self._journal.drained

    def _finish_sending(self, source: _OwnSource) -> None:
        """Say `closed` if everything is sent; else leave the spool to the next process."""
        assert self._journal is not None
        assert self._publisher is not None
        assert self._adopter is not None
        said = False
        self._threads[0].join(2 * _IDLE_SECONDS)
        if self._journal.drained and not self._queued_events:
            try:
                said = self._say(source, "closed")
            except GatebookError as error:
                log.warning("the end of this epoch could not be said: %s", error)
        self._publisher.close(max(0.0, min(1.0, self._stop_at - time.monotonic())))
        self._adopter.close()
        lost = self._journal.memory_events
        with self._lock:
            if lost:
                self._drop("shutdown", lost)
                self._progress.notify_all()
        self._note_losses(closed=not lost and not self._queued_events, always=True)
        # If we die here, the spool is adopted: it is drained, or holds what was not acknowledged.
        if said:
            self._journal.remove()
        else:
            self._journal.close()


class _OwnSource:
    """This process's journal as the sender sees it."""

    def __init__(self, recorder: Recorder, journal: Journal) -> None:
        self._recorder = recorder
        self._journal = journal
        self._corrupt_counted = 0
        self._passed = 0
        self.producer_id = journal.producer_id
        self.epoch = journal.epoch

    def losses(self) -> dict[str, int]:
        """Drops of this epoch so far."""
        return self._recorder.losses()

    def lose(self, reason: str, count: int) -> None:
        """Count numbered events that cannot be sent."""
        # Their numbers will be passed over, which is not an acknowledgement.
        self._recorder.settle(-count, {reason: count})

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        """See Spool."""
        found = self._journal.peek(max_events, max_bytes)
        missing = self._journal.corrupt_events - self._corrupt_counted
        if missing:
            self._corrupt_counted += missing
            self.lose("spool_corrupt", missing)
        self._pass(self._journal.first_unacknowledged)
        return found

    def acknowledge(self, next_sequence: int) -> None:
        """See Spool."""
        self._journal.acknowledge(next_sequence)
        self._pass(next_sequence)

    def _pass(self, next_sequence: int) -> None:
        count = next_sequence - self._passed
        if count > 0:
            self._passed = next_sequence
            self._recorder.settle(count, {})


class _Pulse:
    """When to send an empty frame, and when to look for abandoned spools."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._told_at = float("-inf")
        self._told: dict[str, int] | None = None
        self._looked_at = float("-inf")

    def told(self, losses: dict[str, int]) -> None:
        """A frame with these losses was acknowledged."""
        self._told_at, self._told = time.monotonic(), losses

    def due(self, losses: dict[str, int]) -> bool:
        """Whether an empty frame should go out: the first, a heartbeat, or new losses."""
        age = time.monotonic() - self._told_at
        news = losses != (self._told or {})
        return age >= self._interval_seconds or (news and age >= _LOSS_STATEMENT_SECONDS)

    def due_for_adoption(self) -> bool:
        """At the start, and as often as a heartbeat."""
        now = time.monotonic()
        if now - self._looked_at < self._interval_seconds:
            return False
        self._looked_at = now
        return True


def _approximate_size(event: Event | Draft) -> int:
    """Memory an event holds, roughly and fast."""
    if isinstance(event, dict):
        content = event.get("content")
        return APPROXIMATE_EVENT_BYTES + (len(content) if isinstance(content, bytes) else 0)
    size = getattr(event, "size_bytes", 0)
    return APPROXIMATE_EVENT_BYTES + (size if isinstance(size, int) else 0)


def _completed(entry: _Entry, service: Mapping[str, Any]) -> dict[str, Any]:
    """The event with its id and the time it was accepted; built first, if it is a draft."""
    try:
        given = entry.event
        event = given if isinstance(given, Mapping) else given.build()
        inner = {**(event.get("event") or {}), "id": entry.event_id, "created": entry.created}
        return {**event, "event": inner, "service": event.get("service") or service}
    except Exception as error:  # whatever a caller hands over must not stop the writer
        raise RecordRejected("invalid_event", type(error).__name__) from None


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder._leave_after_fork()


def _close_at_exit(reference: weakref.ref[Recorder]) -> None:
    recorder = reference()
    if recorder is not None:
        recorder.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
metrics.register()
