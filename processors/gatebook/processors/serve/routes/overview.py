"""The log at a glance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request

from gatebook.processors.search.asking import ask
from gatebook.processors.search.histogram import label
from gatebook.processors.search.question import Question, stamp
from gatebook.processors.serve.access.caller import Permission, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    Bucket,
    CountedFrom,
    DetectorActivity,
    Disk,
    Errors,
    FacetValue,
    IndexSize,
    OverviewAnswer,
    RoleState,
    Since,
    Storage,
    Tokens,
    Top,
)
from gatebook.processors.serve.reader import Reader
from gatebook.processors.summaries.answer import Figures, Ranked

room = APIRouter(prefix=API, tags=["overview"])
MayLook = Annotated[Acts, Depends(requires(Permission.OVERVIEW, "overview.view"))]
BUCKETS = 60
TOP = 10
MAX_RULES = 100
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
PRINCIPAL = "gatebook.principal"
# Under these names Gatebook records what its own users do, at the command line and in the service.
OWN_SERVICES = ("gatebook-operator", "gatebook-policy")
WITHOUT_OWN = " and ".join(f'not service.name:"{name}"' for name in OWN_SERVICES)
MODEL, OUTCOME, FAILURE = "gen_ai.request.model", "event.outcome", "failure"
_FAILED: dict[str, Any] = {
    "failed": {
        "filter": {"term": {OUTCOME: {"value": FAILURE}}},
        "aggs": {"reasons": {"terms": {"field": "event.reason", "size": TOP}}},
    }
}
_SUMS = {"input": {"sum": {"field": INPUT}}, "output": {"sum": {"field": OUTPUT}}}


@room.get("/overview", summary="Overview", responses=answers(400))
async def overview(
    request: Request,
    acts: MayLook,
    since: Annotated[Since, Query()] = "24h",
    include_own: Annotated[
        bool, Query(description="Whether what Gatebook records of its own users counts, too.")
    ] = False,
) -> OverviewAnswer:
    """Traffic, tokens, errors, the models and principals with most accesses, what detectors
    found, how fresh the index is, what waits in Kafka for it, and what it takes. What auditors and
    operators do in Gatebook itself counts only with `include_own`."""
    began = time.perf_counter()
    reader = Reader(request, acts.caller)
    acts.trying("overview.view", since=since)
    question = reader.question("" if include_own else WITHOUT_OWN, since, reader.until(""))
    traffic, figures, detectors, lag, storage, pipeline = await reader.together(
        reader.histogram(question, BUCKETS, "event.outcome"),
        _figures(reader, question),
        _detectors(reader, since),
        reader.lag(),
        _storage(reader),
        _pipeline(reader),
    )
    await acts.done()
    return OverviewAnswer(
        since=traffic.since,
        until=traffic.until,
        took_ms=round((time.perf_counter() - began) * 1000, 2),
        interval_seconds=traffic.interval.total_seconds(),
        source=traffic.source,
        figures_source=figures.source,
        total=traffic.total,
        traffic=[Bucket(at=stamp(b.at), count=b.count, parts=b.parts) for b in traffic.buckets],
        tokens=figures.tokens,
        errors=figures.errors,
        top_models=figures.models,
        top_principals=figures.principals,
        detectors=detectors,
        lag=lag,
        storage=storage,
        pipeline=pipeline,
    )


@dataclass(frozen=True, slots=True)
class _Figures:
    source: CountedFrom
    tokens: Tokens
    errors: Errors
    models: list[Top]
    principals: list[Top]


async def _figures(reader: Reader, question: Question) -> _Figures:
    # Who may not know persons sees none at all.
    principal = "" if reader.is_masked(PRINCIPAL) else PRINCIPAL
    summed = await reader.figures(question, [MODEL, OUTCOME, *filter(None, [principal])], TOP)
    if summed is None:
        wanted = {**_SUMS, "models": _top(MODEL), **_FAILED}
        if principal:
            wanted["principals"] = _top(principal)
        return _of_details(await reader.aggregate(question, wanted))
    # Summaries keep no reasons: those are of the details that are there.
    return _of_summaries(summed, principal, await reader.aggregate(question, _FAILED))


def _of_details(found: dict[str, Any]) -> _Figures:
    return _Figures(
        "details",
        Tokens(input=_sum(found, "input"), output=_sum(found, "output")),
        _errors(found),
        _tops(found, "models"),
        _tops(found, "principals"),
    )


def _of_summaries(summed: Figures, principal: str, details: dict[str, Any]) -> _Figures:
    failed = next((n for value, n, _ in summed.fields[OUTCOME].values if value == FAILURE), 0)
    return _Figures(
        cast(CountedFrom, summed.source),
        Tokens(input=summed.input_tokens, output=summed.output_tokens),
        Errors(total=failed, reasons=_errors(details).reasons),
        _ranked(summed.fields[MODEL]),
        _ranked(summed.fields[principal]) if principal else [],
    )


def _ranked(found: Ranked) -> list[Top]:
    return [Top(value=value, count=count, tokens=sums) for value, count, sums in found.values]


def _top(name: str) -> dict[str, Any]:
    return {"terms": {"field": name, "size": TOP, "shard_size": 20 * TOP}, "aggs": _SUMS}


def _sum(found: dict[str, Any], name: str) -> int:
    return int(found.get(name, {}).get("value") or 0)


def _tops(figures: dict[str, Any], name: str) -> list[Top]:
    return [
        Top(
            value=label(bucket),
            count=bucket["doc_count"],
            tokens=_sum(bucket, "input") + _sum(bucket, "output"),
        )
        for bucket in figures.get(name, {}).get("buckets", [])
    ]


def _errors(figures: dict[str, Any]) -> Errors:
    failed = figures.get("failed", {"doc_count": 0, "reasons": {"buckets": []}})
    reasons = [
        FacetValue(value=label(b), count=b["doc_count"]) for b in failed["reasons"]["buckets"]
    ]
    return Errors(total=failed["doc_count"], reasons=reasons)


async def _detectors(reader: Reader, since: str) -> list[DetectorActivity]:
    question = reader.question("", since, reader.until(""), "finding")
    inner = {
        "actions": {"terms": {"field": "event.action", "size": 10}},
        "names": {"terms": {"field": "rule.name", "size": 1}},
        "last": {"max": {"field": "@timestamp"}},
    }
    rules = {"terms": {"field": "rule.id", "size": MAX_RULES}, "aggs": inner}
    found = await reader.aggregate(question, {"rules": rules})
    return [_activity(bucket) for bucket in found.get("rules", {}).get("buckets", [])]


def _activity(bucket: dict[str, Any]) -> DetectorActivity:
    actions = {b["key"]: b["doc_count"] for b in bucket["actions"]["buckets"]}
    names = bucket["names"]["buckets"]
    return DetectorActivity(
        rule=bucket["key"],
        name=names[0]["key"] if names else "",
        firing=actions.get("firing", 0),
        resolved=actions.get("resolved", 0),
        last=bucket["last"].get("value_as_string"),
    )


async def _storage(reader: Reader) -> Storage | None:
    """Sizes of indices tell of all tenants, so only those see them who see all tenants."""
    if reader.caller.tenants is not None:
        return None
    path = f"/{reader.namespace}-*/_stats/docs,store"
    found = await ask(reader.connection, path, absent={}, method="GET")
    sizes = [
        IndexSize(
            name=name,
            documents=stats["primaries"]["docs"]["count"],
            bytes=stats["total"]["store"]["size_in_bytes"],
        )
        for name, stats in found.get("indices", {}).items()
    ]
    newest_first = sorted(sizes, key=lambda size: size.name, reverse=True)
    return Storage(indices=newest_first, disk=await _disk(reader))


async def _disk(reader: Reader) -> Disk | None:
    answer = await reader.connection.request("GET", "/_nodes/stats/fs")
    if answer.status != 200:
        return None
    nodes = [node.get("fs", {}).get("total", {}) for node in answer.body["nodes"].values()]
    return Disk(
        total_bytes=sum(node.get("total_in_bytes", 0) for node in nodes),
        free_bytes=sum(node.get("available_in_bytes", 0) for node in nodes),
    )


async def _pipeline(reader: Reader) -> list[RoleState] | None:
    """What waits is of all tenants, as what is stored."""
    return await reader.registry.deps.waiting() if reader.caller.tenants is None else None
