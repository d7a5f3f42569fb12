"""Counts over time and by value."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from gatebook.processors.search.facets import Facet as Found
from gatebook.processors.search.question import stamp
from gatebook.processors.serve.access.caller import Permission, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    Bucket,
    Facet,
    FacetsAnswer,
    FacetsRequest,
    FacetValue,
    HistogramAnswer,
    HistogramRequest,
)
from gatebook.processors.serve.reader import Reader, asked_range, range_of

room = APIRouter(prefix=API, tags=["counts"])
MayHistogram = Annotated[Acts, Depends(requires(Permission.SEARCH, "search.histogram"))]
MayFacets = Annotated[Acts, Depends(requires(Permission.SEARCH, "search.facets"))]


@room.post("/histogram", summary="Counts over time", responses=answers(400, 413))
async def histogram(
    request: Request, acts: MayHistogram, body: HistogramRequest
) -> HistogramAnswer:
    """How many documents match in each interval; the intervals have a length that is read easily,
    and none is left out."""
    began = time.perf_counter()
    acts.trying("search.histogram", query=body.query, kind=body.kind, split_by=body.split_by or "")
    acts.trying("search.histogram", **asked_range(body.since, body.until))
    reader = Reader(request, acts.caller)
    question = reader.question(body.query, body.since, reader.until(body.until), body.kind)
    reader.countable(body.kind, [body.split_by] if body.split_by else [])
    acts.trying("search.histogram", **range_of(question))
    found = await reader.histogram(question, body.buckets, body.split_by)
    await acts.done()
    return HistogramAnswer(
        since=found.since,
        until=found.until,
        interval_seconds=found.interval.total_seconds(),
        total=found.total,
        took_ms=round((time.perf_counter() - began) * 1000, 2),
        source=found.source,
        buckets=[Bucket(at=stamp(b.at), count=b.count, parts=b.parts) for b in found.buckets],
    )


@room.post("/facets", summary="Most frequent values", responses=answers(400, 413))
async def facets(request: Request, acts: MayFacets, body: FacetsRequest) -> FacetsAnswer:
    """The most frequent values of up to 12 fields, with how many documents have another one or
    none."""
    began = time.perf_counter()
    acts.trying("search.facets", query=body.query, kind=body.kind, fields=",".join(body.fields))
    acts.trying("search.facets", **asked_range(body.since, body.until))
    reader = Reader(request, acts.caller)
    question = reader.question(body.query, body.since, reader.until(body.until), body.kind)
    reader.countable(body.kind, body.fields)
    acts.trying("search.facets", **range_of(question))
    found = await reader.facets(question, body.fields, body.size)
    await acts.done()
    return FacetsAnswer(
        since=found.since or question.since,
        until=found.until or question.until,
        total=found.total,
        source=found.source,
        took_ms=round((time.perf_counter() - began) * 1000, 2),
        facets={name: _facet(facet) for name, facet in found.facets.items()},
    )


def _facet(found: Found) -> Facet:
    return Facet(
        values=[FacetValue(value=value, count=count) for value, count in found.values],
        other=found.other,
        missing=found.missing,
        distinct=found.distinct,
        exact=found.exact,
        source=found.source,
    )
