"""The recorder: takes events off the request path and sees them through to the broker.

    emit (any thread) -> inbox, bounded in bytes                           microseconds
    writer thread     -> encodes once, numbers, spools with one fsync      "spooled"
    courier thread    -> frames to the broker, moves the spool's cursor    "acknowledged"

What is refused on the way is counted under a `DropReason` and travels as a loss statement in every
later frame.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from gatebook.producers import metrics
from gatebook.producers.accounts import (
    NUMBERED_DROP_REASONS,
    Accounts,
    Counters,
    DropReason,
    FlushReport,
    NotDurable,
)
from gatebook.producers.config import ProducerSettings
from gatebook.producers.courier import Courier
from gatebook.producers.ending import Ending
from gatebook.producers.inbox import Draft, Event, Inbox
from gatebook.producers.journal import Journal
from gatebook.producers.publisher import KafkaPublisher, Publisher
from gatebook.producers.spool import check_root
from gatebook.producers.writer import Writer
from gatebook.schemas.confluent import wire_from_env

__all__ = [
    "NUMBERED_DROP_REASONS",
    "Counters",
    "Draft",
    "DropReason",
    "Event",
    "FlushReport",
    "NotDurable",
    "Recorder",
]

log = logging.getLogger("gatebook.producers")

_JOIN_GRACE_SECONDS = 1.0  # the threads look at the deadline every few tenths of a second


class Recorder:
    """Non-blocking front of a producer. Threads, spool and Kafka client are made on the first
    event, per process: after a fork the child starts its own epoch with its own spool.

    `publisher` makes the publisher of a process; the default is Kafka. Raises Fatal for settings
    that are refused (SCHEMA_REGISTRY_URL among them), and in strict mode for a spool folder that
    cannot be written.
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
        wire_from_env(settings.namespace)  # refused here, not by a log line after the first event
        self._make_publisher = publisher
        self._reset()
        _recorders.add(self)
        metrics.COLLECTOR.add(self)
        atexit.register(_close_at_exit, weakref.ref(self))

    def _reset(self) -> None:
        """The state of a process that has not emitted yet."""
        self._accounts = Accounts()
        self._inbox = Inbox(
            self._accounts, self.settings.memory_buffer_max_bytes, self._memory_bytes
        )
        self._running: _Running | None = None
        self._starting = threading.Lock()

    # -- the request's side -------------------------------------------------------------------

    def emit(self, event: Event | Draft) -> str:
        """Take an event, without waiting, and return its id. Never raises for what is in it.

        It is not durable and not published on return; it may still be dropped, and is counted
        then. The event must not be changed afterwards.
        """
        event_id = self._inbox.put(event, None)
        if self._running is None:
            self._start_quietly()
        return event_id

    def emit_draft(self, draft: Draft) -> None:
        """`emit` of a draft whose id the caller does not ask for: it is made when it is built."""
        self._inbox.put_draft(draft)
        if self._running is None:
            self._start_quietly()

    def emit_durable(self, event: Event | Draft, timeout_seconds: float | None = None) -> str:
        """Take an event and return its id once it is fsynced. Not yet published then.

        Raises NotDurable where that cannot be, or not within the time (default: the setting
        strict_timeout_seconds); the event is then dropped and counted, or see NotDurable.
        """
        waiter, event_id = self._put_awaited(event)
        try:
            waiter.result(self._strict_timeout(timeout_seconds))
        except FutureTimeoutError:
            waiter.cancel()  # still queued: the writer drops and counts it
            raise NotDurable("not_durable") from None
        return event_id

    def emit_all_durable(
        self, events: Sequence[Event | Draft], timeout_seconds: float | None = None
    ) -> list[tuple[str, str]]:
        """`emit_durable` for many at once, one fsync for as many as fit: the id of each, and the
        DropReason of what is not durable (empty where it is). Raises nothing for single events."""
        until = time.monotonic() + self._strict_timeout(timeout_seconds)
        waiting = [self._put_awaited(event) for event in events]
        return [(event_id, _outcome(waiter, until)) for waiter, event_id in waiting]

    async def emit_durable_async(
        self, event: Event | Draft, timeout_seconds: float | None = None
    ) -> str:
        """`emit_durable` for a coroutine. Cancelling the coroutine does not cancel the write."""
        waiter, event_id = self._put_awaited(event)
        done = asyncio.shield(asyncio.wrap_future(waiter))
        try:
            await asyncio.wait_for(done, self._strict_timeout(timeout_seconds))
        except TimeoutError:
            waiter.cancel()
            raise NotDurable("not_durable") from None
        return event_id

    def _put_awaited(self, event: Event | Draft) -> tuple[Future[None], str]:
        waiter: Future[None] = Future()
        event_id = self._inbox.put(event, waiter)
        if self._running is None:
            self._start_quietly()
        return waiter, event_id

    def _strict_timeout(self, given_seconds: float | None) -> float:
        return self.settings.strict_timeout_seconds if given_seconds is None else given_seconds

    def accepts_durably(self) -> bool:
        """Whether an event emitted now could be expected to become durable. No promise."""
        self.start()
        running = self._running
        if running is None or self._inbox.closed or self._inbox.blocked_reason:
            return False
        return self.settings.delivery_mode != "best_effort" and not running.journal.degraded

    def wants_content(self) -> bool:
        """Whether content is kept of any access at all, by the policy in force."""
        running = self._running
        if running is None:
            return self.settings.may_want_content
        return running.writer.capture.wants_content

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the spool and start the threads, unless that is done. `emit` does it by itself."""
        with self._starting:
            if self._running is None and not self._inbox.closed:
                publisher = self._make_publisher(self.settings)
                self._running = _Running(self.settings, self._accounts, self._inbox, publisher)

    def _start_quietly(self) -> None:
        """`start` within a request: what fails is logged, and tried again by the next event."""
        try:
            self.start()
        except Exception:
            log.exception("the recorder cannot start; events wait in memory")

    def flush(self, deadline_seconds: float | None = None) -> FlushReport:
        """Wait until everything emitted is acknowledged or dropped, or the deadline is over. What
        is not acknowledged then stays spooled and is sent later."""
        accounts = self._accounts
        self._inbox.hurry()
        with accounts.lock:
            accounts.wait_held(
                lambda: accounts.on_the_way_held() <= 0, self._deadline(deadline_seconds)
            )
        return self._report()

    def close(self, deadline_seconds: float | None = None) -> FlushReport:
        """Take no more events, send what is there until the deadline, and say `closed`.

        What the broker has not acknowledged stays in the spool for the next process; without a
        spool it is counted as dropped. A second call is harmless.
        """
        with self._starting:
            already, running = self._inbox.closed, self._running
            self._inbox.close()
        if running is not None and not already:
            running.end(self._deadline(deadline_seconds))
        return self._report()

    def _deadline(self, given_seconds: float | None) -> float:
        return self.settings.flush_deadline_seconds if given_seconds is None else given_seconds

    def _report(self) -> FlushReport:
        with self._accounts.lock:
            left, queued = self._accounts.on_the_way_held(), self._inbox.events
            return FlushReport(left <= 0, queued, left - queued)

    def _memory_bytes(self) -> int:
        return self._running.journal.memory_bytes if self._running is not None else 0

    def counters(self) -> Counters:
        """Totals so far."""
        running, accounts = self._running, self._accounts
        if running is None:
            return Counters(emitted=accounts.emitted, dropped=accounts.losses())
        spool_bytes = running.journal.spool_bytes
        with accounts.lock:
            return Counters(
                emitted=accounts.emitted,
                spooled=accounts.spooled,
                acknowledged=accounts.acknowledged,
                degraded=running.journal.degraded_events,
                recovered=running.courier.adopter.events,
                frames=running.courier.sender.frames_sent,
                dropped=accounts.losses_held(),
                queued_bytes=self._inbox.bytes,
                spool_bytes=spool_bytes,
                is_degraded=running.journal.degraded,
                reduced=dict(self._inbox.ladder.reduced),
                step=self._inbox.ladder.step,
                steps_entered=dict(self._inbox.ladder.entered),
                sealed=running.writer.sealer.sealed,
                unsealed=dict(running.writer.sealer.unsealed),
                captured=dict(running.writer.capture.captured),
                policy_loads=running.writer.capture.loads,
                is_policy_broken=running.writer.capture.is_broken,
                break_glass=running.writer.capture.raised,
            )

    def leave_after_fork(self) -> None:
        """In a child process: what is queued or spooled belongs to the parent, which sends it."""
        if self._running is not None:
            self._running.courier.leave_after_fork()
        self._reset()


def _outcome(waiter: Future[None], until: float) -> str:
    try:
        waiter.result(max(0.0, until - time.monotonic()))
    except FutureTimeoutError:
        waiter.cancel()  # still queued: the writer drops and counts it
        return "not_durable"
    except NotDurable as error:
        return error.reason
    return ""


class _Running:
    """What a recorder has in a process once it has started."""

    def __init__(
        self, settings: ProducerSettings, accounts: Accounts, inbox: Inbox, publisher: Publisher
    ) -> None:
        self.journal = Journal(settings, time.time_ns())
        self._ending = Ending()
        self.courier = Courier(settings, accounts, self.journal, publisher, self._ending)
        self.writer = Writer(
            settings, accounts, inbox, self.journal, self._ending, self.courier.wake
        )
        self._write_thread = threading.Thread(
            target=self.writer.run, name="gatebook-writer", daemon=True
        )
        self._courier_thread = threading.Thread(
            target=self.courier.run,
            args=(self._write_thread.is_alive, self._note_end),
            name="gatebook-courier",
            daemon=True,
        )
        self._write_thread.start()
        self._courier_thread.start()

    def _note_end(self, whole: bool) -> None:
        self.writer.note_losses(closed=whole, always=True)

    def end(self, deadline_seconds: float) -> None:
        """Let both threads come to their end; returns soon after the deadline at the latest."""
        self._ending.begin(deadline_seconds)
        self.courier.wake()
        for thread in (self._write_thread, self._courier_thread):
            thread.join(deadline_seconds + _JOIN_GRACE_SECONDS)


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder.leave_after_fork()


def _close_at_exit(reference: weakref.ref[Recorder]) -> None:
    recorder = reference()
    if recorder is not None:
        recorder.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
metrics.register()
