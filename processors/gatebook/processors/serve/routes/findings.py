"""Findings as incidents, with what they are held against, and what people say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request

from gatebook.processors.alerts.base import CLOSED
from gatebook.processors.alerts.severity import rank
from gatebook.processors.alerts.verdicts import (
    BY_LABEL,
    FINDING_ID_LABEL,
    Problem,
    judged,
    newest_firing,
    problem_key,
    problems,
    word_on,
)
from gatebook.processors.search.asking import Hit
from gatebook.processors.search.baseline import series
from gatebook.processors.search.display import value_at
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.question import Question, stamp
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.access.masking import MASK
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    AcknowledgeAnswer,
    Baseline,
    FindingAnswer,
    FindingItem,
    FindingsAnswer,
    Point,
    Since,
    VerdictAnswer,
    VerdictRequest,
    VerdictTold,
    Window,
)
from gatebook.processors.serve.reader import Reader
from gatebook.schemas.reason_text import is_stated

room = APIRouter(prefix=API, tags=["findings"])
MayList = Annotated[Acts, Depends(requires(Permission.SEARCH, "finding.list"))]
MaySee = Annotated[Acts, Depends(requires(Permission.SEARCH, "finding.view"))]
MayJudge = Annotated[Acts, Depends(requires(Permission.VERDICT, "finding.verdict"))]
MayAcknowledge = Annotated[Acts, Depends(requires(Permission.VERDICT, "finding.acknowledged"))]
MAX_DOCUMENTS = 100_000
MAX_SHOWN = 500
MAX_MEMBERS = 500
# What tells incidents, and how they stand: of documents of which there may be very many.
FACTS = (
    "@timestamp",
    "event.id",
    "event.kind",
    "event.action",
    "event.reason",
    "gatebook.incident",
    "gatebook.severity",
    "gatebook.verdict",
    f"labels.{FINDING_ID_LABEL}",
    f"labels.{BY_LABEL}",
)
OPEN_STATES = ("firing", "acknowledged")
Severity = Literal["info", "warning", "error", "critical"]
Incident = Annotated[
    str,
    Path(min_length=1, max_length=512, description="Id of the incident, or of one finding of it."),
]


@room.get("/findings", summary="Findings", responses=answers(400))
async def findings(
    request: Request,
    acts: MayList,
    state: Annotated[
        Literal["open", "all"], Query(description="open: firing or acknowledged.")
    ] = "open",
    since: Annotated[Since, Query()] = "7d",
    severity: Annotated[Severity | None, Query(description="Only of this one.")] = None,
    offset: Annotated[
        int,
        Query(ge=0, le=MAX_DOCUMENTS, description="How many to leave out, of the gravest first."),
    ] = 0,
) -> FindingsAnswer:
    """Incidents of a time, each with its latest finding: at most 500, newest first. Where there
    are more, the gravest are answered first and `offset` gives the others; each answer is of its
    own moment."""
    reader = Reader(request, acts.caller)
    shown_from = str(offset) if offset else ""
    asked = {"state": state, "since": since, "severity": severity or "", "offset": shown_from}
    acts.trying("finding.list", **asked)
    question = reader.question("", since, None, "finding")
    documents, hits = await reader.facts(question, FACTS, MAX_DOCUMENTS)
    found = problems({"gatebook": {}, **hit.source} for hit in hits)
    of_state = [p for p in found if state == "all" or p.state in OPEN_STATES]
    wanted = [p for p in of_state if severity is None or _severity(p) == severity]
    shown = _page(wanted, offset)
    by_severity = Counter(map(_severity, of_state))
    await _read_whole(reader, question, shown)
    unread = documents - len(hits)
    await acts.done()
    return FindingsAnswer(
        total=len(wanted),
        findings=[_item(reader, problem) for problem in shown],
        by_severity=by_severity,
        complete=not unread,
        unread=unread,
        unread_before=str(hits[-1].source["@timestamp"]) if unread else None,
    )


def _severity(problem: Problem) -> str:
    return str(problem.finding["gatebook"].get("severity") or "")


def _page(wanted: Sequence[Problem], offset: int) -> list[Problem]:
    """Of incidents, newest first, as many as one answer has, the gravest ones; newest first."""
    graver = sorted(range(len(wanted)), key=lambda at: (-rank(_severity(wanted[at])), at))
    return [wanted[at] for at in sorted(graver[offset : offset + MAX_SHOWN])]


async def _read_whole(reader: Reader, question: Question, incidents: Sequence[Problem]) -> None:
    """Give each its finding's whole document."""
    by_id = {problem.finding["event"]["id"]: problem for problem in incidents}
    narrowed = question.narrowed({"ids": {"values": list(by_id)}})
    _total, hits = await reader.documents(narrowed, MAX_SHOWN)
    for hit in hits:
        by_id[hit.id].finding = hit.source


def _item(reader: Reader, problem: Problem) -> FindingItem:
    return FindingItem(
        incident=problem_key(problem.finding),
        state=problem.state,
        verdict=problem.verdict,
        reason=_of_person(reader, problem.reason),
        by=_of_person(reader, problem.by),
        findings=problem.findings,
        finding=reader.document(problem.finding),
    )


@room.get("/findings/{incident}", summary="One finding", responses=answers(404))
async def finding(request: Request, acts: MaySee, incident: Incident) -> FindingAnswer:
    """An incident: all that was found and said of it, its window, and how its figure went before
    and after."""
    reader = Reader(request, acts.caller)
    acts.trying("finding.view", finding=incident)
    members, latest = await _cited(reader, incident)
    problem = problems(hit.source for hit in reversed(members))
    baseline = await _baseline(reader, latest)
    await acts.done()
    return FindingAnswer(
        finding=reader.document(latest),
        state=problem[0].state,
        members=[reader.shown(hit) for hit in members],
        baseline=baseline,
        verdicts=[_verdict(reader, hit.source) for hit in members if _is_word(hit.source)],
    )


@room.post(
    "/findings/{incident}/acknowledge", summary="Acknowledge", responses=answers(404, 409, 413)
)
async def acknowledge(
    request: Request, acts: MayAcknowledge, incident: Incident
) -> AcknowledgeAnswer:
    """Say that somebody has an incident in hand; targets that know such a step are told. It goes
    to the finding topic, and the index has it a moment later. A closed one stays as it is."""
    reader = Reader(request, acts.caller)
    acts.trying("finding.acknowledged", finding=incident)
    members, latest = await _cited(reader, incident)
    if judged([hit.source for hit in members]):
        raise Refused(409, "closed", "this is closed already")
    now_ns = int(reader.now.timestamp() * 1e9)
    await acts.record("finding.acknowledged", finding=incident)
    await deps_of(request).say(word_on(latest, "acknowledged", now_ns, by=acts.caller.id))
    return AcknowledgeAnswer(incident=problem_key(latest), at=stamp(reader.now))


@room.post(
    "/findings/{incident}/verdict", summary="Give a verdict", responses=answers(404, 409, 413)
)
async def verdict(
    request: Request, acts: MayJudge, incident: Incident, body: VerdictRequest
) -> VerdictAnswer:
    """Close an incident with what a person makes of it. It goes to the finding topic, so that
    alerts end, too; the index has it a moment later. Where there is a verdict already, the new
    one replaces it and says why in its note."""
    reader = Reader(request, acts.caller)
    acts.trying("finding.verdict", finding=incident, verdict=body.verdict, reason=body.note)
    members, latest = await _cited(reader, incident)
    if not is_stated(body.note) and judged([hit.source for hit in members]):
        raise Refused(409, "verdict_given", "there is a verdict already: say in `note` why another")
    now_ns = int(reader.now.timestamp() * 1e9)
    await acts.record("finding.verdict", finding=incident, verdict=body.verdict, reason=body.note)
    record = word_on(
        latest, "closed", now_ns, verdict=body.verdict, reason=body.note, by=acts.caller.id
    )
    await deps_of(request).say(record)
    return VerdictAnswer(incident=problem_key(latest), verdict=body.verdict, at=stamp(reader.now))


async def _cited(reader: Reader, incident: str) -> tuple[list[Hit], dict[str, Any]]:
    """Findings and words of an incident, oldest first, and the finding that a word would cite."""
    members = await _members(reader, incident)
    latest = newest_firing([hit.source for hit in members], incident)
    if latest is None:
        raise Refused(404, "not_found", "no finding has this id, or none that you may see")
    return members, dict(latest)


async def _members(reader: Reader, incident: str) -> list[Hit]:
    """Findings and words of an incident, oldest first; by the id of one of them, all."""
    if not incident.isprintable():
        return []
    found = await _having(reader, [incident])
    keys = sorted({incident, *(problem_key(hit.source) for hit in found)})
    return found if keys == [incident] else await _having(reader, keys)


async def _having(reader: Reader, keys: Sequence[str]) -> list[Hit]:
    names = ("event.id", "gatebook.incident", "labels.finding_id")
    should = [{"terms": {name: list(keys)}} for name in names]
    any_of = {"bool": {"should": should, "minimum_should_match": 1}}
    question = reader.own_question("", "finding").narrowed(any_of)
    _total, hits = await reader.documents(question, MAX_MEMBERS)
    return hits[::-1]


def _is_word(source: dict[str, Any]) -> bool:
    return value_at(source, "event.action") not in ("firing", "resolved", None)


def _of_person(reader: Reader, text: str) -> str:
    """Who said it, and what: masked where the caller may not know persons."""
    return MASK if text and reader.is_masked("user.id") else text


def _verdict(reader: Reader, source: dict[str, Any]) -> VerdictTold:
    action = str(value_at(source, "event.action"))
    note = value_at(source, "event.reason")
    return VerdictTold(
        at=str(source["@timestamp"]),
        verdict=str(value_at(source, "gatebook.verdict") or "") if action == CLOSED else "",
        note=_of_person(reader, str(note or "")),
        by=_of_person(reader, str(value_at(source, f"labels.{BY_LABEL}") or "")),
        action=action,
    )


async def _baseline(reader: Reader, finding: dict[str, Any]) -> Baseline | None:
    """None where the finding's search cannot be read, as one of a rule that is gone may be."""
    query = value_at(finding, "gatebook.search")
    try:
        question = reader.own_question(str(query or "*"))
    except QueryError:
        return None
    found = await series(reader.connection, reader.namespace, question, finding, reader.now)
    return Baseline(
        unit=str(value_at(finding, "gatebook.unit") or ""),
        threshold=value_at(finding, "gatebook.threshold"),
        observed=value_at(finding, "gatebook.observed"),
        baseline=value_at(finding, "gatebook.baseline"),
        interval_seconds=found.interval.total_seconds(),
        series=[Point(at=at, value=value) for at, value in found.points],
        window=Window(since=found.since, until=found.until),
        exact=found.exact,
    )
