"""The Elasticsearch sink where server and rows misbehave: real server, partly behind a proxy that
rewrites some of its real answers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks import metrics
from gatebook.processors.sinks.base import BulkOutcome, Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.schemas.errors import Fatal

NOW = datetime.now(UTC).replace(microsecond=0)
QUICK = SinkSettings(retry_base_seconds=0.01, retry_cap_seconds=0.1)


def make_row(number: int, when: datetime = NOW, **fields: Any) -> Row:
    identity = f"event-{number:06d}"
    event = {"id": identity, "hash": f"sha256:{number}"}
    document = {"@timestamp": when.isoformat(), "event": event, **fields}
    body = json.dumps(document).encode()
    return Row("access", when.strftime("%Y.%m.%d"), identity, event["hash"], body)


class Server:
    """The real Elasticsearch with the templates of one namespace, and a look into it."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace
        self.connection = Connection(ElasticsearchSettings(url=url))
        self._sinks: list[ElasticsearchSink] = []

    def sink(self, settings: SinkSettings = QUICK, url: str = "", **more: Any) -> ElasticsearchSink:
        target = ElasticsearchSettings(url=url or self.url, request_timeout_seconds=10)
        self._sinks.append(ElasticsearchSink(self.namespace, target, settings, **more))
        return self._sinks[-1]

    async def close(self) -> None:
        """Also drops the indices: a run of many tests must not reach the limit of shards."""
        for sink in self._sinks:
            await sink.close()
        if names := await self.indices():
            await self.connection.request("DELETE", "/" + ",".join(names))
        await self.connection.close()

    async def search(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        await self.connection.request("POST", f"/{self.namespace}-*/_refresh")
        answer = await self.connection.request(
            "POST", f"/{self.namespace}-*/_search", json={"size": 10_000, "query": query}
        )
        return list(answer.body["hits"]["hits"])

    async def ids(self) -> list[str]:
        return sorted(hit["_id"] for hit in await self.search({"match_all": {}}))

    async def indices(self) -> set[str]:
        answer = await self.connection.request("GET", f"/{self.namespace}-*/_alias")
        return set(answer.body)


@pytest.fixture
async def server(engines: Any, namespace: str) -> AsyncIterator[Server]:
    found = Server(engines.elasticsearch_url, namespace)
    await setup_elasticsearch(ElasticsearchSettings(url=found.url), namespace)
    yield found
    await found.close()


Rewrite = Callable[[web.Request, int, bytes], Awaitable[web.Response | None]]


class Proxy:
    """Passes requests on to Elasticsearch; `rewrite` may answer in its place. It sees the real
    answer, so what it hides may well have been carried out."""

    def __init__(self, target: str, before: Rewrite | None, after: Rewrite | None) -> None:
        self._target = target
        self._before = before
        self._after = after
        self.bulk_requests = 0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_bulk = request.path == "/_bulk"
        self.bulk_requests += is_bulk
        if is_bulk and self._before and (answer := await self._before(request, 0, body)):
            return answer
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                self._target + request.path_qs,
                data=body,
                headers={k: v for k, v in request.headers.items() if k.lower() == "content-type"},
            ) as real,
        ):
            content = await real.read()
            if is_bulk and self._after:
                answer = await self._after(request, real.status, content)
                if answer is not None:
                    return answer
            return web.Response(status=real.status, body=content, content_type="application/json")


OpenProxy = Callable[..., Awaitable[tuple[str, Proxy]]]


@pytest.fixture
async def open_proxy(server: Server) -> AsyncIterator[OpenProxy]:
    runners: list[web.AppRunner] = []

    async def open_(
        before: Rewrite | None = None, after: Rewrite | None = None
    ) -> tuple[str, Proxy]:
        proxy = Proxy(server.url, before, after)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        return f"http://127.0.0.1:{port}", proxy

    yield open_
    for runner in runners:
        await runner.cleanup()


async def test_a_mapping_conflict_is_rejected_alone_and_its_value_is_not_told(
    server: Server,
) -> None:
    """One row with text in a number field: neighbours are stored; the detail names type and field
    and never the value."""
    rows = [
        make_row(1),
        make_row(2, http={"response": {"status_code": "my-secret-value"}}),
        make_row(3, unknown_field="my-secret-value"),
        make_row(4),
    ]
    outcome = await server.sink().write(rows)
    assert outcome.indexed == 2
    found = {r.row.id: (r.reason, r.detail) for r in outcome.rejected}
    assert found["event-000002"] == (
        "index_rejected",
        "document_parsing_exception (illegal_argument_exception) at http.response.status_code",
    )
    assert found["event-000003"] == (
        "index_rejected",
        "strict_dynamic_mapping_exception at unknown_field",
    )
    assert await server.ids() == ["event-000001", "event-000004"]


async def test_a_keyword_of_33_kb_is_stored(server: Server) -> None:
    """Longer than Lucene takes as a term: kept in the document, left out of the index."""
    row = make_row(1, url={"path": "/" + "p" * 33_000})
    assert await server.sink().write([row, make_row(2)]) == BulkOutcome(indexed=2)
    hits = await server.search({"term": {"event.id": "event-000001"}})
    assert hits[0]["_source"] == json.loads(row.body)


async def test_a_thousand_and_one_extra_keys_do_not_grow_the_mapping(server: Server) -> None:
    """Extras go to one flattened field: any number of distinct keys is stored and found."""
    rows = [
        make_row(n, gatebook={"attributes": {f"key_{n}_{k}": "v" for k in range(101)}})
        for n in range(11)
    ]
    assert await server.sink().write(rows) == BulkOutcome(indexed=11)
    hits = await server.search({"term": {"gatebook.attributes.key_7_100": "v"}})
    assert [hit["_id"] for hit in hits] == ["event-000007"]
    mapping = await server.connection.request("GET", f"/{server.namespace}-access-*/_mapping")
    assert "key_7_100" not in json.dumps(mapping.body)


async def test_a_replay_over_midnight_finds_the_first_copies(server: Server) -> None:
    """Events of both sides of midnight, written again when the next day's index exists."""
    midnight = NOW.replace(hour=0, minute=0, second=0)
    rows = [make_row(n, midnight + timedelta(seconds=n - 5)) for n in range(10)]
    assert await server.sink().write(rows[:5]) == BulkOutcome(indexed=5)
    assert await server.sink().write(rows) == BulkOutcome(indexed=5, duplicates=5)
    assert await server.sink().write(rows) == BulkOutcome(duplicates=10)
    assert len(await server.indices()) == 2
    assert await server.ids() == [row.id for row in rows]


async def test_wrong_clocks_cannot_fill_the_cluster_with_indices(server: Server) -> None:
    """Days out of range may create so many new indices an hour; the rest is rejected, and what
    exists already is still written to. An hour later there is room again."""
    clock = [NOW.timestamp()]
    settings = SinkSettings(max_odd_indices_per_hour=2, max_age_days=7, max_future_days=1)
    sink = server.sink(settings, clock=lambda: clock[0])
    days = [-400, -300, 200, 0, 1, -7]
    rows = [make_row(n, NOW + timedelta(days=day)) for n, day in enumerate(days)]
    outcome = await sink.write(rows)
    assert outcome.indexed == 5
    assert [(r.row.id, r.reason, r.detail) for r in outcome.rejected] == [
        ("event-000002", "index_rejected", "too many new indices for days out of range")
    ]
    assert await sink.write([make_row(10, NOW - timedelta(days=400))]) == BulkOutcome(indexed=1)
    clock[0] += 3_600
    assert await sink.write([rows[2]]) == BulkOutcome(indexed=1)


async def test_an_index_deleted_under_way_is_created_again(server: Server) -> None:
    """Retention may drop an index while the sink knows it; the next row brings it back, with its
    template."""
    sink = server.sink()
    await sink.write([make_row(1)])
    (name,) = await server.indices()
    await server.connection.request("DELETE", f"/{name}")
    assert await sink.write([make_row(2)]) == BulkOutcome(indexed=1)
    mapping = await server.connection.request("GET", f"/{name}/_mapping")
    assert mapping.body[name]["mappings"]["dynamic"] == "strict"


async def test_two_sinks_may_create_the_same_index(server: Server) -> None:
    """The race for a new day's index has no loser."""
    sinks = [server.sink() for _ in range(4)]
    outcomes = await asyncio.gather(*(sink.write([make_row(n)]) for n, sink in enumerate(sinks)))
    assert outcomes == [BulkOutcome(indexed=1)] * 4


async def test_without_a_template_nothing_is_written(engines: Any, namespace: str) -> None:
    """An index without its template would take any field, so the sink stops and says what to do."""
    sink = ElasticsearchSink(namespace, ElasticsearchSettings(url=engines.elasticsearch_url))
    with pytest.raises(Fatal, match="template") as caught:
        await sink.write([make_row(1)])
    await sink.close()
    assert "gatebook setup" in caught.value.next_step


def busy() -> dict[str, Any]:
    error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    return {"create": {"status": 429, "error": error}}


async def test_items_refused_inside_a_good_answer_are_sent_again(
    server: Server, open_proxy: OpenProxy
) -> None:
    """Some items come back as 429 inside HTTP 200: those are sent again until taken; here the
    first half of them had been stored in spite of the 429."""
    seen: list[int] = []

    async def after(_: web.Request, status: int, content: bytes) -> web.Response | None:
        answer = json.loads(content)
        seen.append(len(answer["items"]))
        if len(seen) > 4:
            return None
        for position in range(0, len(answer["items"]), 2):
            answer["items"][position] = busy()
        return web.json_response({**answer, "errors": True}, status=status)

    url, _ = await open_proxy(after=after)
    before = metrics.RETRIES.labels("es_rejected_execution_exception")._value.get()
    rows = [make_row(n) for n in range(16)]
    outcome = await server.sink(url=url).write(rows)
    assert seen == [16, 8, 4, 2, 1]
    assert outcome.indexed + outcome.duplicates == 16
    assert outcome.rejected == []
    assert await server.ids() == [row.id for row in rows]
    after_count = metrics.RETRIES.labels("es_rejected_execution_exception")._value.get()
    assert after_count - before == 8 + 4 + 2 + 1


def lost_answers() -> dict[str, Callable[[bytes], web.Response]]:
    """Answers that say nothing of what became of the rows."""

    def json_error(status: int, kind: str) -> Callable[[bytes], web.Response]:
        return lambda _: web.json_response({"error": {"type": kind}}, status=status)

    return {
        "502 of a proxy": lambda _: web.Response(status=502, text="<html>Bad Gateway"),
        "503 of a node": json_error(503, "unavailable_shards_exception"),
        "504": lambda _: web.Response(status=504),
        "429 for all": json_error(429, "circuit_breaking_exception"),
        "500": json_error(500, "null_pointer_exception"),
        "half an answer": lambda content: web.Response(body=content[: len(content) // 2]),
        "an item missing": lambda content: web.json_response(
            {**json.loads(content), "items": json.loads(content)["items"][1:]}
        ),
        "not JSON": lambda _: web.Response(text="ok"),
    }


@pytest.mark.parametrize("name", lost_answers())
async def test_a_lost_answer_neither_loses_nor_doubles_a_row(
    server: Server, open_proxy: OpenProxy, name: str
) -> None:
    """The request was carried out, its answer was replaced: the retry finds every row stored."""
    replaced: list[int] = []

    async def after(_: web.Request, status: int, content: bytes) -> web.Response | None:
        if len(replaced) >= 2:
            return None
        replaced.append(status)
        return lost_answers()[name](content)

    url, proxy = await open_proxy(after=after)
    rows = [make_row(n) for n in range(20)]
    assert await server.sink(url=url).write(rows) == BulkOutcome(duplicates=20)
    assert proxy.bulk_requests == 3
    assert await server.ids() == [row.id for row in rows]


async def test_a_request_that_is_too_large_is_split(server: Server, open_proxy: OpenProxy) -> None:
    """A proxy with a limit answers 413: the request is halved until it fits; one row that does not
    fit alone is rejected as oversize."""

    async def before(_: web.Request, __: int, body: bytes) -> web.Response | None:
        return web.Response(status=413, text="too large") if len(body) > 4_000 else None

    url, _ = await open_proxy(before=before)
    rows = [make_row(n, url={"path": "p" * 500}) for n in range(40)]
    rows[17] = make_row(17, url={"path": "p" * 5_000})
    outcome = await server.sink(url=url).write(rows)
    assert outcome.indexed == 39
    assert [(r.row.id, r.reason) for r in outcome.rejected] == [("event-000017", "oversize")]
    assert len(await server.ids()) == 39


@pytest.mark.parametrize(
    ("status", "text", "wanted"),
    [
        (401, '{"error":{"type":"security_exception"}}', "credentials"),
        (403, '{"error":{"type":"security_exception"}}', "credentials"),
        (400, "The plain HTTP request was sent to HTTPS port", "does not answer like"),
        (404, "no such page", "does not answer like"),
        (302, "", "does not answer like"),
    ],
)
async def test_a_wrong_server_or_key_stops_the_sink_and_rejects_no_row(
    server: Server, open_proxy: OpenProxy, status: int, text: str, wanted: str
) -> None:
    """What a person has to mend is Fatal: no row is dead-lettered for it."""

    async def before(_: web.Request, __: int, ___: bytes) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/json")

    url, _ = await open_proxy(before=before)
    with pytest.raises(Fatal, match=wanted):
        await server.sink(url=url).write([make_row(n) for n in range(3)])


async def test_a_limit_on_waiting_is_kept_where_one_is_set(unused_tcp_port: int) -> None:
    """With retry_limit_seconds the sink gives up, with the next step; without it, it never does."""
    settings = SinkSettings(retry_base_seconds=0.01, retry_limit_seconds=0.2)
    address = ElasticsearchSettings(url=f"http://127.0.0.1:{unused_tcp_port}")
    sink = ElasticsearchSink("limit", address, settings)
    with pytest.raises(Fatal, match="did not take the rows within"):
        await sink.write([make_row(1)])
    await sink.close()


async def test_the_log_holds_no_value_of_a_row(
    server: Server, open_proxy: OpenProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """At the most talkative level, refused and retried rows leave none of their content behind."""
    caplog.set_level(logging.DEBUG)
    answers: list[int] = []

    async def after(_: web.Request, status: int, content: bytes) -> web.Response | None:
        answers.append(status)
        return web.Response(status=503, body=content) if len(answers) == 1 else None

    url, _ = await open_proxy(after=after)
    secret = "sk-canary-4711"  # a planted value, no real one
    rows = [make_row(1, user={"name": secret}), make_row(2, source={"port": secret})]
    outcome = await server.sink(url=url).write(rows)
    assert len(outcome.rejected) == 1
    assert any("not written yet" in record.message for record in caplog.records)
    assert secret not in caplog.text + repr(outcome.rejected[0].detail)
