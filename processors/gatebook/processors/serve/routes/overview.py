"""The log at a glance."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gatebook.processors.search.asking import ask
from gatebook.processors.search.histogram import label
from gatebook.processors.search.question import stamp
from gatebook.processors.serve.access.caller import Permission, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    Bucket,
    DetectorActivity,
    Disk,
    Errors,
    FacetValue,
    IndexSize,
    OverviewAnswer,
    Since,
    Storage,
    Tokens,
    Top,
)
from gatebook.processors.serve.reader import Reader

room = APIRouter(prefix=API, tags=["overview"])
MayLook = Annotated[Acts, Depends(requires(Permission.OVERVIEW))]
BUCKETS = 60
TOP = 10
MAX_RULES = 100
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
_SUMS = {"input": {"sum": {"field": INPUT}}, "output": {"sum": {"field": OUTPUT}}}


@room.get("/overview", summary="Overview", responses=answers(400))
async def overview(
    request: Request, acts: MayLook, since: Annotated[Since, Query()] = "24h"
) -> OverviewAnswer:
    """Traffic, tokens, errors, the models and principals with most accesses, what detectors
    found, how fresh the index is, and what it takes."""
    began = time.perf_counter()
    reader = Reader(request, acts.caller)
    question = reader.question("", since, reader.until(""))
    acts.note("overview.view", since=since)
    traffic, figures, detectors, lag, storage = await reader.together(
        reader.histogram(question, BUCKETS, "event.outcome"),
        reader.aggregate(question, _figures(reader)),
        _detectors(reader, since),
        reader.lag(),
        _storage(reader),
    )
    return OverviewAnswer(
        since=traffic.since,
        until=traffic.until,
        took_ms=round((time.perf_counter() - began) * 1000, 2),
        interval_seconds=traffic.interval.total_seconds(),
        source=traffic.source,
        total=traffic.total,
        traffic=[Bucket(at=stamp(b.at), count=b.count, parts=b.parts) for b in traffic.buckets],
        tokens=Tokens(input=_sum(figures, "input"), output=_sum(figures, "output")),
        errors=_errors(figures),
        top_models=_tops(figures, "models"),
        top_principals=_tops(figures, "principals"),
        detectors=detectors,
        lag=lag,
        storage=storage,
    )


def _figures(reader: Reader) -> dict[str, Any]:
    # A principal may be an address: who must not see those sees users by id.
    principal = "user.id" if reader.is_masked("gatebook.principal") else "gatebook.principal"
    failed = {"term": {"event.outcome": {"value": "failure"}}}
    reasons = {"terms": {"field": "event.reason", "size": TOP}}
    return {
        **_SUMS,
        "failed": {"filter": failed, "aggs": {"reasons": reasons}},
        "models": _top("gen_ai.request.model"),
        "principals": _top(principal),
    }


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
