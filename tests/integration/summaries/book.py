"""A namespace with details in real Elasticsearch, and what its details add up to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.processors.summaries.check import Checked, check
from gatebook.processors.summaries.rollup import Report, Rollup
from gatebook.processors.summaries.rows import BY_ALL, BY_PRINCIPAL, DAY, HOUR
from gatebook.processors.summaries.store import SummaryStore
from gatebook.schemas.documents import timestamp_text

DAY_ONE = datetime(2026, 11, 20, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
# Everything that is counted and can be told apart by fields alone.
COUNTED = ("organization.id", "service.name", "gen_ai.request.model", "event.outcome",
           "gatebook.principal", "user.id")  # fmt: skip


def nanoseconds(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


def event(number: int, at: datetime, **given: Any) -> Row:
    """An access; the same number is the same access. `given` is merged in, one level deep."""
    draw = random.Random(number)
    person, tenant = draw.choice(("ada", "bob", "eve")), draw.choice(("acme", "wayne", ""))
    outcome = draw.choice(("success", "success", "failure"))
    at_ns = nanoseconds(at) + draw.randrange(10**9)
    document: dict[str, Any] = {
        "@timestamp": timestamp_text(at_ns),
        "event": {
            "id": f"event-{number:06d}",
            "hash": f"h{number}",
            "outcome": outcome,
            "duration": draw.randrange(10**6, 10**10),
            "ingested": timestamp_text(at_ns + 10**9),
        },
        "user": {"id": person},
        "service": {"name": draw.choice(("chat", "code"))},
        "gen_ai": {
            "operation": {"name": "chat"},
            "request": {"model": draw.choice(("small", "tiny"))},
            "usage": {"input_tokens": draw.randrange(900), "output_tokens": draw.randrange(90)},
        },
        "http": {"response": {"status_code": 200 if outcome == "success" else 503}},
        "gatebook": {
            "phase": "terminal",
            "principal": f"{tenant}/user:{person}" if tenant else f"user:{person}",
            "subject": f"tag-{tenant}-{person}-0123456789",
        },
    }
    if tenant:
        document["organization"] = {"id": tenant}
    if draw.random() < 0.5:
        document["gen_ai"]["response"] = {"time_to_first_chunk": round(draw.random(), 6)}
    for name, value in given.items():
        document[name] = {**document.get(name, {}), **value}
    body = orjson.dumps(document)
    return Row("access", f"{at:%Y.%m.%d}", document["event"]["id"], f"h{number}", body)


def spread_out(count: int, since: datetime, hours: int, first: int = 0) -> list[Row]:
    """Accesses over some hours, the same every time."""
    draw = random.Random(first)
    return [
        event(first + n, since + timedelta(seconds=draw.randrange(hours * 3_600)))
        for n in range(count)
    ]


class Book:
    """Details and summaries of one namespace."""

    def __init__(self, url: str, namespace: str, connection: Connection | None = None) -> None:
        self.url = url
        self.namespace = namespace
        self.connection = connection or Connection(ElasticsearchSettings(url=url))
        self._sink = ElasticsearchSink(namespace, self.connection, SinkSettings(max_age_days=3_650))

    async def prepare(self) -> None:
        await setup_elasticsearch(ElasticsearchSettings(url=self.url), self.namespace)

    async def write(self, rows: Iterable[Row]) -> None:
        outcome = await self._sink.write(list(rows))
        assert not outcome.rejected, outcome.rejected[:1]

    async def run(self, until: datetime = NOW, **given: Any) -> Report:
        store = SummaryStore(self.connection, self.namespace)
        async with store.lease(10) as lease:
            return await Rollup(store, lease).run(until, **given)

    async def check(self) -> Checked:
        return await check(self.connection, self.namespace)

    async def aggregate(self, index: str, query: dict[str, Any], aggregations: Any) -> Any:
        name = f"/{self.namespace}-{index}"
        await self.connection.request("POST", f"{name}/_refresh")
        body = {"size": 0, "query": query, "aggs": aggregations}
        answer = await self.connection.request("POST", f"{name}/_search", json=body)
        assert answer.status == 200, answer.body
        return answer.body["aggregations"]

    async def details(self) -> Counter[tuple[str, ...]]:
        """What Elasticsearch itself counts in the details, by hour and by every field."""
        terminal = {"bool": {"must_not": [{"term": {"gatebook.phase": "intent"}}]}}
        sums = {
            "input_tokens": _sum("gen_ai.usage.input_tokens"),
            "output_tokens": _sum("gen_ai.usage.output_tokens"),
            "sum_ns": _sum("event.duration"),
        }
        return await self._counted("access", terminal, sums, "1h")

    async def summed(self, grain: str, by: str = BY_PRINCIPAL) -> Counter[tuple[str, ...]]:
        """The same out of summaries."""
        rows = {"bool": {"filter": [_term("summary.grain", grain), _term("summary.by", by)]}}
        sums = {
            "input_tokens": _sum("summary.input_tokens"),
            "output_tokens": _sum("summary.output_tokens"),
            "sum_ns": _sum("summary.duration.sum_ns"),
            "events": _sum("summary.events"),
        }
        interval = {HOUR: "1h", DAY: "1d"}[grain]
        return await self._counted("summary", rows, sums, interval)

    async def _counted(
        self, index: str, query: Any, sums: dict[str, Any], interval: str
    ) -> Counter[tuple[str, ...]]:
        fields = [{name: _terms(name)} for name in COUNTED]
        times = {"date_histogram": {"field": "@timestamp", "fixed_interval": interval}}
        composite = {"sources": [{"at": times}, *fields], "size": 10_000}
        aggregations = {"rows": {"composite": composite, "aggs": sums}}
        found = await self.aggregate(index, query, aggregations)
        counted: Counter[tuple[str, ...]] = Counter()
        for bucket in found["rows"]["buckets"]:
            key = tuple(str(bucket["key"][name] or "") for name in ("at", *COUNTED))
            events = bucket.get("events", {}).get("value", bucket["doc_count"])
            counted[(*key, "events")] += round(events)
            for name in ("input_tokens", "output_tokens", "sum_ns"):
                counted[(*key, name)] += round(bucket[name]["value"])
        return +counted

    async def assert_equal(self) -> None:
        """Hours equal the details and days the sum of their hours, in every count, for every
        combination of fields; and so says the check."""
        details = await self.details()
        assert await self.summed(HOUR) == details
        hours, days = await self.summed(HOUR), await self.summed(DAY)
        assert by_day(hours, days) == days
        for grain in (HOUR, DAY):
            assert bare(await self.summed(grain, BY_ALL)) == bare(await self.summed(grain))
        checked = await self.check()
        assert checked.differences == []
        assert checked.events == sum(n for key, n in details.items() if key[-1] == "events")

    async def close(self) -> None:
        names = await self.connection.request(
            "GET", f"/{self.namespace}-*/_alias", params={"expand_wildcards": "all"}
        )
        if names.body:
            await self.connection.request("DELETE", "/" + ",".join(names.body))
        await self.connection.close()


def by_day(
    hours: Counter[tuple[str, ...]], days: Counter[tuple[str, ...]]
) -> Counter[tuple[str, ...]]:
    """Hours added up by day, of the days that are summed up."""
    known = {key[0] for key in days}
    total: Counter[tuple[str, ...]] = Counter()
    for (at, *rest), count in hours.items():
        day = str(int(at) // 86_400_000 * 86_400_000)
        if day in known:
            total[(day, *rest)] += count
    return total


def bare(counted: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Without principals and users."""
    total: Counter[tuple[str, ...]] = Counter()
    for key, count in counted.items():
        total[(*key[:5], key[-1])] += count
    return total


def documents(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [orjson.loads(row.body) for row in rows]


def _term(field: str, value: str) -> dict[str, Any]:
    return {"term": {field: value}}


def _sum(field: str) -> dict[str, Any]:
    return {"sum": {"field": field}}


def _terms(field: str) -> dict[str, Any]:
    return {"terms": {"field": field, "missing_bucket": True}}
