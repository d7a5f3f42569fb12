"""Elasticsearch dies, or its disk fills up, while the sink writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks import bulk, metrics
from gatebook.processors.sinks.base import BulkOutcome, Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings

NOW = datetime.now(UTC).replace(microsecond=0)
SETTINGS = SinkSettings(max_request_documents=100, retry_base_seconds=0.05, retry_cap_seconds=0.5)


def make_row(number: int) -> Row:
    identity = f"event-{number:06d}"
    event = {"id": identity, "hash": f"sha256:{number}"}
    body = json.dumps({"@timestamp": NOW.isoformat(), "event": event}).encode()
    return Row("access", NOW.strftime("%Y.%m.%d"), identity, event["hash"], body)


async def until(condition: Callable[[], Awaitable[bool]], timeout_seconds: float = 60) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110  # the server has no event to wait for
            await asyncio.sleep(0.02)  # waits: polled until the deadline above


class Server:
    """The real server, and what it holds of one namespace."""

    def __init__(self, url: str, namespace: str) -> None:
        self.pattern = f"/{namespace}-*"
        self.connection = Connection(ElasticsearchSettings(url=url))

    async def count(self) -> int:
        """Documents that are stored; 0 while the server is away or has no index."""
        await self.connection.request("POST", f"{self.pattern}/_refresh")
        answer = await self.connection.request("GET", f"{self.pattern}/_count")
        return int(answer.body.get("count", 0))

    async def versions(self) -> dict[str, int]:
        """Document id to version: 1 means written once."""
        await self.connection.request("POST", f"{self.pattern}/_refresh")
        query = {"size": 10_000, "version": True, "_source": False}
        answer = await self.connection.request("POST", f"{self.pattern}/_search", json=query)
        return {hit["_id"]: hit["_version"] for hit in answer.body["hits"]["hits"]}

    async def block(self, on: bool) -> None:
        """The block that Elasticsearch sets itself when a disk passes the flood stage."""
        setting = {"index.blocks.read_only_allow_delete": True if on else None}
        answer = await self.connection.request("PUT", f"{self.pattern}/_settings", json=setting)
        assert answer.status == 200

    async def looks_at_disks(self, every: str | None) -> None:
        """How often it looks at its disks, and lifts the block of a full one where there is room;
        None for its own default."""
        setting = {"persistent": {"cluster.info.update.interval": every}}
        answer = await self.connection.request("PUT", "/_cluster/settings", json=setting)
        assert answer.status == 200


@pytest.fixture
async def server(engines: Any, namespace: str) -> AsyncIterator[Server]:
    found = Server(engines.elasticsearch_url, namespace)
    await setup_elasticsearch(ElasticsearchSettings(url=engines.elasticsearch_url), namespace)
    await found.looks_at_disks("1d")  # the tests set its block, and lift it
    yield found
    await found.looks_at_disks(None)
    names = await found.connection.request("GET", f"{found.pattern}/_alias")
    await found.connection.request("DELETE", "/" + ",".join(names.body))
    await found.connection.close()


@pytest.fixture
async def sink(server: Server, engines: Any, namespace: str) -> AsyncIterator[ElasticsearchSink]:
    address = ElasticsearchSettings(url=engines.elasticsearch_url, request_timeout_seconds=10)
    opened = ElasticsearchSink(namespace, address, SETTINGS)
    yield opened
    await opened.close()


async def test_a_full_disk_pauses_the_sink_and_loses_nothing(
    server: Server, sink: ElasticsearchSink
) -> None:
    """The flood-stage block is set under way: the sink pauses, rejects nothing, and goes on by
    itself when the block is gone."""
    assert (await sink.write([make_row(0)])).indexed == 1
    await server.block(True)
    writing = asyncio.create_task(sink.write([make_row(n) for n in range(1, 1_000)]))

    async def paused() -> bool:
        return metrics.PAUSED._value.get() >= 1

    await until(paused)
    assert await server.count() == 1
    assert not writing.done()
    await server.block(False)
    assert await asyncio.wait_for(writing, 60) == BulkOutcome(indexed=999)
    assert metrics.PAUSED._value.get() == 0
    assert await server.versions() == {make_row(n).id: 1 for n in range(1_000)}


async def test_while_writing_is_blocked_only_a_probe_is_sent(
    server: Server, sink: ElasticsearchSink, namespace: str
) -> None:
    """A server in trouble is not hammered with full requests: after the first refusal single rows
    ask whether it takes rows again."""
    await sink.write([make_row(0)])
    await server.block(True)
    rows = [make_row(n) for n in range(1, 101)]
    bytes_before, requests_before = sample("bytes_total"), sample("seconds_count")
    writing = asyncio.create_task(sink.write(rows))

    async def five_requests() -> bool:
        return sample("seconds_count") - requests_before >= 5

    await until(five_requests)
    sent = sample("bytes_total") - bytes_before
    requests = sample("seconds_count") - requests_before
    probes = (requests + 1) * len(bulk.body(namespace, rows[:1]))  # one may be under way
    await server.block(False)
    assert await asyncio.wait_for(writing, 60) == BulkOutcome(indexed=100)
    assert sent <= len(bulk.body(namespace, rows)) + probes


async def test_a_cluster_without_room_for_another_shard_is_waited_for(
    server: Server, sink: ElasticsearchSink
) -> None:
    """The new day's index cannot be created: that is no fault of the rows, so they wait."""

    async def limit(shards: int | None) -> None:
        setting = {"persistent": {"cluster.max_shards_per_node": shards}}
        answer = await server.connection.request("PUT", "/_cluster/settings", json=setting)
        assert answer.status == 200

    async def paused() -> bool:
        return metrics.PAUSED._value.get() >= 1

    other = make_row(0)
    await sink.write([Row("finding", other.day, other.id, other.hash, other.body)])
    await limit(1)  # which that index takes up
    try:
        writing = asyncio.create_task(sink.write([make_row(n) for n in range(10)]))
        await until(paused)
    finally:
        await limit(None)
    assert await asyncio.wait_for(writing, 60) == BulkOutcome(indexed=10)


def sample(name: str) -> float:
    """A figure of the sink's requests, as a scrape would show it."""
    return REGISTRY.get_sample_value(f"gatebook_sink_request_{name}") or 0.0


@pytest.mark.parametrize("round_", range(2))
async def test_killed_under_way_every_row_is_stored_exactly_once(
    engines: Any, server: Server, sink: ElasticsearchSink, round_: int
) -> None:
    """SIGKILL in the middle of bulk requests, then a start on the same data: the same call of
    write goes on and ends with every row stored once."""
    rows = [make_row(n) for n in range(8_000)]
    writing = asyncio.create_task(sink.write(rows))

    async def under_way() -> bool:
        return await server.count() > 500 + 1_000 * round_

    await until(under_way)
    assert not writing.done()
    await asyncio.to_thread(engines.kill_elasticsearch)
    await asyncio.to_thread(engines.start_elasticsearch)
    outcome = await asyncio.wait_for(writing, 120)
    assert outcome.indexed + outcome.duplicates == 8_000
    assert outcome.rejected == []
    assert await server.versions() == {row.id: 1 for row in rows}


async def test_down_at_the_start_is_waited_for(
    engines: Any, server: Server, sink: ElasticsearchSink
) -> None:
    """A sink that finds nobody at home writes as soon as somebody is."""
    await asyncio.to_thread(engines.kill_elasticsearch)
    unreachable = metrics.RETRIES.labels("unreachable")
    before = unreachable._value.get()
    writing = asyncio.create_task(sink.write([make_row(n) for n in range(10)]))

    async def tried_twice() -> bool:
        return bool(unreachable._value.get() - before >= 20)

    await until(tried_twice)
    await asyncio.to_thread(engines.start_elasticsearch)
    assert await asyncio.wait_for(writing, 60) == BulkOutcome(indexed=10)


async def test_a_writer_that_is_cancelled_can_write_again(
    server: Server, sink: ElasticsearchSink
) -> None:
    """A worker stopped in the middle of a write: the next one writes the same rows and nothing is
    stored twice."""
    rows = [make_row(n) for n in range(3_000)]
    writing = asyncio.create_task(sink.write(rows))

    async def under_way() -> bool:
        return await server.count() > 100

    await until(under_way)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    outcome = await sink.write(rows)
    assert outcome.duplicates >= 100
    assert outcome.indexed + outcome.duplicates == 3_000
    assert await server.versions() == {row.id: 1 for row in rows}
