"""The writer: encodes each event once and has the journal number and keep it. One thread."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from gatebook.producers.accounts import Accounts, NotDurable
from gatebook.producers.breath import Breath
from gatebook.producers.config import ProducerSettings
from gatebook.producers.ending import Ending
from gatebook.producers.ids import uuid7
from gatebook.producers.inbox import Entry, Inbox
from gatebook.producers.journal import Journal
from gatebook.producers.ladder import METADATA, REASON, say
from gatebook.producers.policy.capture import CapturePolicy
from gatebook.producers.policy.notices import ControlEvent
from gatebook.producers.scrub import Scrubber
from gatebook.producers.sealer import Sealer
from gatebook.producers.sender import EVENT_OVERHEAD_BYTES
from gatebook.producers.shrink import shrink_event, without_content
from gatebook.producers.spool import SpoolFull, SpoolUnavailable
from gatebook.schemas.codec import encode_event
from gatebook.schemas.errors import RecordRejected

log = logging.getLogger("gatebook.producers")

IDLE_SECONDS = 0.5
_HOLD_SECONDS = 0.2


class _Encoded(NamedTuple):
    data: bytes
    size: int
    waiter: Future[None] | None


class Writer:
    """From the inbox to the journal. `wake_sender` is called when there is something to send."""

    def __init__(
        self,
        settings: ProducerSettings,
        accounts: Accounts,
        inbox: Inbox,
        journal: Journal,
        ending: Ending,
        wake_sender: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._inbox = inbox
        self._journal = journal
        self._ending = ending
        self._wake_sender = wake_sender
        self._service = service_of(settings)
        self.capture = CapturePolicy(settings, self._say)
        self.scrubber = Scrubber(settings.digest_secret)
        self.sealer = Sealer(settings)
        self._breath = Breath()
        self._noted: dict[str, int] = {}
        self._noted_at = 0.0

    def run(self) -> None:
        """Until the inbox is closed and empty."""
        while True:
            self.capture.look()
            entries = self._inbox.take(IDLE_SECONDS, self._settings.linger_seconds)
            if not entries and self._inbox.closed:
                break
            for part in self._parts(self._encode(entries)):
                self._store_guarded(part)
            self.note_losses()
            self._note_step()
        self._finish()
        self._wake_sender()

    # -- encoding -----------------------------------------------------------------------------

    def _encode(self, entries: Sequence[Entry]) -> list[_Encoded]:
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
            self._breath.take(hurried=self._inbox.hurries)
        return encoded

    def _say(self, event: ControlEvent) -> None:
        """An event of our own, like any other but that no policy applies to it."""
        if not self._inbox.closed:
            self._inbox.put(event, None)

    def _encode_one(self, entry: Entry) -> bytes:
        """Build and encode an event; RecordRejected with a DropReason where that cannot be."""
        event = self.capture.hold(entry.event, _completed(entry, self._service))
        event = self._scrubbed(event, entry.event)
        if event.get("content") and self._inbox.ladder.step >= METADATA:
            event = without_content(event, REASON)
            with self._accounts.lock:
                self._inbox.ladder.reduced_held("content")
        if event.get("content"):
            event = self.sealer.seal(event)  # the last step with plaintext in it
        data = encode_event(event)
        limit = self._settings.event_max_bytes - EVENT_OVERHEAD_BYTES
        for _ in range(2):  # first without content, then with the main groups only
            if len(data) <= limit:
                return data
            data = shrink_event(data, "oversize") or data
        if len(data) > limit:
            raise RecordRejected("oversize")
        return data

    def _scrubbed(self, event: dict[str, Any], given: Any) -> dict[str, Any]:
        """Without secrets beside the content. What cannot be looked at must not go on."""
        scrub = self.scrubber.scrubbed
        try:
            return given.scrubbed(event, scrub) if isinstance(given, ControlEvent) else scrub(event)
        except Exception as error:
            raise RecordRejected("invalid_event", type(error).__name__) from None

    def _parts(self, encoded: Sequence[_Encoded]) -> list[list[_Encoded]]:
        """Cut a batch so that each part fits a frame's bytes: then it fits the spool as well."""
        parts: list[list[_Encoded]] = []
        room = 0
        for item in encoded:
            if not parts or len(item.data) > room:
                parts.append([])
                room = self._settings.frame_max_bytes
            parts[-1].append(item)
            room -= len(item.data)
        return parts

    # -- keeping ------------------------------------------------------------------------------

    def _store_guarded(self, batch: list[_Encoded]) -> None:
        """An error of our own costs this batch, not the writer."""
        try:
            self._store(batch)
        except Exception:
            log.exception("the writer goes on after an error of its own")
            for item in batch:
                self._give_up(item.size, item.waiter, "spool_unavailable")

    def _store(self, batch: list[_Encoded]) -> None:
        """Keep a batch. Where the spool refuses: waiters are told at once, the others are held
        here until there is room, while the inbox fills up behind them."""
        while batch:
            try:
                durable = self._journal.append([item.data for item in batch])
            except (SpoolFull, SpoolUnavailable) as error:
                batch = self._held(batch, error.reason)
                self.note_losses()
                self._note_step()
            else:
                self._stored(batch, durable)
                return

    def _stored(self, batch: Sequence[_Encoded], durable: bool) -> None:
        with self._accounts.lock:
            self._inbox.blocked_reason = ""
            self._inbox.settled_held(len(batch), sum(item.size for item in batch))
            self._accounts.spooled += len(batch) if durable else 0
            self._accounts.changed_held()
        self._wake_sender()
        for item in batch:
            if item.waiter is not None:
                if durable:
                    item.waiter.set_result(None)
                else:  # kept in memory and published from there, but that was not the question
                    item.waiter.set_exception(NotDurable("spool_unavailable"))

    def _held(self, batch: Sequence[_Encoded], reason: str) -> list[_Encoded]:
        """What is left of a refused batch, after a while; nothing when time is over."""
        with self._accounts.lock:
            self._inbox.blocked_reason = reason
            queued = self._inbox.take_waiting_held()
        self._fail_queued(queued, reason)
        over = self._ending.over()
        kept = [] if over else [item for item in batch if item.waiter is None]
        for item in batch:
            if over or item.waiter is not None:
                self._give_up(item.size, item.waiter, reason)
        if kept:
            self._accounts.wait_for_progress(_HOLD_SECONDS)
        return kept

    def _fail_queued(self, entries: Sequence[Entry], reason: str) -> None:
        for entry in entries:
            waiter = entry.waiter
            alive = waiter is not None and waiter.set_running_or_notify_cancel()
            self._give_up(entry.size, waiter if alive else None, reason)

    def _give_up(self, size: int, waiter: Future[None] | None, reason: str) -> None:
        with self._accounts.lock:
            self._inbox.settled_held(1, size)
            self._accounts.drop_held(reason)
            self._accounts.changed_held()
        if waiter is not None and not waiter.done():
            waiter.set_exception(NotDurable(reason))

    def note_losses(self, *, closed: bool = False, always: bool = False) -> None:
        """Keep the losses where a recovery finds them: if they changed, a few times a second."""
        losses = self._accounts.losses()
        due = losses != self._noted and time.monotonic() - self._noted_at >= _HOLD_SECONDS
        if due or always:
            self._noted, self._noted_at = losses, time.monotonic()
            self._journal.note(losses, closed=closed)

    def _note_step(self) -> None:
        """Look how full the buffers are, and log what changed."""
        ladder = self._inbox.ladder
        with self._accounts.lock:
            ladder.see_spool_held(self._journal.spool_bytes / self._settings.spool_max_bytes)
            self._inbox.see_memory_held()
            unsaid = ladder.take_unsaid_held()
        say(unsaid)

    def _finish(self) -> None:
        """The inbox is empty for good. Make durable what stands in memory, if it can be."""
        if self._settings.delivery_mode != "best_effort":
            try:
                self._journal.move_to_file()
            except (SpoolFull, SpoolUnavailable) as error:
                log.error("%s; events stand in memory at the end", error)
        self.note_losses(closed=not self._journal.memory_events, always=True)


def service_of(settings: ProducerSettings) -> dict[str, Any]:
    """The `service` group of events that have none."""
    return {
        "name": settings.service_name,
        "version": settings.service_version,
        "environment": settings.service_environment,
        "node": {"name": f"{socket.gethostname()}:{os.getpid()}"},
    }


def _completed(entry: Entry, service: Mapping[str, Any]) -> dict[str, Any]:
    """The event with its id and the time it was accepted; built first, if it is a draft."""
    try:
        given = entry.event
        event = given if isinstance(given, Mapping) else given.build()
        event_id = entry.event_id or getattr(given, "event_id", "") or uuid7()
        inner = {**(event.get("event") or {}), "id": event_id, "created": entry.created}
        return {**event, "event": inner, "service": event.get("service") or service}
    except Exception as error:  # whatever a caller hands over must not stop the writer
        raise RecordRejected("invalid_event", type(error).__name__) from None
