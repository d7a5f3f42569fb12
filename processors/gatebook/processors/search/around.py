"""What happened before and after an event, and what else belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatebook.processors.search.asking import TIME_FORMAT, BadRequest, Hit, ask, hit_of
from gatebook.processors.search.display import value_at
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.histogram import aggregate
from gatebook.processors.search.question import Question
from gatebook.processors.sinks.connection import Connection

AROUND_BY = (
    "service.name",
    "user.id",
    "gatebook.principal",
    "trace.id",
    "gen_ai.conversation.id",
    "session.id",
    "source.ip",
)
NO_HITS: Dsl = {"hits": {"hits": []}}


@dataclass(frozen=True, slots=True)
class Around:
    """Neighbours of an event in order of time, the nearest at the end of `before` and at the
    beginning of `after`."""

    by: str | None
    value: str | None
    event: Hit
    before: list[Hit]
    after: list[Hit]


async def around(
    client: Connection,
    namespace: str,
    question: Question,
    event: Hit,
    by: str | None = None,
    before: int = 20,
    after: int = 20,
) -> Around:
    """Documents before and after one by @timestamp and, within the same instant, event.id; with
    `by`, those that have the same value of that field. The question says who asks, and may narrow
    more; it has no range. Raises BadRequest where the event has no such value."""
    value = None if by is None else value_of(event.source, by)
    if by is not None and value is None:
        raise BadRequest(f"the event has no {by}", "leave `by` out, or take another field")
    asked = question if by is None else question.narrowed({"term": {by: {"value": value}}})
    index = f"{namespace}-{question.kind}"
    earlier, later = await asyncio.gather(
        _beside(client, index, asked, event, "desc", before),
        _beside(client, index, asked, event, "asc", after),
    )
    return Around(by, value, event, earlier[::-1], later)


def value_of(source: Mapping[str, Any], name: str) -> str | None:
    """The value of a field as text; None where there is none."""
    value = value_at(source, name)
    return str(value) if isinstance(value, str | int) and value != "" else None


async def _beside(
    client: Connection, index: str, question: Question, event: Hit, order: str, size: int
) -> list[Hit]:
    if size == 0:
        return []
    body = {
        "size": size,
        "query": question.dsl,
        "sort": [
            {"@timestamp": {"order": order, "format": TIME_FORMAT}},
            {"event.id": {"order": order}},
        ],
        "search_after": [event.source["@timestamp"], event.source["event"]["id"]],
        "track_total_hits": False,
    }
    found = await ask(client, f"/{index}/_search", absent=NO_HITS, json=body)
    return [hit_of(hit) for hit in found["hits"]["hits"]]


async def related(
    client: Connection,
    namespace: str,
    question: Question,
    source: Mapping[str, Any],
    fields: tuple[str, ...] = AROUND_BY,
) -> list[tuple[str, str, int]]:
    """For each field that the document has: its value, and how many documents have the same, the
    document itself included."""
    values = {name: text for name in fields if (text := value_of(source, name))}
    if not values:
        return []
    filters = {name: {"term": {name: {"value": text}}} for name, text in values.items()}
    aggs = {"same": {"filters": {"filters": filters}}}
    found = await aggregate(client, f"{namespace}-{question.kind}", question, aggs)
    buckets = found.get("same", {}).get("buckets", {})
    return [
        (name, text, int(buckets[name]["doc_count"]))
        for name, text in values.items()
        if name in buckets
    ]
