"""Who calls, and the API tokens that administrators give out."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from gatebook.processors.search.question import stamp
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.access.roles import permissions_of
from gatebook.processors.serve.access.state import ConsoleState
from gatebook.processors.serve.access.tokens import (
    NewToken,
    TokenFacts,
    Tokens,
    no_token,
    within,
)
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    CallerTold,
    SessionAnswer,
    TokenMade,
    TokenRequest,
    TokensAnswer,
    TokenTold,
)

room = APIRouter(prefix=API, tags=["session"])
Known = Annotated[Acts, Depends(requires(Permission.SESSION, "session.view"))]
MayList = Annotated[Acts, Depends(requires(Permission.TOKENS, "token.list"))]
MayMake = Annotated[Acts, Depends(requires(Permission.TOKENS, "token.new"))]
MayRevoke = Annotated[Acts, Depends(requires(Permission.TOKENS, "token.revoke"))]


@room.get("/session", summary="Who calls", responses=answers())
async def session(request: Request, acts: Known) -> SessionAnswer:
    """The caller, what they may do, and for a browser the token against forged requests."""
    caller, found = acts.caller, getattr(request.state, "session", None)
    return SessionAnswer(
        caller=CallerTold(
            id=caller.id,
            name=caller.name,
            method=caller.method,
            roles=sorted(caller.roles),
            tenants=None if caller.tenants is None else sorted(caller.tenants),
        ),
        permissions=sorted(caller.permissions),
        csrf_token=found.csrf_token if found else "",
        version=version("gatebook"),
        namespace=deps_of(request).namespace,
        expires_at=_at(found.expires_at) if found else None,
    )


@room.get("/tokens", summary="API tokens", responses=answers())
async def tokens(request: Request, acts: MayList) -> TokensAnswer:
    """What is known of the API tokens of one's tenants; the tokens themselves are not."""
    await acts.look("token.list")
    found = await _tokens(request).list()
    mine = [_told(facts) for facts in found if within(acts.caller, facts.tenants)]
    return TokensAnswer(tokens=mine)


@room.post("/tokens", summary="Make an API token", responses=answers(400, 413), status_code=201)
async def make(request: Request, acts: MayMake, body: TokenRequest) -> TokenMade:
    """A new API token. It is shown this once, sees no more tenants than its maker, and may do no
    more."""
    tenants = None if body.tenants is None else tuple(body.tenants)
    new = NewToken(body.name, tuple(body.roles), tenants, body.days).check()
    if not within(acts.caller, tenants):
        raise Refused(403, "forbidden", "a token sees no more tenants than you do", "name yours")
    if not permissions_of(new.roles) <= acts.caller.permissions:
        raise Refused(
            403,
            "forbidden",
            "a token may do no more than you may",
            "name roles of yours; `gatebook token new` makes tokens of any role",
        )
    shown = "all" if tenants is None else ",".join(tenants)
    await acts.record("token.new", name=new.name, roles=",".join(new.roles), tenants=shown)
    token, facts = await _tokens(request).create(new, acts.caller.id)
    return TokenMade(token=token, facts=_told(facts))


@room.delete(
    "/tokens/{id}",
    summary="Revoke an API token",
    responses=answers(400, 404),
    status_code=204,
    response_class=Response,
)
async def revoke(
    request: Request,
    acts: MayRevoke,
    id: Annotated[str, Path(pattern="^[0-9a-p]{16}$", description="Of the token, not itself.")],
) -> Response:
    """From now on nobody gets in by it, nor by a session that began with it."""
    facts = await _tokens(request).find(id)
    if not within(acts.caller, facts.tenants):
        raise no_token()
    await acts.record("token.revoke", name=facts.name, token=id)
    await _tokens(request).revoke(id, acts.caller.id)
    return Response(status_code=204)


def _tokens(request: Request) -> Tokens:
    deps = deps_of(request)
    return Tokens(ConsoleState(deps.connection, deps.namespace))


def _told(facts: TokenFacts) -> TokenTold:
    return TokenTold(
        id=facts.id,
        name=facts.name,
        roles=list(facts.roles),
        tenants=None if facts.tenants is None else list(facts.tenants),
        state=facts.state(time.time()),
        created_at=_at(facts.created_at),
        created_by=facts.created_by,
        expires_at=_at(facts.expires_at),
        last_used_at=_at(facts.last_used_at),
    )


def _at(seconds: float) -> str | None:
    return stamp(datetime.fromtimestamp(seconds, UTC)) if seconds else None
