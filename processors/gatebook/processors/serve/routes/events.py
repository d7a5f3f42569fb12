"""One event: everything about it, what is around it, and its content for those who may."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from gatebook.processors.search.asking import Hit
from gatebook.processors.search.display import value_at
from gatebook.processors.search.question import moment, stamp
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.access.masking import refuse_masked
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    MAX_NEIGHBOURS,
    AroundAnswer,
    AroundBy,
    Cited,
    EventAnswer,
    Evidence,
    Moment,
    Related,
    RevealAnswer,
    RevealRequest,
)
from gatebook.processors.serve.reader import Reader, kind_of
from gatebook.processors.subjects.verify import verify_document

room = APIRouter(prefix=API, tags=["events"])
MaySee = Annotated[Acts, Depends(requires(Permission.SEARCH, "event.view"))]
MayLookAround = Annotated[Acts, Depends(requires(Permission.SEARCH, "event.around"))]
MayReveal = Annotated[Acts, Depends(requires(Permission.REVEAL_REDACTED, "event.reveal"))]
Id = Annotated[
    str,
    Path(
        min_length=1,
        max_length=512,
        description="event.id of an access, a finding, a dead letter or an alert.",
        examples=["01939a6e-7c00-7000-8000-000000000001"],
    ),
]
Neighbours = Annotated[int, Query(ge=0, le=MAX_NEIGHBOURS)]


def nothing(what: str = "no document has this id, or none that you may see") -> Refused:
    """There is no such thing for this caller."""
    return Refused(404, "not_found", what)


@room.get("/events/{id}", summary="One event", responses=answers(404))
async def event(request: Request, acts: MaySee, id: Id) -> EventAnswer:
    """Its documents of whatever kind, the findings that cite it, the steps of its life, and what
    its document says of itself."""
    reader = Reader(request, acts.caller)
    acts.trying("event.view", event=id)
    hits = await reader.by_id(id)
    own = [hit for hit in hits if hit.id == id]
    if not own:
        raise nothing()
    cited = [hit for hit in hits if hit.id != id]
    access = next((hit.source for hit in own if kind_of(hit.index) == "access"), None)
    related = await reader.related(access) if access else []
    await acts.done()
    return EventAnswer(
        documents=[reader.shown(hit) for hit in own],
        cited_by=[Cited(**reader.shown(hit).model_dump()) for hit in cited],
        timeline=_timeline(own, cited),
        related=[Related(by=by, value=value, count=n) for by, value, n in related],
        evidence=evidence_of(access or own[0].source, checked=access is not None),
    )


@room.get("/events/{id}/around", summary="What is around an event", responses=answers(400, 404))
async def around(
    request: Request,
    acts: MayLookAround,
    id: Id,
    by: Annotated[
        AroundBy | None, Query(description="Only those with the same value of this field.")
    ] = None,
    before: Neighbours = 20,
    after: Neighbours = 20,
) -> AroundAnswer:
    """The accesses before and after one: of the same service, person, principal (a caller known by
    key or address, too), trace, conversation, session or address, or of all."""
    reader = Reader(request, acts.caller)
    acts.trying("event.around", event=id, by=by or "")
    if by is not None:
        refuse_masked(acts.caller, by)
    hits = await reader.by_id(id)
    access = next((h for h in hits if h.id == id and kind_of(h.index) == "access"), None)
    if access is None:
        raise nothing("no access has this id, or none that you may see")
    found = await reader.around(access, by, before, after)
    await acts.done()
    return AroundAnswer(
        by=by,
        value=found.value,
        event=reader.shown(found.event),
        before=[reader.shown(hit) for hit in found.before],
        after=[reader.shown(hit) for hit in found.after],
    )


@room.post("/events/{id}/reveal", summary="Open sealed content", responses=answers(404, 413))
async def reveal(request: Request, acts: MayReveal, id: Id, body: RevealRequest) -> RevealAnswer:
    """The sealed content of an access. That it is opened, by whom and why, is in the log before
    anything is shown. `full` needs a role that may see unredacted content."""
    full = body.layer == "full"
    acts.trying("event.reveal", event=id, reveal=body.layer, reason=body.reason)
    if full and not acts.caller.may(Permission.REVEAL_FULL):
        raise Refused(403, "forbidden", f"your roles do not allow this ({Permission.REVEAL_FULL})")
    reader = Reader(request, acts.caller)
    hits = await reader.by_id(id)
    access = next((h for h in hits if h.id == id and kind_of(h.index) == "access"), None)
    if access is None:
        raise nothing("no access has this id, or none that you may see")
    await acts.record("event.reveal", event=id, reveal=body.layer, reason=body.reason)
    found = await deps_of(request).reveal(access.source, ("full",) if full else ("redacted",))
    return RevealAnswer(id=id, layers=found)


# --- what a document says of itself ------------------------------------------------------------


def evidence_of(source: dict[str, Any], checked: bool) -> Evidence:
    """Digest, content and number of an event."""
    verified = verify_document(source) if checked else None
    return Evidence(
        digest=_text(source, "event.hash"),
        digest_holds=verified.digest_holds if verified else None,
        content=verified.content if verified else "none",
        producer_id=_text(source, "gatebook.producer_id"),
        epoch=value_at(source, "gatebook.epoch"),
        sequence=value_at(source, "gatebook.sequence"),
        capture_level=_text(source, "gatebook.capture.level"),
    )


def _text(source: dict[str, Any], name: str) -> str | None:
    value = value_at(source, name)
    return value if isinstance(value, str) else None


_STEPS = (
    ("@timestamp", "began", "event.action"),
    ("event.end", "ended", "event.outcome"),
    ("event.created", "recorded by its producer", "service.name"),
    ("event.ingested", "taken in", "gatebook.capture.level"),
)


def _timeline(own: Sequence[Hit], cited: Sequence[Hit]) -> list[Moment]:
    """What happened when, in order of time; nothing of it is ever masked."""
    steps: list[Moment] = []
    for hit in own:
        if kind_of(hit.index) == "access":
            steps += _steps_of(hit.source)
        else:
            at, kind = str(hit.source["@timestamp"]), kind_of(hit.index)
            steps.append(Moment(at=at, name=kind, detail=_text(hit.source, "rule.id") or ""))
    for hit in cited:
        action = _text(hit.source, "event.action") or "finding"
        rule = _text(hit.source, "rule.id") or ""
        name = f"cited by a finding ({action})"
        steps.append(Moment(at=str(hit.source["@timestamp"]), name=name, detail=rule))
    return sorted(steps, key=lambda step: step.at.rstrip("Z"))


def _steps_of(source: dict[str, Any]) -> list[Moment]:
    steps = [
        Moment(at=at, name=name, detail=_text(source, detail) or "")
        for field, name, detail in _STEPS
        if (at := _text(source, field))
    ]
    seconds = value_at(source, "gen_ai.response.time_to_first_chunk")
    if isinstance(seconds, int | float) and 0 <= seconds < 86_400:
        at = stamp(moment(str(source["@timestamp"])) + timedelta(seconds=seconds))
        steps.append(Moment(at=at, name="first part of the answer", detail=f"{seconds:.3f} s"))
    return steps
