"""What is looked at, and by whom, goes into the log that is looked at.

`RecordedAudit` is the search service's Audit; `looked` records a look by a command: on the disk
before the first byte of its output. Where it cannot be recorded, nothing is shown; Kafka is not
waited for. Acts that show or take content are recorded by `privileged` or `record`, and are not
done where that cannot be.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.first_output import before_first_output
from gatebook.cli.privileged import SERVICE_NAME, operator
from gatebook.processors.serve.audit import FAILURE, SUCCESS, Act, Unrecorded
from gatebook.producers.policy.notices import ControlEvent
from gatebook.schemas.errors import GatebookError, WrongSetting

if TYPE_CHECKING:
    from gatebook.processors.serve.access.who import Caller
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

# A command waits so long at its end for Kafka; what Kafka has not by then waits in the spool for
# the next producer of this account.
COMMAND_FLUSH_SECONDS = 0.3
# Output waits so long at most for the look to be on the disk.
START_SECONDS = 5.0
# Who waits for events has looked after so long, whether some came or not.
HOLD_SECONDS = 5.0
WAITING = frozenset({"search.tail"})
# What shows nothing of the log: an auditor's own copy is verified on any machine.
SHOWN_ANYWAY = frozenset({"archive.verify"})
# Looks at one thing, that fail where there is no such thing; a search that finds nothing does not.
OF_ONE = frozenset({"event.view", "event.around", "finding.view"})
_STATUS_OF_EXIT = {1: "404", 2: "400", 3: "503"}
MAX_DETAIL_CHARS = 8_192
# Attributes that hold codes and ids of ours; whatever else stands there, a person wrote.
OURS = frozenset(
    {"event", "token", "credential", "method", "refused", "status", "more_like_it", "reveal"}
    | {"act", "from", "to", "exit"}
)
LOGINS = frozenset({"login", "logout"})
_REASONS = {
    "401": "unauthenticated",
    "403": "forbidden",
    "404": "not_found",
    "429": "rate_limited",
    "503": "unavailable",
}
_IDENTITY_METHODS = {"api_token": "api_key"}


class Look(ControlEvent):
    """An act of an auditor, on its way. No capture policy applies to it."""

    def __init__(self, event: dict[str, Any]) -> None:
        self._event = event

    @staticmethod
    def scrubbed(
        event: Mapping[str, Any], scrub: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The event with what people wrote scrubbed: queries and reasons quote secrets, too."""
        attributes = event["attributes"]
        ours = {name: text for name, text in attributes.items() if name in OURS}
        rest = {name: text for name, text in attributes.items() if name not in OURS}
        clean = scrub({**event, "attributes": rest})
        return {**clean, "attributes": {**clean.get("attributes", {}), **ours}}

    def build(self) -> dict[str, Any]:
        """See inbox.Draft."""
        return self._event


class RecordedAudit:
    """An Audit over a recorder. Close the recorder in the end."""

    def __init__(self, recorder: Recorder, component: str = "serve") -> None:
        self._recorder = recorder
        self._component = component

    def note(self, act: Act) -> None:
        """See Audit. What the recorder cannot take is counted, and travels as a loss."""
        event = event_of(act, self._component)
        self._recorder.emit(Look(event))

    async def look(self, act: Act) -> None:
        """See Audit."""
        await self._durable(event_of(act, self._component))

    async def record(self, act: Act) -> None:
        """See Audit."""
        event = event_of(act, self._component)
        if act.action not in LOGINS:
            event["event"] |= {"category": "iam", "type": "admin"}
        await self._durable(event)

    async def _durable(self, event: dict[str, Any]) -> None:
        from gatebook.producers.accounts import NotDurable

        try:
            await self._recorder.emit_durable_async(Look(event))
        except NotDurable as error:
            raise Unrecorded(f"this cannot be recorded ({error.reason}): it is not done") from None


def event_of(act: Act, component: str) -> dict[str, Any]:
    """The access event of an act."""
    now = time.time_ns()
    category, kind = _category(act)
    event: dict[str, Any] = {
        "timestamp": now,
        "event": {
            "kind": "event",
            "category": category,
            "type": kind,
            "action": act.action,
            "outcome": act.outcome,
            "reason": _reason(act) if act.outcome == FAILURE else "",
            "end": now,
            "duration": 0,
        },
        "source": {"ip": act.http.address},
        "user_agent": {"original": act.http.user_agent},
        "url": {"path": act.http.route},
        "http": {"request": {"id": act.http.request_id, "method": act.http.method}},
        "service": {"name": SERVICE_NAME},
        "gatebook": {
            "component": component,
            "phase": "terminal",
            "identity": {"method": "anonymous", "assurance": "asserted"},
            "capture": {"level": "metadata"},
        },
        "attributes": {name: text[:MAX_DETAIL_CHARS] for name, text in act.details.items() if text},
    }
    if act.caller is not None:
        _name(event, act.caller)
    return event


def _name(event: dict[str, Any], caller: Caller) -> None:
    event["user"] = {"id": caller.id, "name": caller.name, "roles": sorted(caller.roles)}
    event["gatebook"]["identity"] = {
        "method": _IDENTITY_METHODS.get(caller.method, caller.method),
        "assurance": "asserted" if caller.method == "os_account" else "verified",
        "key_id": caller.credential_id if caller.method == "api_token" else "",
    }
    if caller.tenants is not None and len(caller.tenants) == 1:
        event["organization"] = {"id": next(iter(caller.tenants))}


def _category(act: Act) -> tuple[str, str]:
    """ECS category and type of what is not privileged: a look counts neither as a model call nor
    as one of the acts that page somebody."""
    category = "authentication" if act.action in LOGINS else "database"
    return category, "denied" if act.outcome == FAILURE else "access"


def _reason(act: Act) -> str:
    if act.action == "login":
        return "forbidden" if act.details.get("refused") == "no_role" else "unauthenticated"
    status = act.details.get("status", "")
    other = "invalid_request" if status.startswith("4") else "server_error"
    return _REASONS.get(status, other)


def service_settings() -> ProducerSettings:
    """The producer's settings for acts: durable, and without content. Raises Fatal."""
    import msgspec

    from gatebook.producers.config import ProducerSettings

    return msgspec.structs.replace(
        ProducerSettings.from_env(),
        service_name=SERVICE_NAME,
        delivery_mode="strict",
        capture_level="metadata",
        capture_policy="",
    )


def looked(action: str, **details: str) -> CommandLook:
    """Record a look by this command: on the disk before the first byte of its output, or before
    `commit` returns; else at its end, with how it ended. What fails after that is recorded once
    more, as a failure. Where it cannot be recorded, whoever writes output gets Unrecorded and
    nothing is shown, but of actions in SHOWN_ANYWAY."""
    # What a producer says of a broker that is away is no matter of this command: the spool has it.
    logging.getLogger("gatebook.producers").setLevel(logging.CRITICAL)
    look = CommandLook(action, details)
    look.start()
    click.get_current_context().find_root().call_on_close(look.close)
    before_first_output(look.commit)
    return look


def failure_of(action: str, error: BaseException | None) -> dict[str, str]:
    """What is recorded of a command that failed; empty for one that did what it was to do, also
    where it found nothing or what differs, somebody stopped it, or its reader had seen enough
    (`| head`)."""
    if isinstance(error, BrokenPipeError):
        return {}
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        code = int(getattr(error, "exit_code", isinstance(error, Exception)))
    is_answer = isinstance(error, SystemExit) or (
        isinstance(error, GatebookError) and hasattr(error, "exit_code")
    )
    if code == 0 or (code == 1 and is_answer and action not in OF_ONE):
        return {}
    is_known = code != 1 or is_answer
    return {"exit": str(code), "status": _STATUS_OF_EXIT.get(code, "500") if is_known else "500"}


class CommandLook(threading.Thread):
    """Records one look beside the command, which need not wait for libraries before it shows
    something. If we die before that, nothing was shown and nothing is recorded; if we die after
    it, the look stands in the spool, and the next producer of this account sends it."""

    def __init__(self, action: str, details: Mapping[str, str]) -> None:
        super().__init__(name="gatebook-look", daemon=True)
        self._action = action
        self._details = dict(details)
        self._recorder: Recorder | None = None
        self._wanted = threading.Event()
        self._decided = threading.Event()  # on the disk, or told that it is not
        self._ended = threading.Event()
        self._failure: dict[str, str] = {}
        self._unrecorded = ""  # why not, until somebody was told
        self._next_step = Unrecorded.next_step

    def tell(self, **details: str) -> None:
        """Add what the command has learned of its task; before `commit` and output."""
        self._details = {**self._details, **details}

    def commit(self) -> None:
        """Return once the look is on the disk, as a success. Raises Unrecorded where it is not.
        Harmless once the command has ended."""
        self._wanted.set()
        if self._ended.is_set():
            return
        if not self._decided.wait(START_SECONDS):
            self._unrecorded = f"the spool takes longer than {START_SECONDS:g} s"
        if self._unrecorded and self._action not in SHOWN_ANYWAY:
            why, self._unrecorded = self._unrecorded, ""
            refused = Unrecorded(f"this look cannot be recorded ({why}), so nothing is shown")
            refused.next_step = self._next_step
            raise refused

    def run(self) -> None:
        """See Thread."""
        try:
            from gatebook.producers.recorder import Recorder

            recorder = Recorder(service_settings())
            recorder.start()
            self._recorder = recorder
            self._follow(recorder)
        except (GatebookError, OSError, ImportError) as error:
            is_ours = isinstance(error, GatebookError)
            self._unrecorded = str(error) if is_ours else type(error).__name__
            if isinstance(error, WrongSetting):
                self._next_step = error.next_step
        finally:
            self._decided.set()

    def _follow(self, recorder: Recorder) -> None:
        """Record what the command does, as it is known. Raises NotDurable."""
        self._wanted.wait(HOLD_SECONDS if self._action in WAITING else None)
        if not self._ended.is_set():
            self._record(recorder, {})
            self._decided.set()
            self._ended.wait()
            if not self._failure:
                return
        self._record(recorder, self._failure)

    def _record(self, recorder: Recorder, failure: Mapping[str, str]) -> None:
        from gatebook.processors.serve.access.who import Caller

        caller = Caller(id=operator(), method="os_account", tenants=None)
        details = {**self._details, **failure}
        outcome = FAILURE if failure else SUCCESS
        event = event_of(Act(caller, self._action, outcome, details), "cli")
        recorder.emit_durable(Look(event), START_SECONDS)

    def close(self) -> None:
        """Let it come to its end, which is told by the exception that ends the command."""
        error = sys.exc_info()[1]
        try:
            if sys.stdout is not None and not isinstance(error, BrokenPipeError):
                sys.stdout.flush()  # what is shown now is shown of this look
        finally:
            self._failure = failure_of(self._action, error)
            self._ended.set()
            self._wanted.set()
            self.join(START_SECONDS)
            if self._recorder is not None:
                self._recorder.close(COMMAND_FLUSH_SECONDS)
            if self._unrecorded:
                click.echo(f"gatebook: this look is not recorded: {self._unrecorded}", err=True)
