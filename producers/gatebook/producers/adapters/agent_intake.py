"""What `gatebook agent` does with a body: events out of it, checked, into the recorder."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gatebook.producers.adapters import agent_metrics as metrics
from gatebook.producers.adapters.outside import OutsideEvent, Policy
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.intents import terminal_id

log = logging.getLogger("gatebook.producers")

MAX_EVENTS = 10_000
# Reasons for which the same event may go in a little later; the others need somebody's eyes.
FULL_REASONS = frozenset({"buffer_full", "spool_full"})
INVALID_REASONS = frozenset({"invalid_event", "oversize"})
_ERROR_PLACE = re.compile(r"\(byte (\d+)\)")


class BadBody(Exception):
    """A body of which no event can be read; the text says why, without a value."""


class Item(msgspec.Struct, frozen=True):
    """One event as it was sent: where it stood, and what it is or why it cannot be read."""

    position: str
    value: Any = None
    problem: str = ""


def read_items(body: bytes, content_type: str) -> list[Item]:
    """The events of a body: an array, lines, or one object. Raises BadBody."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        return _bounded(_lines(body))
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if b"\n" not in body.strip() or body.lstrip()[:1] != b"{":
            raise BadBody(_not_json(error)) from None
        return _bounded(_lines(body))
    if isinstance(value, list):
        return _bounded([Item(f"item {n}", one) for n, one in enumerate(value, 1)])
    return [Item("item 1", value)]


def _lines(body: bytes) -> list[Item]:
    items = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            items.append(_line(f"line {number}", line))
    return items


def _line(position: str, line: bytes) -> Item:
    try:
        return Item(position, msgspec.json.decode(line))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Item(position, None, _not_json(error))


def _not_json(error: Exception) -> str:
    place = _ERROR_PLACE.search(str(error))
    return f"is not JSON (byte {place[1]})" if place else "is not JSON"


def _bounded(items: list[Item]) -> list[Item]:
    if not items:
        raise BadBody("holds no event")
    if len(items) > MAX_EVENTS:
        raise BadBody(f"holds more than {MAX_EVENTS} events")
    return items


class Result(msgspec.Struct, omit_defaults=True):
    """What became of one event. status: accepted (durable, or in memory where the delivery mode
    is best_effort), invalid (never send it again as it is), retry (send it again)."""

    position: str
    status: str
    id: str = ""
    error: str = ""


class Answer(msgspec.Struct):
    """An answer to POST /v1/events."""

    status: int
    results: list[Result] = []

    def body(self) -> bytes:
        """As JSON."""
        names = [result.status for result in self.results]
        counts = {name: names.count(name) for name in ("accepted", "invalid", "retry")}
        return msgspec.json.encode({**counts, "results": self.results})


class Intake:
    """Events into the recorder. Blocking: runs in a thread."""

    def __init__(self, recorder: Recorder, policy: Policy) -> None:
        self._recorder = recorder
        self._policy = policy
        self._best_effort = recorder.settings.delivery_mode == "best_effort"

    def take(self, body: bytes, content_type: str) -> Answer:
        """Check and record. Returns when everything accepted is durable."""
        items = read_items(body, content_type)
        results, events = [], []
        for item in items:
            result, event = self._admit(item)
            results.append(result)
            if event is not None:
                events.append((result, event))
        self._record(events)
        for result in results:
            metrics.EVENTS.labels(result.error if result.status == "retry" else result.status).inc()
        return Answer(_status_of(results), results)

    def _admit(self, item: Item) -> tuple[Result, OutsideEvent | None]:
        if item.problem:
            return Result(item.position, "invalid", "", item.problem), None
        try:
            return Result(item.position, "accepted"), self._policy.admit(item.value)
        except RecordRejected as error:
            return Result(item.position, "invalid", "", error.detail), None
        except Exception as error:  # one event must not cost its neighbours
            log.error("an event could not be checked: %s", type(error).__name__)
            return Result(item.position, "invalid", "", "cannot be read"), None

    def _record(self, events: Sequence[tuple[Result, OutsideEvent]]) -> None:
        given = [event for _, event in events]
        if self._best_effort:
            outcomes = [(self._recorder.emit(event), "") for event in given]
        else:
            # If we die before the answer is sent, the client sends again: events with an id of
            # their own are then recognised by the index, others stand there twice.
            outcomes = self._recorder.emit_all_durable(given)
        for (result, _), (event_id, reason) in zip(events, outcomes, strict=True):
            # An intent is told the id that its end is to have.
            result.id, result.error = terminal_id(event_id) or event_id, reason
            if reason:
                result.status = "invalid" if reason in INVALID_REASONS else "retry"

    def full(self) -> bool:
        """Whether there is no room, before anything is read: in best_effort only the newest
        event's drop would tell."""
        if not self._best_effort:
            return False
        return self._recorder.counters().queued_bytes > (
            self._recorder.settings.memory_buffer_max_bytes * 9 // 10
        )

    def works(self) -> bool:
        """Whether an event sent now could be expected to be accepted."""
        return not self.full() if self._best_effort else self._recorder.accepts_durably()


def _status_of(results: Sequence[Result]) -> int:
    reasons = {result.error for result in results if result.status == "retry"}
    if reasons & FULL_REASONS:
        return 429
    if reasons:
        return 503
    return 200 if any(result.status == "accepted" for result in results) else 400


def make_intake(settings: ProducerSettings, recorder: Recorder | None = None) -> Intake:
    """An intake with a recorder over these settings. Raises Fatal."""
    recorder = recorder or Recorder(settings)
    policy = Policy(settings, settings.digest_secret(), "agent", recorder.wants_content)
    return Intake(recorder, policy)
