"""Searches that people keep, and share."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from gatebook.processors.search.question import stamp
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.access.state import ConsoleState, Kept
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import SavedSearch, SavedSearches, SavedSearchRequest
from gatebook.processors.serve.reader import Reader

room = APIRouter(prefix=API, tags=["saved searches"])
MayList = Annotated[Acts, Depends(requires(Permission.SAVED_SEARCHES, "search.list_saved"))]
MaySave = Annotated[Acts, Depends(requires(Permission.SAVED_SEARCHES, "search.save"))]
MayDelete = Annotated[Acts, Depends(requires(Permission.SAVED_SEARCHES, "search.unsave"))]
KIND = "saved_search"
MAX_OF_ONE = 200
Id = Annotated[str, Path(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]


@room.get("/saved-searches", summary="Saved searches", responses=answers())
async def saved(request: Request, acts: MayList) -> SavedSearches:
    """The caller's own, and those that others share with the same tenants: what others search for
    is shown only where that is in the log."""
    found = await _state(request).find(KIND)
    told = [_told(kept, acts) for kept in found if _may_see(kept, acts)]
    if not all(one.mine for one in told):
        await acts.look("search.list_saved")
    return SavedSearches(saved_searches=told)


@room.post(
    "/saved-searches", summary="Save a search", responses=answers(400, 409, 413), status_code=201
)
async def save(request: Request, acts: MaySave, body: SavedSearchRequest) -> SavedSearch:
    """Keep a search under a name. It is checked, so what is saved can be run."""
    reader = Reader(request, acts.caller)
    reader.question(body.query, body.since, body.until, body.kind)
    reader.order(body.sort, body.kind)
    reader.known(body.kind, body.columns)
    state = _state(request)
    mine = await state.find(KIND, owner=acts.caller.id)
    if len(mine) >= MAX_OF_ONE:
        raise Refused(409, "too_many", f"you have {MAX_OF_ONE} saved searches", "delete one")
    if any(kept.source["name"] == body.name for kept in mine):
        raise Refused(409, "name_taken", "you have a saved search of this name", "take another")
    identity = secrets.token_urlsafe(9)
    source = {
        **body.model_dump(),
        "type": KIND,
        "owner": acts.caller.id,
        "tenants": None if acts.caller.tenants is None else sorted(acts.caller.tenants),
        "created_at": reader.now.timestamp(),
        "created": stamp(reader.now),
    }
    await acts.look("search.save", name=body.name, query=body.query)
    await state.create(_document(identity), source)
    return _told(Kept(_document(identity), source, (0, 0)), acts)


@room.delete(
    "/saved-searches/{id}",
    summary="Delete a saved search",
    responses=answers(404),
    status_code=204,
    response_class=Response,
)
async def delete(request: Request, acts: MayDelete, id: Id) -> Response:
    """Delete one of the caller's own."""
    kept = await _state(request).get(_document(id))
    if kept is None or kept.source.get("owner") != acts.caller.id:
        raise Refused(404, "not_found", "you have no saved search with this id")
    await acts.look("search.unsave", name=str(kept.source["name"]))
    await _state(request).delete(kept.id)
    return Response(status_code=204)


def _state(request: Request) -> ConsoleState:
    deps = deps_of(request)
    return ConsoleState(deps.connection, deps.namespace)


def _document(identity: str) -> str:
    return f"saved-{identity}"


def _may_see(kept: Kept, acts: Acts) -> bool:
    """Its owner; and of a shared one whoever reads the same tenants: a query may name persons."""
    if kept.source.get("owner") == acts.caller.id:
        return True
    tenants = acts.caller.tenants
    mine = None if tenants is None else sorted(tenants)
    return bool(kept.source.get("shared")) and kept.source.get("tenants") == mine


def _told(kept: Kept, acts: Acts) -> SavedSearch:
    source: dict[str, Any] = kept.source
    return SavedSearch(
        id=kept.id.removeprefix("saved-"),
        name=source["name"],
        query=source["query"],
        since=source["since"],
        until=source["until"],
        kind=source["kind"],
        columns=source["columns"],
        sort=source["sort"],
        shared=source["shared"],
        owner=source["owner"],
        mine=source["owner"] == acts.caller.id,
        created_at=source["created"],
    )
