"""The courier: keeps frames flowing, ours and those of dead processes. One thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gatebook.producers.accounts import Accounts
from gatebook.producers.config import ProducerSettings
from gatebook.producers.ending import Ending
from gatebook.producers.journal import Journal
from gatebook.producers.publisher import Publisher
from gatebook.producers.sender import BACKOFF_SECONDS, Adopter, FrameSender
from gatebook.producers.spool import SpooledEvent
from gatebook.schemas.errors import Fatal, GatebookError

log = logging.getLogger("gatebook.producers")

IDLE_SECONDS = 0.5
_LOSS_STATEMENT_SECONDS = 1.0


class OwnSource:
    """This process's journal as the sender sees it; keeps the accounts."""

    def __init__(self, accounts: Accounts, journal: Journal) -> None:
        self._accounts = accounts
        self._journal = journal
        self._corrupt_counted = 0
        self._passed = 0
        self.producer_id = journal.producer_id
        self.epoch = journal.epoch

    def losses(self) -> dict[str, int]:
        """Drops of this epoch so far."""
        return self._accounts.losses()

    def lose(self, reason: str, count: int) -> None:
        """Count numbered events that cannot be sent."""
        # Their numbers will be passed over, which is not an acknowledgement.
        self._accounts.settle(-count, {reason: count})

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
            self._accounts.settle(count, {})


class Pulse:
    """When to send an empty frame, and when to look for abandoned spools."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._told_at = float("-inf")
        self._told: dict[str, int] = {}
        self._looked_at = float("-inf")

    def told(self, losses: dict[str, int]) -> None:
        """A frame with these losses was acknowledged."""
        self._told_at, self._told = time.monotonic(), losses

    def due(self, losses: dict[str, int]) -> bool:
        """Whether an empty frame should go out: the first, a heartbeat, or new losses."""
        age = time.monotonic() - self._told_at
        news = losses != self._told
        return age >= self._interval_seconds or (news and age >= _LOSS_STATEMENT_SECONDS)

    def due_for_adoption(self) -> bool:
        """At the start, and as often as a heartbeat."""
        now = time.monotonic()
        if now - self._looked_at < self._interval_seconds:
            return False
        self._looked_at = now
        return True


class Courier:
    """From the journal to the broker."""

    def __init__(
        self,
        settings: ProducerSettings,
        accounts: Accounts,
        journal: Journal,
        publisher: Publisher,
        ending: Ending,
    ) -> None:
        self._accounts = accounts
        self._journal = journal
        self._publisher = publisher
        self._ending = ending
        self._source = OwnSource(accounts, journal)
        self._pulse = Pulse(settings.heartbeat_interval_seconds)
        self._sendable = threading.Event()
        self.sender = FrameSender(settings, publisher)
        self.adopter = Adopter(settings, self.sender)

    def wake(self) -> None:
        """There is something to send, or the end has come."""
        self._sendable.set()

    def run(self, writing: Callable[[], bool], note_end: Callable[[bool], None]) -> None:
        """Until the end's time is over, or everything is written and sent.

        `writing` tells whether events may still be added; `note_end(whole)` is told at last
        whether everything that was numbered is published or spooled.
        """
        while not self._finished(writing):
            try:
                self._step()
            except Fatal as error:  # librdkafka or the registry refuses us; events stay spooled
                if self.sender.last_error != str(error):  # said once
                    log.error("%s; %s", error, error.next_step)
                self.sender.last_error = str(error)
                self._ending.pause(BACKOFF_SECONDS)
            except Exception:
                log.exception("the courier goes on after an error of its own")
                self._ending.pause(BACKOFF_SECONDS)
        self._finish(writing, note_end)

    def _finished(self, writing: Callable[[], bool]) -> bool:
        if self._ending.over():
            return True
        return self._ending.begun() and not writing() and self._journal.drained

    def _step(self) -> None:
        """One frame of ours and one of an adopted spool; an empty one when there is neither."""
        sent = self.sender.send(self._source, self._ending.over)
        if sent:
            self._pulse.told(self._source.losses())
        if not self._adopt() and not sent:
            self._rest()

    def _adopt(self) -> bool:
        if self._ending.begun():
            return False
        if self._pulse.due_for_adoption():
            self.adopter.look()
        return self.adopter.step(self._ending.begun)

    def _rest(self) -> None:
        if not self._journal.drained:
            self._ending.pause(BACKOFF_SECONDS if self.sender.last_error else 0.0)
            return
        losses = self._source.losses()
        if self._pulse.due(losses) and self._say("open"):
            self._pulse.told(losses)
        self._sendable.wait(IDLE_SECONDS)
        self._sendable.clear()

    def _say(self, state: str) -> bool:
        """An empty frame: a heartbeat, a loss statement or the end."""
        number = self._journal.first_unacknowledged
        return self.sender.send_frame(self._source, number, [], self._ending.over, state)

    def _finish(self, writing: Callable[[], bool], note_end: Callable[[bool], None]) -> None:
        """Say `closed` if everything is sent; else leave the spool to the next process."""
        whole = self._journal.drained and not writing()
        said = whole and self._say_closed()
        self._publisher.close(min(1.0, self._ending.left_seconds()))
        self.adopter.close()
        lost = self._journal.memory_events
        self._accounts.settle(0, {"shutdown": lost} if lost else {})
        note_end(not lost and not writing())
        # If we die here, the spool is adopted: it is drained, or holds what was not acknowledged.
        try:
            self._journal.remove() if said else self._journal.close()
        except OSError as error:
            log.warning("the spool could not be removed: %s", error.strerror)

    def _say_closed(self) -> bool:
        try:
            return self._say("closed")
        except GatebookError as error:
            log.warning("the end of this epoch could not be said: %s", error)
            return False

    def leave_after_fork(self) -> None:
        """In a child process: let go of the parent's things without ending them there."""
        self._publisher.leave_after_fork()
        self.adopter.close()
        self._journal.close()
