"""The audit of the auditors: every look at the log, and every refused one, is an event of it.

The service does not know how events are recorded: whoever starts it gives it an `Audit`. Routes
use the request's `Acts`:

    await acts.look("search", query=text)                       a look, durable when it returns
    await acts.record("event.reveal", reason=why, event=id)     a privileged act, likewise
    acts.note("access.refused", FAILURE)                        goes on at once

Whatever is shown or done is recorded before; where that cannot be, Unrecorded is raised and
nothing is shown or done. Only what was refused or failed is noted on the way: it showed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from fastapi import Request

    from gatebook.processors.serve.access.caller import Caller

# What intake takes for an id; anything else in its place could be what somebody typed.
EVENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
SUCCESS = "success"
FAILURE = "failure"
ACT = "act"


class Unrecorded(GatebookError):
    """The act could not be made durable, so it was not done. The API answers 503."""

    exit_code = 6
    next_step = (
        "see that GATEBOOK_SPOOL_DIR (default: spool in GATEBOOK_HOME) can be written and has room"
    )


@dataclass(frozen=True, slots=True)
class HttpFacts:
    """What is known of the request that an act came by. `route` is a template, never the path
    itself; all empty for an act at the command line."""

    method: str = ""
    route: str = ""
    address: str = ""
    user_agent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did or tried. `caller` is None where nobody is known, as at a failed login."""

    caller: Caller | None
    action: str
    outcome: str
    details: Mapping[str, str]
    http: HttpFacts = field(default_factory=HttpFacts)


class Audit(Protocol):
    """Takes acts into the log."""

    def note(self, act: Act) -> None:
        """Take an act without waiting. It is not durable on return. Never raises."""

    async def look(self, act: Act) -> None:
        """Returns once the event of a look is durable. Raises Unrecorded."""

    async def record(self, act: Act) -> None:
        """`look` for a privileged act: one that shows or takes content, or changes something."""


@dataclass(frozen=True, slots=True)
class Acts:
    """The acts of one request's caller."""

    caller: Caller
    audit: Audit
    http: HttpFacts
    tried: dict[str, str] = field(default_factory=dict)

    def trying(self, action: str, /, **details: str) -> None:
        """Say what is about to be done: where the request then fails, that is recorded as this
        act's failure. Details that are told again replace those before."""
        self.tried.update({**_given(details), ACT: action})

    async def done(self, /, **details: str) -> None:
        """Record that what was tried succeeded, before its answer goes out. Raises Unrecorded."""
        tried = {name: text for name, text in self.tried.items() if name != ACT}
        await self.look(self.tried[ACT], **{**tried, **details})

    async def look(self, action: str, outcome: str = SUCCESS, /, **details: str) -> None:
        """See Audit.look. Details that are empty are left out."""
        await self.audit.look(self._act(action, outcome, details))

    def note(self, action: str, outcome: str = SUCCESS, /, **details: str) -> None:
        """See Audit.note. Details that are empty are left out."""
        self.audit.note(self._act(action, outcome, details))

    async def record(self, action: str, outcome: str = SUCCESS, /, **details: str) -> None:
        """See Audit.record. Details that are empty are left out."""
        await self.audit.record(self._act(action, outcome, details))

    def _act(self, action: str, outcome: str, details: Mapping[str, str]) -> Act:
        return Act(self.caller, action, outcome, _given(details), self.http)


def _given(details: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in details.items() if text}


def acts_of(request: Request, caller: Caller) -> Acts:
    """The acts of a request. Raises where the service has no audit: it must not answer then."""
    audit: Any = request.app.state.audit
    acts = Acts(caller, audit, http_facts(request))
    request.state.tried = acts.tried
    return acts


def note_failed(request: Request, status: int, kind: str) -> None:
    """Record that a known caller's request below /api/ failed: as a failure of the act that was
    tried, or that its route declares; where there is no route, as a refusal."""
    from gatebook.processors.serve.access.caller import act_of_request
    from gatebook.processors.serve.access.who import Caller

    caller = getattr(request.state, "caller", None)
    if not isinstance(caller, Caller) or not request.url.path.startswith("/api/"):
        return
    tried = dict(getattr(request.state, "tried", {}))
    action = tried.pop(ACT, "") or act_of_request(request) or "access.refused"
    audit: Any = request.app.state.audit
    details = {**_named(request, action), **tried, "refused": kind, "status": str(status)}
    audit.note(Act(caller, action, FAILURE, details, http_facts(request)))


def _named(request: Request, action: str) -> dict[str, str]:
    """The event that an act was asked of, where its request failed before the act was tried."""
    event_id = str(request.path_params.get("id", ""))
    is_id = action.startswith("event.") and EVENT_ID.fullmatch(event_id)
    return {"event": event_id} if is_id else {}


def http_facts(request: Request) -> HttpFacts:
    """What the log says of a request. The route is known once routing is done."""
    route = request.scope.get("route")
    return HttpFacts(
        method=request.method,
        route=str(getattr(route, "path", "")),
        address=str(getattr(request.state, "address", "")),
        user_agent=request.headers.get("user-agent", "")[:512],
        request_id=str(getattr(request.state, "request_id", "")),
    )
