"""Pages of hits, deep ones too, all of one point in time."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from gatebook.processors.search.paging import PageOf, Place, close_view, first_page, next_page
from gatebook.processors.search.question import Question
from gatebook.processors.serve.access.caller import Permission, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import SearchAnswer, SearchRequest
from gatebook.processors.serve.reader import Reader, asked_range, range_of, sources_wanted
from gatebook.processors.serve.views import Cursors

room = APIRouter(prefix=API, tags=["search"])
MaySearch = Annotated[Acts, Depends(requires(Permission.SEARCH, "search"))]


@room.post("/search", summary="Search", responses=answers(400, 410, 413))
async def search(request: Request, acts: MaySearch, body: SearchRequest) -> SearchAnswer:
    """Hits of a query, a page at a time. What is indexed while pages are read neither appears nor
    shifts anything."""
    began = time.perf_counter()
    reader = Reader(request, acts.caller)
    page_of = "next" if body.cursor else "first"
    acts.trying("search", query=body.query, kind=body.kind, page=page_of, sort=body.sort)
    acts.trying("search", **asked_range(body.since, body.until))
    asked = body.model_dump(exclude={"cursor", "size"})
    cursors = Cursors(deps_of(request).signing_key)
    state = cursors.read(body.cursor, acts.caller.id, asked) if body.cursor else None
    if state:
        reader.now = datetime.fromisoformat(state["now"])
    question = reader.question(body.query, body.since, reader.until(body.until), body.kind)
    order = reader.order(body.sort, body.kind)
    fields = reader.known(body.kind, body.fields)
    acts.trying("search", **range_of(question))
    page, lag, detail = await reader.together(
        _page(request, reader, question, order, body, state),
        reader.lag(),
        reader.detail(question),
    )
    cursor = None
    if page.place is not None:
        place = {"pit": page.place.view, "after": page.place.after, "total": page.place.total}
        cursor = cursors.write(acts.caller.id, asked, {**place, "now": reader.now.isoformat()})
        await _remember(request, reader, page.place.view)
    await acts.done()
    return SearchAnswer(
        since=question.since,
        until=question.until,
        total=page.total,
        took_ms=round((time.perf_counter() - began) * 1000, 2),
        cursor=cursor,
        lag=lag,
        detail=detail,
        hits=[reader.shown(hit, fields) for hit in page.hits],
    )


async def _page(
    request: Request,
    reader: Reader,
    question: Question,
    order: list[dict[str, Any]],
    body: SearchRequest,
    state: dict[str, Any] | None,
) -> PageOf:
    keep_seconds = deps_of(request).settings.view_seconds
    source = sources_wanted(body.fields)
    if state is None:
        return await first_page(
            reader.connection,
            reader.namespace,
            question,
            order,
            body.size,
            keep_seconds=keep_seconds,
            source=source,
        )
    reader.registry.views.closed(reader.caller.id, state["pit"])
    return await next_page(
        reader.connection,
        question,
        order,
        body.size,
        Place(state["pit"], state["after"], state["total"]),
        keep_seconds=keep_seconds,
        source=source,
    )


async def _remember(request: Request, reader: Reader, view: str) -> None:
    """Each caller has a few views open at most: the oldest ones are closed."""
    for old in reader.registry.views.opened(reader.caller.id, view):
        await close_view(reader.connection, old)
