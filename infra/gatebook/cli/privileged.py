"""Privileged acts of operators are events themselves, durable before anything is done or shown.

One that then fails is told of by a second event of the same action: outcome failure, why, and in
the attribute `recorded_as` the id of the first.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gatebook.producers.policy.notices import ControlEvent
from gatebook.schemas.errors import Fatal, GatebookError

if TYPE_CHECKING:
    from gatebook.processors.subjects.erasure import Privileged
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

NAMESPACE_PRIVILEGED = uuid.UUID("5a1d1f6e-0c52-4c4b-9a6e-6f0a7c2b9d31")
SERVICE_NAME = "gatebook-operator"
FLUSH_SECONDS = 5.0
# Attributes that hold what the operator wrote; the others are tags, ids and digests of ours.
WRITTEN = ("reason", "hold", "query", "name", "tenant", "trace")
# Acts that say that the one before has come to its end.
ENDS = frozenset({"subject.erased", "retention.applied"})
_REASONS = {2: "invalid_request", 3: "unavailable", 4: "forbidden", 5: "unavailable"}


class NotRecorded(GatebookError):
    """The act could not be recorded, so it was not done."""

    exit_code = 6
    next_step = "see that GATEBOOK_SPOOL_DIR (default: spool in GATEBOOK_HOME) can be written"


class _Act(ControlEvent):
    """A draft for the recorder, with an id of its own: told twice, it is one event. No capture
    policy applies to it, so none can keep an act from being recorded."""

    def __init__(self, event: dict[str, Any], event_id: str) -> None:
        self._event = event
        self.event_id = event_id

    @staticmethod
    def scrubbed(
        event: Mapping[str, Any], scrub: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The event with what the operator wrote scrubbed; tags and digests stay."""
        attributes = event["attributes"]
        written = {name: attributes[name] for name in WRITTEN if name in attributes}
        clean = scrub({"attributes": written})["attributes"]
        return {**event, "attributes": {**attributes, **clean}}

    def build(self) -> dict[str, Any]:
        """See inbox.Draft."""
        return self._event


class Witness:
    """Records privileged acts through a recorder of its own. Close it in the end."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._under_way: Privileged | None = None

    async def record(self, act: Privileged) -> None:
        """Returns once the act's event is fsynced. Raises NotRecorded."""
        await asyncio.to_thread(self.record_now, act)

    def record_now(self, act: Privileged) -> None:
        """The same, outside an event loop."""
        self._emit(_Act(event_of(act), event_id_of(act)))
        self._under_way = None if act.action in ENDS else act

    def ended(self) -> None:
        """What was recorded last has come to its end: what fails from now on is no matter of it."""
        self._under_way = None

    def failed(self, error: BaseException) -> None:
        """Tell that the act under way ended by this error. Whoever says no, or stops the command,
        makes no failure. Never raises: where it cannot be recorded, the command says so."""
        act, reason = self._under_way, failure_of(error)
        if act is None or not reason:
            return
        self._under_way = None
        event = failed_event_of(act, reason, recorded_as=event_id_of(act))
        try:
            self._emit(_Act(event, event_id_of(act, "failed")))
        except NotRecorded:
            click.echo("gatebook: that this failed could not be recorded", err=True)

    def refused(self, act: Privileged, reason: str) -> None:
        """Record an act that was looked into first and is not done. Raises NotRecorded."""
        self._emit(_Act(failed_event_of(act, reason), event_id_of(act)))

    def _emit(self, draft: _Act) -> None:
        from gatebook.producers.accounts import NotDurable

        try:
            self._started().emit_durable(draft)
        except NotDurable as error:
            raise NotRecorded(f"this cannot be recorded ({error.reason}): it is not done") from None
        except Fatal as error:
            raise NotRecorded(f"this cannot be recorded ({error}): it is not done") from None

    def _started(self) -> Recorder:
        from gatebook.producers.recorder import Recorder

        if self._recorder is None:
            self._recorder = Recorder(_settings())
        return self._recorder

    def close(self) -> None:
        """Give Kafka a moment to take the events; what it has not taken waits in the spool."""
        if self._recorder is not None:
            self._recorder.close(FLUSH_SECONDS)


@contextmanager
def witnessed(act: Privileged) -> Iterator[None]:
    """An act that is recorded before what stands within is done, and that it failed, if it does.
    Raises NotRecorded."""
    witness = Witness()
    try:
        witness.record_now(act)
        yield
    except Exception as error:
        witness.failed(error)
        raise
    finally:
        witness.close()


def refuse(act: Privileged, reason: str) -> None:
    """Record an act that is not done, as one that failed. Raises NotRecorded."""
    witness = Witness()
    try:
        witness.refused(act, reason)
    finally:
        witness.close()


def failure_of(error: BaseException) -> str:
    """Why an act failed, as event.reason tells it; empty where somebody stopped it."""
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError | click.Abort):
        return ""
    if told := getattr(error, "event_reason", ""):
        return str(told)
    return _REASONS.get(getattr(error, "exit_code", 1), "server_error")


def _settings() -> ProducerSettings:
    """The producer's settings, with a durable mode; nothing of an act is content."""
    import msgspec

    from gatebook.producers.config import ProducerSettings

    settings = ProducerSettings.from_env()
    return msgspec.structs.replace(
        settings, service_name=SERVICE_NAME, delivery_mode="strict", capture_level="metadata"
    )


def operator() -> str:
    """Who runs this command, by the account of the operating system."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without a name, as in many containers
        return f"uid-{os.getuid()}"


def act(action: str, details: Mapping[str, str], name: str = "") -> Privileged:
    """An act of now, by the operator."""
    from gatebook.processors.subjects.erasure import Privileged

    now = time.time_ns()
    return Privileged(action, name or str(uuid.uuid4()), operator(), now, details)


def event_id_of(act: Privileged, end: str = "") -> str:
    """The id of an act's event: told twice, it is one."""
    name = f"{act.action}|{act.name}|{end}" if end else f"{act.action}|{act.name}"
    return str(uuid.uuid5(NAMESPACE_PRIVILEGED, name))


def failed_event_of(act: Privileged, reason: str, recorded_as: str = "") -> dict[str, Any]:
    """The access event of an act that failed: a refusal, as the API records its own."""
    event = event_of(act)
    event["timestamp"] = event["event"]["end"] = time.time_ns()
    event["event"] |= {
        "category": "database",
        "type": "denied",
        "outcome": "failure",
        "reason": reason,
    }
    if recorded_as:
        event["attributes"]["recorded_as"] = recorded_as
    return event


def event_of(act: Privileged) -> dict[str, Any]:
    """The access event of a privileged act."""
    return {
        "timestamp": act.at_ns,
        "event": {
            "kind": "event",
            "category": "iam",
            "type": "admin",
            "action": act.action,
            "outcome": "success",
            "end": act.at_ns,
            "duration": 0,
        },
        "user": {"id": act.by},
        "service": {"name": SERVICE_NAME},
        "gatebook": {
            "component": "cli",
            "phase": "terminal",
            "identity": {"method": "os_account", "assurance": "asserted"},
            "capture": {"level": "metadata"},
        },
        "attributes": dict(act.details),
    }
