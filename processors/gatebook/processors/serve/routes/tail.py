"""Documents as they come in, as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from gatebook.processors.search.asking import SearchFailed
from gatebook.processors.search.query import MAX_QUERY_CHARACTERS
from gatebook.processors.search.question import stamp
from gatebook.processors.search.service import Tail
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import Deps, deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import Kind
from gatebook.processors.serve.reader import Reader, Registry
from gatebook.processors.serve.released import Released
from gatebook.processors.sinks.connection import Unreachable

room = APIRouter(prefix=API, tags=["tail"])
MaySearch = Annotated[Acts, Depends(requires(Permission.SEARCH, "search.tail"))]
MAX_HITS_A_POLL = 500
BEHIND_SECONDS = 30.0
HEARTBEAT_SECONDS = 10.0
LAG_EVERY_SECONDS = 5.0
RETRY_MS = 3_000
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: hit` with data {index, id, kind, source}; `event: lag` with data "
        "{newest_ingested, seconds} every few seconds; `event: skipped` with data {from, to} where "
        "more came in than could be sent (a search over that range shows it); `event: end` when "
        "the tail has lasted as long as it may; comments as heartbeat. Open it again with the "
        "Last-Event-ID header (browsers do) and nothing between is missed.",
        "content": {"text/event-stream": {}},
    }
}


@room.get(
    "/tail",
    summary="Live tail",
    responses={**answers(400), **STREAM},
    response_class=StreamingResponse,
)
async def tail(
    request: Request,
    acts: MaySearch,
    query: Annotated[str, Query(max_length=MAX_QUERY_CHARACTERS)] = "",
    kind: Annotated[Kind, Query()] = "access",
) -> StreamingResponse:
    """What matches as it comes in, in the order of event.ingested. A client that reads slowly is
    waited for, and told when it was too slow."""
    deps, reader = deps_of(request), Reader(request, acts.caller)
    acts.trying("search.tail", query=query, kind=kind)
    since = _resumed(request.headers.get("last-event-id", ""))
    following = reader.tail(query, kind, since)
    release = _take_place(reader.registry, deps, acts.caller.id)
    acts.done()  # once for all that it will show
    still = _still_holds(request)
    body = _sent(reader, following, deps, still, release)
    headers = {"x-accel-buffering": "no", "cache-control": "no-store"}
    return Released(body, release, media_type="text/event-stream", headers=headers)


def _resumed(last_id: str) -> str:
    """Where to begin: after what a client says it has seen, if that was lately; else now."""
    is_stamp = len(last_id) <= 30 and last_id[:4].isdigit() and last_id.endswith("Z")
    return last_id if is_stamp else "now"


def _take_place(registry: Registry, deps: Deps, caller_id: str) -> Callable[[], None]:
    """Count this tail. Raises Refused (429). Gives what ends the counting, once."""
    open_, settings = registry.tails, deps.settings
    too_many = sum(open_.values()) >= settings.max_tails
    if too_many or open_.get(caller_id, 0) >= settings.max_tails_per_caller:
        raise Refused(429, "too_many_tails", "too many live tails are open", "close one", None, 30)
    open_[caller_id] = open_.get(caller_id, 0) + 1
    is_open = True

    def release() -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            open_[caller_id] -= 1
            if not open_[caller_id]:
                del open_[caller_id]

    return release


def _still_holds(request: Request) -> Callable[[], Awaitable[bool]]:
    """Whether the caller's credentials still hold, where there is a gate that knows."""
    if getattr(request.app.state, "access", None) is None:
        return _always
    from gatebook.processors.serve.access.guard import still_holds

    return lambda: still_holds(request)


async def _always() -> bool:
    return True


async def _sent(
    reader: Reader,
    following: Tail,
    deps: Deps,
    still_holds: Callable[[], Awaitable[bool]],
    release: Callable[[], None],
) -> AsyncIterator[bytes]:
    """The stream. Nothing is asked for before what was given out is written to the socket, so a
    slow client costs one poll's hits at most."""
    ends_at = time.monotonic() + deps.settings.tail_seconds
    beat_at = lag_at = time.monotonic()
    yield f"retry: {RETRY_MS}\n: open\n\n".encode()
    try:
        while time.monotonic() < ends_at and await still_holds():
            async for part in _polled(reader, following, deps):
                beat_at = time.monotonic()
                yield part
            now = time.monotonic()
            if now >= lag_at:
                lag_at = now + LAG_EVERY_SECONDS
                yield await _lag(reader, deps)
            if now - beat_at >= HEARTBEAT_SECONDS:
                beat_at = now
                yield b": still here\n\n"
            await asyncio.sleep(deps.settings.tail_interval_seconds)
        yield _event("end", {})
    finally:
        release()


async def _polled(reader: Reader, following: Tail, deps: Deps) -> AsyncIterator[bytes]:
    try:
        hits = await following.poll(MAX_HITS_A_POLL)
    except (Unreachable, SearchFailed):
        yield b": waiting for Elasticsearch\n\n"
        return
    for hit in hits:
        shown = reader.shown(hit).model_dump()
        yield _event("hit", shown, str(hit.source.get("event", {}).get("ingested", "")))
    behind = following.behind(deps.clock())
    if len(hits) >= MAX_HITS_A_POLL and behind > timedelta(seconds=BEHIND_SECONDS):
        skipped_from, skipped_to = following.skip_to(deps.clock())
        yield _event("skipped", {"from": skipped_from, "to": skipped_to})


async def _lag(reader: Reader, deps: Deps) -> bytes:
    reader.now = deps.clock()
    try:
        lag = await reader.lag()
    except (Unreachable, SearchFailed):
        return b": waiting for Elasticsearch\n\n"
    told = lag.model_dump() if lag else {"newest_ingested": None, "seconds": 0.0}
    return _event("lag", {**told, "at": stamp(reader.now)})


def _event(name: str, data: Any, event_id: str = "") -> bytes:
    """One event. JSON has no line feeds, so no value can begin a field of the stream."""
    given = f"id: {event_id}\n" if event_id and event_id.isprintable() else ""
    return f"event: {name}\n{given}data: ".encode() + orjson.dumps(data) + b"\n\n"
