"""Exports: made, read as a stream, read again from any line."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from gatebook.processors.search import export
from gatebook.processors.search.export import Spec
from gatebook.processors.search.question import ALL_TIME, Question, moment, stamp
from gatebook.processors.search.service import refresh
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.access.state import ConsoleState, Kept
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    ExportMade,
    ExportRequest,
    ExportStage,
    ExportState,
)
from gatebook.processors.serve.reader import Reader, asked_range, range_of
from gatebook.processors.serve.released import Released

room = APIRouter(prefix=API, tags=["exports"])
MayMake = Annotated[Acts, Depends(requires(Permission.EXPORT, "export.make"))]
MayAsk = Annotated[Acts, Depends(requires(Permission.EXPORT, "export.state"))]
MayRead = Annotated[Acts, Depends(requires(Permission.EXPORT, "export.read"))]
KIND = "export"
KEPT_SECONDS = 7 * 86_400.0
SWEPT_AT_ONCE = 100
Id = Annotated[
    str, Path(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$", description="Of the export.")
]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines in order of (@timestamp, event.id). X-Gatebook-Total says how many "
        "the whole export has.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}
MEDIA = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


@room.post("/exports", summary="Make an export", responses=answers(400, 413), status_code=201)
async def make(request: Request, acts: MayMake, body: ExportRequest) -> ExportMade:
    """Decide what is exported: the query, an absolute range, and only what was taken in until now.
    Nothing is stored but that; the lines are read when they are asked for, for 7 days."""
    reader = Reader(request, acts.caller)
    asked = _told(body.query, body.kind, body.format, body.fields)
    asked |= asked_range(body.since, body.until)
    acts.trying("export.make", **asked)
    until = reader.until(body.until)
    question = reader.question(body.query, body.since, until, body.kind)
    spec = Spec(
        query=body.query,
        kind=body.kind,
        format=body.format,
        since=question.since,
        until=question.until,
        taken_in_until=stamp(reader.now),
        fields=reader.known(body.kind, body.fields),
    )
    await refresh(reader.connection, reader.namespace, body.kind)
    lines = await export.count(reader.connection, reader.namespace, _bounded(reader, spec))
    detail = await reader.detail(question)
    export_id = secrets.token_urlsafe(12)
    told = {**asked, **range_of(question), "export": export_id, "total": str(lines)}
    await acts.record("export.make", **told)
    created = reader.now.timestamp()
    await _sweep(_state(request), created)
    kept = {
        "type": KIND,
        "owner": acts.caller.id,
        "created_at": created,
        "expires_at": created + KEPT_SECONDS,
        "spec": msgspec.to_builtins(spec),
        "total": lines,
        "done": 0,
        "state": "ready",
    }
    await _state(request).create(_document(export_id), kept)
    return ExportMade(id=export_id, total=lines, detail=detail)


@room.get("/exports/{id}", summary="How far an export is", responses=answers(404))
async def state(request: Request, acts: MayAsk, id: Id) -> ExportState:
    """How many lines its latest reading has sent."""
    kept = await _mine(request, acts, id)
    running = Reader(request, acts.caller).registry.exporting.get(id)
    known: ExportStage = kept.source["state"] if running is None else "running"
    done = kept.source["done"] if running is None else running
    return ExportState(id=id, state=known, total=kept.source["total"], done=done)


@room.get(
    "/exports/{id}/data",
    summary="Read an export",
    responses={**answers(400, 404), **STREAM},
    response_class=StreamingResponse,
)
async def data(
    request: Request,
    acts: MayRead,
    id: Id,
    after: Annotated[
        str,
        Query(
            max_length=600,
            description="Begin after this line: its `@timestamp` and `event.id`, joined by a "
            "comma. Both are in every line; of a CSV they are the first two columns.",
            examples=["2026-11-23T10:15:00.123456789Z,01939a6e-7c00-7000-8000-000000000001"],
        ),
    ] = "",
) -> StreamingResponse:
    """The lines. A reading that was cut goes on with `after`; both parts together are the same
    bytes that one undisturbed reading gives. Of a CSV only the first part has the heading."""
    kept = await _mine(request, acts, id)
    reader = Reader(request, acts.caller)
    spec = msgspec.convert(kept.source["spec"], Spec)
    told = _told(spec.query, spec.kind, spec.format, spec.fields)
    told |= {"since": spec.since or ALL_TIME, "until": spec.until or "", "export": id}
    acts.trying("export.read", **told, after=after)
    question = _bounded(reader, spec)
    done = 0
    if after:
        export.parse_position(after)
        done = await export.done_before(reader.connection, reader.namespace, question, after)
    exporting = reader.registry.exporting
    release = _booked(exporting, id, done, deps_of(request).settings.max_exports)
    try:
        await acts.record("export.read", **told, after=after)
    except BaseException:
        release()
        raise
    lines = export.chunks(
        reader.connection, reader.namespace, question, spec, after, reader.document
    )
    headers = {
        "content-disposition": f'attachment; filename="gatebook-{id}.{spec.format}"',
        "x-gatebook-total": str(kept.source["total"]),
        "x-gatebook-done": str(done),
    }
    return Released(
        _sent(request, id, lines, exporting),
        release,
        media_type=MEDIA[spec.format],
        headers=headers,
    )


def _told(query: str, kind: str, form: str, fields: Sequence[str] | None) -> dict[str, str]:
    """What is exported, as details of an act."""
    return {"query": query, "kind": kind, "format": form, "fields": ",".join(fields or ())}


def _booked(
    exporting: dict[str, int], export_id: str, done: int, at_most: int
) -> Callable[[], None]:
    """Take a place among the exports that are read now; what gives it back. Nothing is awaited
    between the look and the taking, so no two take the last one. Raises Refused."""
    if export_id in exporting or len(exporting) >= at_most:
        raise Refused(429, "too_many_exports", "too many exports are read now", "wait", None, 30)
    exporting[export_id] = done

    def release() -> None:
        exporting.pop(export_id, None)

    return release


async def _sent(
    request: Request, export_id: str, lines: AsyncIterator[Any], exporting: dict[str, int]
) -> AsyncIterator[bytes]:
    async with aclosing(lines):  # type: ignore[type-var]  # an async generator, which has aclose
        async for chunk in lines:
            yield chunk.data
            exporting[export_id] = exporting.get(export_id, 0) + chunk.lines
    await _finish(request, export_id, exporting.get(export_id, 0))


async def _finish(request: Request, export_id: str, done: int) -> None:
    """Remember that it was read to its end. If we die here, it only reads as not done."""
    state = _state(request)
    kept = await state.get(_document(export_id))
    if kept is not None:
        await state.replace(kept, {**kept.source, "state": "done", "done": done})


async def _sweep(state: ConsoleState, now: float) -> None:
    """Delete exports that can be read no more: their queries may name persons. Some at a time,
    those that are left with the next export that is made."""
    for kept in (await state.expired(KIND, now))[:SWEPT_AT_ONCE]:
        await state.delete(kept.id)


def _bounded(reader: Reader, spec: Spec) -> Question:
    """The question of a spec, for who asks now. Relative times in the query mean what they meant
    when the export was made, however late it is read."""
    reader.now = moment(spec.taken_in_until)
    asked = reader.question(spec.query, spec.since, spec.until, spec.kind)
    return export.bounded(asked, spec)


def _state(request: Request) -> ConsoleState:
    deps = deps_of(request)
    return ConsoleState(deps.connection, deps.namespace)


def _document(export_id: str) -> str:
    return f"export-{export_id}"


async def _mine(request: Request, acts: Acts, export_id: str) -> Kept:
    """The caller's own export. Raises Refused (404)."""
    kept = await _state(request).get(_document(export_id))
    is_mine = kept is not None and kept.source.get("owner") == acts.caller.id
    now = deps_of(request).clock().timestamp()
    if kept is None or not is_mine or kept.source["expires_at"] < now:
        raise Refused(404, "not_found", "you have no export with this id", "make a new one")
    return kept
