"""Routes of the API about its callers: who one is, API tokens, and what is revealed to one."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from gatebook.processors.serve.access.caller import Caller, Permission, Refused, requires
from gatebook.processors.serve.access.guard import Access
from gatebook.processors.serve.access.revealing import LAYERS, Revealer, refuse_layer
from gatebook.processors.serve.access.tokens import (
    MAX_DAYS,
    MAX_NAME_CHARS,
    MAX_TENANTS,
    NewToken,
    TokenError,
    TokenFacts,
)
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    At,
    CallerTold,
    Given,
    RevealRequest,
    SessionAnswer,
    Told,
)
from gatebook.processors.serve.reader import Reader

router = APIRouter(prefix="/api/v1")

Role = Literal["viewer", "analyst", "privacy_officer", "admin"]
Tenant = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Path(min_length=16, max_length=16, pattern="^[0-9a-f]+$")]
EventId = Annotated[str, Path(min_length=1, max_length=512)]


class NewTokenRequest(Given):
    """An API token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS, description="Its use.")]
    roles: Annotated[list[Role], Field(min_length=1, max_length=4)]
    tenants: Annotated[
        list[Tenant] | None, Field(min_length=1, max_length=MAX_TENANTS, description="null: all.")
    ]
    days: Annotated[int, Field(ge=1, le=MAX_DAYS, description="How long it holds.")] = 90


class TokenTold(Told):
    """What is known of a token; the token itself is not."""

    id: str
    name: str
    roles: list[str]
    tenants: list[str] | None
    state: Literal["active", "expired", "revoked"]
    created_at: At
    created_by: str
    expires_at: At
    last_used_at: At
    revoked_at: At
    revoked_by: str


class TokenMade(Told):
    """A new token. This is the only time it is shown."""

    token: str
    facts: TokenTold


class TokensAnswer(Told):
    """All tokens that the caller may know of, newest first."""

    tokens: list[TokenTold]


class LayerTold(Told):
    """One layer of an event's content. `erased` says when and by which job it went, where that is
    known; `absent`: it was never kept."""

    state: Literal["opened", "absent", "erased", "does_not_open"]
    content: dict[str, Any] | None = None
    job: str | None = None
    erased_at: str | None = None


class RevealAnswer(Told):
    """Content of an event, opened. That it was is in the log already."""

    id: str
    layer: str
    content: Annotated[dict[str, LayerTold], Field(description="By layer: redacted, full.")]


@router.get("/session", responses=answers(), tags=["access"])
async def read_session(
    request: Request, acts: Annotated[Acts, Depends(requires(Permission.SESSION))]
) -> SessionAnswer:
    """Who one is, and what one may do. With an API token there is no CSRF token and no end."""
    caller, session = acts.caller, getattr(request.state, "session", None)
    return SessionAnswer(
        caller=CallerTold(
            id=caller.id,
            name=caller.name,
            method=caller.method,
            roles=sorted(caller.roles),
            tenants=None if caller.tenants is None else sorted(caller.tenants),
        ),
        permissions=sorted(caller.permissions),
        csrf_token=session.csrf_token if session is not None else "",
        version=version("gatebook"),
        namespace=request.app.state.deps.namespace,
        expires_at=_at(session.expires_at) if session is not None else None,
    )


@router.get("/tokens", responses=answers(), tags=["access"])
async def list_tokens(
    request: Request, acts: Annotated[Acts, Depends(requires(Permission.TOKENS))]
) -> TokensAnswer:
    """API tokens of the caller's tenants."""
    acts.note("token.list")
    found = await _access(request).tokens.list()
    return TokensAnswer(tokens=[_told(one) for one in found if _within(acts.caller, one.tenants)])


@router.post("/tokens", status_code=201, responses=answers(400), tags=["access"])
async def make_token(
    request: Request,
    body: NewTokenRequest,
    acts: Annotated[Acts, Depends(requires(Permission.TOKENS))],
) -> TokenMade:
    """Make an API token. No token sees more tenants than its maker."""
    tenants = None if body.tenants is None else tuple(body.tenants)
    if not _within(acts.caller, tenants):
        raise Refused(403, "forbidden", "a token sees no more tenants than you do", "name yours")
    new = _checked(NewToken(body.name, tuple(dict.fromkeys(body.roles)), tenants, body.days))
    shown = "all" if tenants is None else ",".join(tenants)
    roles = ",".join(new.roles)
    await acts.record("token.new", name=new.name, roles=roles, tenants=shown, days=str(new.days))
    token, facts = await _access(request).tokens.create(new, acts.caller.id)
    return TokenMade(token=token, facts=_told(facts))


def _checked(new: NewToken) -> NewToken:
    try:
        return new.check()
    except TokenError as error:
        raise Refused(400, "bad_request", str(error), error.next_step) from None


@router.delete("/tokens/{token_id}", responses=answers(404), tags=["access"])
async def revoke_token(
    request: Request,
    token_id: TokenId,
    acts: Annotated[Acts, Depends(requires(Permission.TOKENS))],
) -> TokenTold:
    """End a token, and the sessions that were begun with it. It holds for no later request."""
    tokens = _access(request).tokens
    try:
        facts = await tokens.find(token_id)
    except TokenError:
        raise _no_token() from None
    if not _within(acts.caller, facts.tenants):
        raise _no_token()
    await acts.record("token.revoke", token=token_id, name=facts.name)
    return _told(await tokens.revoke(token_id, acts.caller.id))


def _no_token() -> Refused:
    return Refused(404, "not_found", "no token has this id", "see GET /api/v1/tokens")


@router.post("/events/{event_id}/reveal", responses=answers(400, 404), tags=["events"])
async def reveal(
    request: Request,
    event_id: EventId,
    body: RevealRequest,
    acts: Annotated[Acts, Depends(requires(Permission.REVEAL_REDACTED))],
) -> RevealAnswer:
    """Open the sealed content of an event. It is recorded with the reason before anything is
    opened; where that cannot be, nothing is (503). Layer `full` holds `redacted` as well."""
    refuse_layer(acts.caller, body.layer)
    reason = body.reason.strip()
    if len(reason) < 3:
        raise Refused(400, "bad_request", "a reason is needed", "say why in a few words")
    hits = await Reader(request, acts.caller).by_id(event_id)
    event = next((hit for hit in hits if hit.id == event_id and "-access-" in hit.index), None)
    if event is None:
        raise Refused(404, "not_found", "no event has this id, or none that you may see")
    found = await _revealer(request).reveal(acts, event_id, event.source, body.layer, reason)
    return RevealAnswer(id=event_id, layer=body.layer, content=found)


def _revealer(request: Request) -> Revealer:
    found: Revealer | None = _access(request).revealer
    if found is None:
        raise Refused(503, "unavailable", "this service was given no keys to open content with")
    return found


def _access(request: Request) -> Access:
    found: Access = request.app.state.access
    return found


def _within(caller: Caller, tenants: tuple[str, ...] | None) -> bool:
    """Whether all of these tenants are the caller's."""
    if caller.tenants is None:
        return True
    return tenants is not None and set(tenants) <= caller.tenants


def _told(facts: TokenFacts) -> TokenTold:
    state: Any = facts.state(datetime.now(UTC).timestamp())
    return TokenTold(
        id=facts.id,
        name=facts.name,
        roles=list(facts.roles),
        tenants=None if facts.tenants is None else list(facts.tenants),
        state=state,
        created_at=_at(facts.created_at),
        created_by=facts.created_by,
        expires_at=_at(facts.expires_at),
        last_used_at=_at(facts.last_used_at),
        revoked_at=_at(facts.revoked_at),
        revoked_by=facts.revoked_by,
    )


def _at(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


assert set(LAYERS) == {"redacted", "full"}  # as RevealRequest.layer names them
