"""Documents as they come in, as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from gatebook.processors.search.asking import SearchFailed
from gatebook.processors.search.query import MAX_QUERY_CHARACTERS
from gatebook.processors.search.question import moment, stamp
from gatebook.processors.search.service import WINDOW, Tail
from gatebook.processors.search.times import TimeError, parse_time
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
RESUMED_WITHIN = timedelta(hours=1)
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: hit` with data {index, id, kind, source}; `event: lag` with data "
        "{newest_ingested, seconds, at} every few seconds; `event: skipped` with data {from, to} "
        "where more came in than could be sent, or the tail was left too long (a search for "
        "`event.ingested` over that range, which ends before `to`, shows it); `event: end` when "
        "the tail has lasted as long as it may; comments as heartbeat. Each `id:` says how far the "
        "tail is. Open it again with the last one as Last-Event-ID (browsers do) and nothing "
        f"between is missed, while hits of the {WINDOW.seconds} s before it may come again: drop "
        "those whose `id` you have. From an id of more than "
        f"{RESUMED_WITHIN.seconds // 60} minutes ago the tail goes on "
        f"{RESUMED_WITHIN.seconds // 60} minutes ago, and says what it skipped; what is no id of a "
        "tail counts as none.",
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
    after: Annotated[
        str,
        Query(max_length=40, description="As Last-Event-ID, for clients that cannot send it."),
    ] = "",
) -> StreamingResponse:
    """What matches as it comes in, in the order of event.ingested. A client that reads slowly is
    waited for, and told when it was too slow."""
    deps, reader = deps_of(request), Reader(request, acts.caller)
    acts.trying("search.tail", query=query, kind=kind)
    following = reader.tail(query, kind, "now")
    skipped = _resumed(following, request.headers.get("last-event-id", after), deps.clock())
    release = _take_place(reader.registry, deps, acts.caller.id)
    try:
        await acts.done()  # once for all that it will show
    except BaseException:
        release()
        raise
    still = _still_holds(request)
    body = _sent(reader, following, deps, still, release, skipped)
    headers = {"x-accel-buffering": "no", "cache-control": "no-store"}
    return Released(body, release, media_type="text/event-stream", headers=headers)


def _resumed(following: Tail, last_id: str, now: datetime) -> tuple[str, str] | None:
    """Have a tail go on where a client says it was, at most RESUMED_WITHIN ago. The range that is
    skipped, where it was there longer ago. What is no id of ours changes nothing."""
    place, oldest = _place_of(last_id, now), now - RESUMED_WITHIN
    if place is None:
        return None
    following.resume(max(place, oldest))
    return (stamp(place - WINDOW), stamp(oldest)) if place < oldest else None


def _place_of(last_id: str, now: datetime) -> datetime | None:
    """Where a tail was by one of its ids, which is never later than now."""
    if not last_id.endswith("Z"):
        return None
    try:
        return min(moment(parse_time(last_id, now)), now)
    except TimeError:
        return None


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
    skipped: tuple[str, str] | None,
) -> AsyncIterator[bytes]:
    """The stream. Nothing is asked for before what was given out is written to the socket, so a
    slow client costs one poll's hits at most."""
    ends_at = time.monotonic() + deps.settings.tail_seconds
    beat_at = lag_at = time.monotonic()
    yield f"retry: {RETRY_MS}\nid: {following.place()}\n: open\n\n".encode()
    try:
        if skipped:
            yield _skipped(following, *skipped)
        while time.monotonic() < ends_at and await still_holds():
            async for part in _polled(reader, following, deps):
                beat_at = time.monotonic()
                yield part
            now = time.monotonic()
            if now >= lag_at:
                lag_at = now + LAG_EVERY_SECONDS
                yield await _lag(reader, following, deps)
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
        yield _event("hit", shown, following.place(hit))
    behind = following.behind(deps.clock())
    if len(hits) >= MAX_HITS_A_POLL and behind > timedelta(seconds=BEHIND_SECONDS):
        yield _skipped(following, *following.skip_to(deps.clock()))


def _skipped(following: Tail, from_: str, to: str) -> bytes:
    return _event("skipped", {"from": from_, "to": to}, following.place())


async def _lag(reader: Reader, following: Tail, deps: Deps) -> bytes:
    reader.now = deps.clock()
    try:
        lag = await reader.lag()
    except (Unreachable, SearchFailed):
        return b": waiting for Elasticsearch\n\n"
    told = lag.model_dump() if lag else {"newest_ingested": None, "seconds": 0.0}
    return _event("lag", {**told, "at": stamp(reader.now)}, following.place())


def _event(name: str, data: Any, place: str = "") -> bytes:
    """One event. JSON has no line feeds, so no value can begin a field of the stream."""
    given = f"id: {place}\n" if place else ""
    return f"event: {name}\n{given}data: ".encode() + orjson.dumps(data) + b"\n\n"
