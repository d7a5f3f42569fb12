"""The live tail as clients open it again: nothing is missed, and what was skipped is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.integration.search.test_search import make_row, stamp
from tests.integration.serve.test_api import NOW, Api, api, good, row
from tests.waiting import until

from gatebook.processors.search.service import WINDOW
from gatebook.processors.serve.routes import tail as route
from gatebook.processors.sinks.base import Row

__all__ = ["api"]  # the fixture


@dataclass
class Told:
    """One event of the stream."""

    name: str
    id: str
    data: Any


class Stream:
    """A client of one tail: what it was told, and the last id, as a browser keeps it."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.last_id = ""
        self.done = asyncio.Event()
        self._left = b""

    async def receive(self) -> dict[str, Any]:
        await self.done.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        *blocks, self._left = (self._left + message.get("body", b"")).split(b"\n\n")
        for block in blocks:
            fields = dict(line.partition(": ")[::2] for line in block.decode().splitlines())
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                data = json.loads(fields["data"])
                self.told.append(Told(fields["event"], self.last_id, data))

    def of(self, name: str) -> list[Any]:
        return [told.data for told in self.told if told.name == name]

    @property
    def hits(self) -> list[str]:
        return [hit["id"] for hit in self.of("hit")]


@asynccontextmanager
async def opened(api: Api, client: Any, last_id: str = "", **query: str) -> AsyncIterator[Stream]:
    """A tail, as ASGI sends it: httpx's transport would wait for its end. Left by the client."""
    stream = Stream()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/tail",
        "raw_path": b"/api/v1/tail",
        "query_string": urlencode(query).encode(),
        "headers": [
            (b"host", b"127.0.0.1:8321"),
            (b"authorization", client.headers["authorization"].encode()),
            *([(b"last-event-id", last_id.encode())] if last_id else []),
        ],
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8321),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
    }
    running = asyncio.create_task(api.service.app(scope, stream.receive, stream.send))
    try:
        await until("the tail looked", lambda: bool(stream.of("lag")) or running.done(), 30)
        yield stream
    finally:
        stream.done.set()
        await asyncio.wait_for(running, 30)


async def shown(stream: Stream, *ids: str) -> None:
    await until(f"{ids} are shown", lambda: {*ids} <= {*stream.hits}, 30)


def taken_in(number: int, at: datetime) -> Row:
    """An access that a worker stamped at a time."""
    made = make_row(number, when=NOW)
    document = json.loads(made.body)
    document["event"]["ingested"] = stamp(at)
    return Row(made.kind, made.day, made.id, made.hash, json.dumps(document).encode())


async def test_a_tail_shows_what_comes_in_and_has_limits(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hits as they are indexed, masked; not more tails than one caller may have; the place of one
    that ended is free again."""
    monkeypatch.setattr(route, "LAG_EVERY_SECONDS", 0.1)
    async with await api.client("viewer") as client:
        async with opened(api, client, query="not event.outcome:unknown") as stream:
            await api.book.write(row(1, at=NOW))
            await api.book.write(row(2, at=NOW, event={"outcome": "unknown"}))
            await api.book.write(row(3, at=NOW))
            await shown(stream, "access-000001", "access-000003")
        assert stream.hits == ["access-000001", "access-000003"]
        assert stream.of("hit")[0]["source"]["user"]["name"] == "[masked]"
        registry = api.service.app.state.registry
        assert list(registry.lag) == [None]
        assert registry.tails == {}
        caller = (await good(client.get("/session")))["caller"]["id"]
        registry.tails[caller] = 4
        refused = await client.get("/tail")
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "too_many_tails")
        assert refused.headers["retry-after"]
    tails = api.service.audit.of("search.tail")
    assert [tail.get("refused") for tail in tails] == [None, "too_many_tails"]


async def test_a_resumed_tail_misses_nothing_and_repeats_by_id_alone(api: Api) -> None:
    """What was stamped before the last hit but indexed while nobody listened comes, too; whoever
    drops the ids they have sees each event once."""
    began = datetime.now(UTC) - timedelta(seconds=60)
    before, late, last, gap, after = (
        taken_in(n, began + timedelta(seconds=8 * n)) for n in range(1, 6)
    )
    async with await api.client() as client:
        async with opened(api, client, stamp(began)) as first:
            await api.book.write(before, last)
            await shown(first, last.id)
        await api.book.write(late, gap)
        async with opened(api, client, first.last_id) as second:
            await api.book.write(after)
            await shown(second, late.id, gap.id, after.id)
    assert len(set(second.hits)) == len(second.hits)
    new = [id_ for id_ in second.hits if id_ not in first.hits]
    assert sorted(first.hits + new) == sorted(r.id for r in (before, late, last, gap, after))
    assert second.of("skipped") == []


async def test_a_tail_that_showed_nothing_goes_on_where_it_was(api: Api) -> None:
    """A browser has an id before the first hit, so the seconds until it connects again are no
    hole; a client that can set no header says it in the address."""
    async with await api.client() as client:
        async with opened(api, client) as first:
            pass
        await api.book.write(row(1))
        async with opened(api, client, first.last_id) as second:
            await shown(second, "access-000001")
        async with opened(api, client, after=second.last_id) as third:
            await shown(third, "access-000001")
        async with opened(api, client, "1h", after="never") as fourth:
            await api.book.write(row(2))
            await shown(fourth, "access-000002")
    assert (first.hits, fourth.hits) == ([], ["access-000002"])


async def test_an_id_stays_behind_a_clock_that_is_ahead(api: Api) -> None:
    """A worker whose clock is an hour ahead does not make a resumed tail miss what others stamp."""
    async with await api.client() as client:
        async with opened(api, client) as first:
            await api.book.write(taken_in(1, datetime.now(UTC) + timedelta(hours=1)))
            await shown(first, "access-000001")
        await api.book.write(row(2))
        for last_id in (first.last_id, "2261-01-01T00:00:00Z"):
            async with opened(api, client, last_id) as second:
                await shown(second, "access-000002")


async def test_a_tail_left_too_long_tells_what_it_skips(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range is what a search finds the rest in: it begins where the tail may have missed
    something, and ends where it goes on."""
    now = datetime.now(UTC)
    left_at = now - timedelta(days=2)
    old, gone, recent = left_at - WINDOW / 2, now - timedelta(hours=1, minutes=5), now
    await api.book.write(*(taken_in(n, at) for n, at in enumerate((old, gone, recent))))
    async with await api.client() as client:
        async with opened(api, client, stamp(left_at)) as stream:
            await shown(stream, "access-000002")
        (skipped,) = stream.of("skipped")
        assert stream.told[0].name == "skipped"
        assert stream.hits == ["access-000002"]
        query = 'event.ingested >= "{from}" and event.ingested < "{to}"'.format(**skipped)
        found = await good(client.post("/search", json={"query": query, "since": "all"}))
        assert {hit["id"] for hit in found["hits"]} == {"access-000000", "access-000001"}
        monkeypatch.setattr(route, "RESUMED_WITHIN", timedelta(days=3))
        async with opened(api, client, stamp(left_at)) as whole:
            await shown(whole, "access-000000", "access-000001", "access-000002")
        assert whole.of("skipped") == []


async def test_a_tail_that_falls_behind_tells_what_it_skips_once(api: Api) -> None:
    """More than can be sent: shown up to somewhere, told from there on, nothing in neither; and
    whoever opens it again is not told the same again."""
    began = datetime.now(UTC) - timedelta(minutes=10)
    rows = [taken_in(n, began + timedelta(milliseconds=100 * n)) for n in range(1_200)]
    await api.book.write(*rows)
    async with await api.client() as client:
        async with opened(api, client, stamp(began)) as stream:
            await until("a range is skipped", lambda: bool(stream.of("skipped")), 30)
        (skipped,) = stream.of("skipped")
        assert stream.hits == [r.id for r in rows[: len(stream.hits)]]
        query = 'event.ingested >= "{from}" and event.ingested < "{to}"'.format(**skipped)
        found = await good(client.post("/search", json={"query": query, "since": "all"}))
        assert found["total"] == len(rows) - len(stream.hits) + 1  # the last one shown is in it
        await api.book.write(row(2_000))
        async with opened(api, client, stream.last_id) as second:
            await shown(second, "access-002000")
        assert (second.of("skipped"), second.hits) == ([], ["access-002000"])
