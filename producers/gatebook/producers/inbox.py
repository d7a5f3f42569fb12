"""The inbox: events between the request and the writer, bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from gatebook.producers.accounts import Accounts, NotDurable
from gatebook.producers.ids import uuid7
from gatebook.producers.ladder import BEGINS_AT, METADATA, Ladder, lighter

Event = Mapping[str, Any]
APPROXIMATE_EVENT_BYTES = 2048  # of a mapping in memory, without its content
BATCH_EVENTS = 500
_ACTIVE_SECONDS = 1.0
_LEAST_POLL_SECONDS = 0.001
_HURRIES_FROM = 0.1  # of the memory


class Draft(Protocol):
    """An event that is still to be built, in the writer thread rather than in the request."""

    @property
    def size_bytes(self) -> int:
        """Memory it holds, approximately."""

    def build(self) -> Event:
        """The event, without event.id and event.created. Called once. Whatever it raises, the
        event counts as dropped for invalid_event."""

    # A draft that may come twice, or that another event names, has `event_id` as well.


class Entry(NamedTuple):
    """One event on its way to the writer. `waiter` learns whether it became durable. Without
    `event_id` the draft's own is taken, or a new one."""

    event: Event | Draft
    event_id: str
    created: int
    size: int
    waiter: Future[None] | None


class Inbox:
    """A queue that refuses the newest event where it is full, and never gives up the oldest.

    `memory_bytes` tells what stands in memory behind the queue: both share one bound.
    """

    def __init__(self, accounts: Accounts, max_bytes: int, memory_bytes: Callable[[], int]) -> None:
        self._accounts = accounts
        self._lock = accounts.lock
        self._max_bytes = max_bytes
        # Bytes in the queue below which the ladder has no say, as of when the writer last looked.
        self._calm_below = max_bytes * BEGINS_AT[METADATA]
        self._memory_bytes = memory_bytes
        self.ladder = Ladder()
        self._work = threading.Condition(self._lock)
        self._queue: deque[Entry] = deque()
        self._reader_idle = False
        self._idle_seconds = _ACTIVE_SECONDS  # since the reader found something
        self._urgent = False
        self.closed = False
        self.blocked_reason = ""  # why the writer cannot go on, if so
        self.events = self.bytes = 0  # in the queue, or taken and not settled yet

    def put(self, event: Event | Draft, waiter: Future[None] | None) -> str:
        """Take an event or count it as dropped; its id. Takes microseconds."""
        event, taken = lighter(event, self.ladder.step)
        event_id = getattr(event, "event_id", "") or uuid7()
        self._take(Entry(event, event_id, time.time_ns(), approximate_size(event), waiter), taken)
        return event_id

    def put_draft(self, draft: Draft) -> None:
        """`put` of a draft whose id nobody asks for yet: the writer's thread makes it.

        What `_take` does where there is plenty of room, in one step: every request passes here.
        """
        size = APPROXIMATE_EVENT_BYTES + draft.size_bytes
        with self._lock:
            if self.bytes + size < self._calm_below and not (self.ladder.step or self.closed):
                self._accounts.emitted += 1
                self._queue.append(Entry(draft, "", time.time_ns(), size, None))
                self.bytes += size
                self.events += 1
                if self._reader_idle or len(self._queue) == BATCH_EVENTS:
                    self._wake()
                return
        taken = lighter(draft, self.ladder.step)[1]
        size = APPROXIMATE_EVENT_BYTES + draft.size_bytes
        self._take(Entry(draft, "", time.time_ns(), size, None), taken)

    def _take(self, entry: Entry, taken: str) -> None:
        with self._lock:
            self._accounts.emitted += 1
            refused = self._refuse(entry.size)
            if refused:
                self._accounts.drop_held(refused)
            else:
                self._add(entry)
                if taken:
                    self.ladder.reduced_held(taken)
        if refused and entry.waiter is not None:
            entry.waiter.set_exception(NotDurable(refused))

    def _refuse(self, size: int) -> str:
        if self.closed:
            return "closed"
        used = self.bytes + self._memory_bytes() + size
        self.ladder.see_memory_held(used / self._max_bytes)
        if used <= self._max_bytes:
            return ""
        return self.blocked_reason or "buffer_full"

    def _add(self, entry: Entry) -> None:
        self._queue.append(entry)
        self.bytes += entry.size
        self.events += 1
        if entry.waiter is not None:
            self._urgent = True
        if self._reader_idle or self._urgent or len(self._queue) == BATCH_EVENTS:
            self._wake()

    def _wake(self) -> None:
        self._reader_idle = False  # told once is enough
        self._work.notify()

    def hurry(self) -> None:
        """Let the reader not wait for company."""
        with self._lock:
            self._urgent = True
            self._work.notify()

    def close(self) -> None:
        """Take nothing more. What is queued is still read."""
        with self._lock:
            self.closed = True
            self._work.notify()

    def take(self, patience_seconds: float, linger_seconds: float) -> list[Entry]:
        """The next entries, perhaps none: waits for the first, and a little for company.

        While events come, it looks once a linger by itself: to be woken by every first one would
        cost the request that brings it more than all the rest.
        """
        with self._lock:
            if linger_seconds >= _LEAST_POLL_SECONDS and self._idle_seconds < _ACTIVE_SECONDS:
                self._work.wait_for(self._enough, linger_seconds)
                self._idle_seconds += linger_seconds
            else:
                self._wait_for_first(patience_seconds, linger_seconds)
            self._urgent = False
            count = min(len(self._queue), BATCH_EVENTS)
            if count:
                self._idle_seconds = 0.0
            return [self._queue.popleft() for _ in range(count)]

    def _wait_for_first(self, patience_seconds: float, linger_seconds: float) -> None:
        self._reader_idle = True
        self._work.wait_for(lambda: self._queue or self.closed, patience_seconds)
        self._reader_idle = False
        if self._queue:
            self._work.wait_for(self._enough, linger_seconds)

    def _enough(self) -> bool:
        return self._urgent or self.closed or len(self._queue) >= BATCH_EVENTS

    @property
    def hurries(self) -> bool:
        """Whether the reader should do nothing but read."""
        return self.closed or self.bytes > self._max_bytes * _HURRIES_FROM

    def settled_held(self, events: int, size: int) -> None:
        """Entries that were taken need no memory any more. Called with the lock held."""
        self.events -= events
        self.bytes -= size
        self.see_memory_held()

    def see_memory_held(self) -> None:
        """Tell the ladder how full memory is. Called with the lock held."""
        behind = self._memory_bytes()
        self._calm_below = self._max_bytes * BEGINS_AT[METADATA] - behind
        self.ladder.see_memory_held((self.bytes + behind) / self._max_bytes)

    def take_waiting_held(self) -> list[Entry]:
        """Take out the entries somebody waits for. Called with the lock held."""
        waiting = [entry for entry in self._queue if entry.waiter is not None]
        if waiting:
            self._queue = deque(entry for entry in self._queue if entry.waiter is None)
        return waiting


def approximate_size(event: Event | Draft) -> int:
    """Memory an event holds, roughly and fast."""
    if isinstance(event, dict):
        content = event.get("content")
        return APPROXIMATE_EVENT_BYTES + (len(content) if isinstance(content, bytes) else 0)
    size = getattr(event, "size_bytes", 0)
    return APPROXIMATE_EVENT_BYTES + (size if isinstance(size, int) else 0)
