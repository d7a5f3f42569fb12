"""The search service's API, on real Elasticsearch, through the real gate."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.access_service import KeptAudit, Service, running_service
from tests.integration.search.test_search import Book, make_row, stamp
from tests.integration.summaries.book import Book as SummaryBook
from tests.integration.summaries.book import spread_out

from gatebook.processors.serve.access.caller import act_of_route
from gatebook.processors.serve.access.guard import OPEN, routes_without_permission
from gatebook.processors.serve.access.state import ConsoleState
from gatebook.processors.serve.app import create_app, describe
from gatebook.processors.serve.audit import Act
from gatebook.processors.serve.routes import ROOMS, console, findings
from gatebook.processors.serve.settings import ServeSettings
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.settings import ElasticsearchSettings

NOW = datetime.now(UTC).replace(microsecond=0)
BEGAN = NOW - timedelta(hours=2)


@pytest.fixture(autouse=True)
def _now() -> None:
    """Of each test: when the last of them runs, the first may have run an hour ago."""
    global NOW, BEGAN
    NOW = datetime.now(UTC).replace(microsecond=0)
    BEGAN = NOW - timedelta(hours=2)


class Api:
    """A service with a book of documents below it."""

    def __init__(self, service: Service, book: Book) -> None:
        self.service = service
        self.book = book

    async def client(self, *roles: str, tenants: tuple[str, ...] | None = None) -> Any:
        found = await self.service.by_token(*(roles or ("analyst",)), tenants=tenants)
        found.base_url = "http://127.0.0.1:8321/api/v1"
        return found

    async def write(self, count: int, **given: Any) -> None:
        """Accesses a minute apart, the first one two hours ago."""
        await self.book.write(*(row(n, **given) for n in range(count)))


def row(number: int, *, at: datetime | None = None, **more: Any) -> Any:
    """An access; every third one failed, two users, two tenants."""
    failed = number % 3 == 0
    fields: dict[str, Any] = {
        "event": {"outcome": "failure" if failed else "success", "duration": number * 10**6},
        "user": {"id": f"user-{number % 2}", "name": f"Person {number % 2}"},
        "organization": {"id": "acme" if number % 2 else "zeta"},
        "service": {"name": "chat"},
        "source": {"ip": f"10.0.0.{number % 5}"},
        "gen_ai": {
            "request": {"model": f"model-{number % 4}"},
            "usage": {"input_tokens": 10, "output_tokens": 5},
        },
        "trace": {"id": f"trace-{number // 3}"},
    }
    when = at or BEGAN + timedelta(minutes=number)
    return make_row(number, when=when, **{**fields, **more})


@pytest.fixture
async def api(engines: Any, namespace: str) -> AsyncIterator[Api]:
    url = engines.elasticsearch_url
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace)
    book = Book(url, namespace)
    async with running_service(url, namespace, make=create_app) as service:
        yield Api(service, book)
    names = await book.connection.request("GET", f"/{namespace}-*/_alias?expand_wildcards=all")
    if names.body:
        await book.connection.request("DELETE", "/" + ",".join(names.body))
    await book.connection.close()


async def good(answer: Any, status: int = 200) -> Any:
    found = await answer
    assert found.status_code == status, (found.status_code, found.text[:500])
    return found.json()


async def test_every_route_asks_for_a_permission_or_is_open(api: Api) -> None:
    """None can be forgotten; and the check sees all routes that there are."""
    assert routes_without_permission(api.service.app) == []
    paths = {getattr(route, "path", "") for route in api.service.app.routes}
    assert {route.path for room in ROOMS for route in room.routes} <= paths
    assert len([path for path in paths if path.startswith("/api/v1/")]) >= 20
    async with api.service.client() as nobody:
        for path in sorted(p for p in paths if p.startswith("/api/v1/")):
            answer = await nobody.request("GET", path.replace("{", "").replace("}", ""))
            is_open = path in ("/api/v1/health", "/api/v1/openapi.json")
            assert answer.status_code == (200 if is_open else 401), path


# Pages and files; what signing in and out does is recorded there by name.
PAGES = {"/login", "/login/oidc", "/login/callback", "/logout", "/assets/{name:path}"}


async def test_every_route_declares_what_it_does(api: Api) -> None:
    """So that also a request that fails before its route is reached stands in the log as what was
    asked for. None can be forgotten: whatever is neither open nor a page has an act of its own."""
    acts: dict[str, str] = {}
    for route in api.service.app.routes:
        is_page = route.path in {*PAGES, *console.PAGES, "/favicon.svg"}
        if is_page or route.path in OPEN:
            assert act_of_route(route) == "", route.path
            continue
        act = act_of_route(route)
        assert re.fullmatch(r"search|[a-z]+\.[a-z_]+", act), (route.path, act)
        assert act not in acts, (route.path, acts.get(act))
        acts[act] = route.path
    assert len(acts) >= 24
    described = describe(api.service.app)["paths"]
    assert described["/api/v1/events/{id}/reveal"]["post"]["x-act"] == "event.reveal"
    async with api.service.client() as nobody:
        await nobody.post("/api/v1/events/some/reveal", json={})
    told = api.service.audit.of("access.refused")[-1]
    assert (told["act"], told["route"]) == ("event.reveal", "/api/v1/events/{id}/reveal")


async def test_a_search_gives_a_page_and_says_how_fresh_and_whole_it_is(api: Api) -> None:
    """Exact total, absolute bounds, the newest first, and only the fields asked for."""
    await api.write(9)
    async with await api.client() as client:
        body = {"query": "event.outcome:failure", "size": 2, "fields": ["user.id", "event.id"]}
        found = await good(client.post("/search", json=body))
        assert (found["total"], len(found["hits"])) == (3, 2)
        assert found["hits"][0]["source"] == {
            "user": {"id": "user-0"},
            "event": {"id": "access-000006"},
        }
        assert found["hits"][0]["kind"] == "access"
        assert found["detail"] == {"complete": True, "thinned": []}
        assert 0 <= found["lag"]["seconds"] < 60
        again = {"query": "event.outcome:failure", "since": found["from"], "until": found["to"]}
        assert (await good(client.post("/search", json=again)))["total"] == 3


async def test_deep_pages_are_of_one_point_in_time(api: Api) -> None:
    """While indexing goes on, every document of the first moment comes once, and no other."""
    await api.write(60)
    async with await api.client() as client:
        seen: list[str] = []
        body: dict[str, Any] = {"size": 7, "sort": "event.duration:asc", "since": "all"}
        while True:
            found = await good(client.post("/search", json=body))
            seen += [hit["id"] for hit in found["hits"]]
            assert found["total"] == 60
            await api.book.write(row(1000 + len(seen), at=BEGAN))
            if not (cursor := found["cursor"]):
                break
            body["cursor"] = cursor
        assert seen == [f"access-{n:06d}" for n in range(60)]
        other = await client.post("/search", json={**body, "query": "user.id:user-1"})
        assert other.status_code == 400
        async with await api.client() as somebody_else:
            stolen = await somebody_else.post("/search", json=body)
            assert stolen.status_code == 400


async def test_pages_go_deeper_than_one_search_of_elasticsearch_reaches(api: Api) -> None:
    """Past the 10,000 documents at which `from` and `size` end, each one comes once and in order;
    the total is exact on every page."""
    many = 10_600
    before = BEGAN - timedelta(days=1)
    rows = [make_row(n, when=before + timedelta(seconds=n // 3)) for n in range(many)]
    for some in range(0, many, 2_000):
        await api.book.write(*rows[some : some + 2_000])
    async with await api.client() as client:
        asked: dict[str, Any] = {
            "since": "all", "size": 500, "sort": "@timestamp:asc,event.id:asc",
            "fields": ["event.id"],
        }  # fmt: skip
        seen: list[str] = []
        while len(seen) <= many:
            found = await good(client.post("/search", json=asked))
            assert found["total"] == many
            seen += [hit["source"]["event"]["id"] for hit in found["hits"]]
            if not (cursor := found["cursor"]):
                break
            asked["cursor"] = cursor
        assert seen == [f"access-{n:06d}" for n in range(many)]


async def test_a_cursor_whose_view_is_gone_says_so(api: Api) -> None:
    """410, with what to do; not a page that begins anew. A caller's oldest views end first."""
    await api.write(10)
    async with await api.client() as client:
        body: dict[str, Any] = {"size": 2}
        first = await good(client.post("/search", json=body))
        for _ in range(10):
            await good(client.post("/search", json=body))
        gone = await client.post("/search", json={**body, "cursor": first["cursor"]})
        assert gone.status_code == 410, gone.text
        assert gone.json()["error"]["type"] == "cursor_gone"
        assert gone.json()["error"]["next_step"]


async def test_a_histogram_has_no_gaps_and_adds_up(api: Api) -> None:
    """Nice intervals, aligned, empty ones with 0, parts by value."""
    await api.write(30)
    async with await api.client() as client:
        body = {"since": "12h", "buckets": 160, "split_by": "event.outcome"}
        found = await good(client.post("/histogram", json=body))
        assert found["interval_seconds"] == 300
        starts = [datetime.fromisoformat(b["at"]) for b in found["buckets"]]
        assert {b - a for a, b in itertools.pairwise(starts)} == {timedelta(minutes=5)}
        assert len(starts) in (144, 145)
        assert found["total"] == sum(b["count"] for b in found["buckets"]) == 30
        assert sum(b["parts"].get("failure", 0) for b in found["buckets"]) == 10
        assert any(b["count"] == 0 for b in found["buckets"])
        everything = await good(client.post("/histogram", json={"since": "all", "buckets": 1}))
        assert [b["count"] for b in everything["buckets"]] == [30]
        none = await good(client.post("/histogram", json={"query": "user.id:nobody"}))
        assert none["total"] == 0
        assert none["buckets"]


async def test_facets_count_values_others_and_what_has_none(api: Api) -> None:
    """Of several fields and types at once."""
    await api.write(20)
    await api.book.write(make_row(500, when=BEGAN, gen_ai={"request": {"stream": True}}))
    async with await api.client() as client:
        fields = ["gen_ai.request.model", "user.id", "source.ip", "gen_ai.request.stream"]
        found = await good(client.post("/facets", json={"fields": fields, "size": 3}))
        assert found["total"] == 21
        model = found["facets"]["gen_ai.request.model"]
        assert [v["count"] for v in model["values"]] == [5, 5, 5]
        assert (model["other"], model["missing"], model["distinct"], model["exact"]) == (
            5, 1, 4, True,
        )  # fmt: skip
        stream = found["facets"]["gen_ai.request.stream"]
        assert stream["values"] == [{"value": True, "count": 1}]
        wrong = await client.post("/facets", json={"fields": ["gen_ai.input.messages"]})
        assert wrong.status_code == 400
        unknown = await client.post("/facets", json={"fields": ["user.idd"]})
        assert "user.id" in unknown.json()["error"]["next_step"]


async def test_what_an_index_keeps_for_searching_alone_is_told_and_refused(api: Api) -> None:
    """/fields says what can be done with a field; sorts, facets, splits and queries that cannot
    work are refused with what to do instead, and an id of that kind still finds its events."""
    await api.write(9)
    async with await api.client() as client:
        told = (await good(client.get("/fields")))["fields"]
        abilities = {f["name"]: (f["searchable"], f["sortable"], f["aggregatable"]) for f in told}
        assert abilities["user.id"] == (True, True, True)
        assert abilities["trace.id"] == (True, False, False)
        assert abilities["event.hash"] == (False, False, False)
        assert abilities["event.created"] == (True, True, False)
        for path, body in (
            ("/search", {"sort": "trace.id:asc"}),
            ("/facets", {"fields": ["trace.id"]}),
            ("/histogram", {"split_by": "trace.id"}),
            ("/search", {"query": "event.hash:ab"}),
        ):
            refused = await client.post(path, json=body)
            assert (refused.status_code, bool(refused.json()["error"]["next_step"])) == (400, True)
        checked = await good(client.post("/query/check", json={"query": "a and event.hash:*"}))
        assert (checked["ok"], checked["error"]["position"]) == (False, 6)
        for query in ("trace.id:trace-2", "trace.id:trace-2*"):
            found = await good(client.post("/search", json={"query": query}))
            assert found["total"] == 3


async def test_around_an_event_is_what_came_before_and_after(api: Api) -> None:
    """In order of time, of all or of the same user; the nearest stand beside it."""
    await api.write(12)
    async with await api.client() as client:
        found = await good(client.get("/events/access-000006/around?before=2&after=2"))
        assert [h["id"][-2:] for h in found["before"] + found["after"]] == ["04", "05", "07", "08"]
        same = await good(client.get("/events/access-000006/around?by=user.id&before=1&after=9"))
        assert [h["id"][-2:] for h in same["before"] + same["after"]] == ["04", "08", "10"]
        assert (same["value"], same["event"]["id"]) == ("user-0", "access-000006")
        none = await client.get("/events/access-000006/around?by=session.id")
        assert none.status_code == 400
        event = await good(client.get("/events/access-000006"))
        assert {"by": "trace.id", "value": "trace-2", "count": 3} in event["related"]
        assert event["timeline"][0]["name"] == "began"
        assert event["evidence"]["digest_holds"] is False  # the test's documents have made-up ones
        missing = await client.get("/events/no-such-id")
        assert missing.json()["error"]["type"] == "not_found"


async def test_errors_point_at_the_character(api: Api) -> None:
    """Every one is the same JSON: type, message, position where there is one, what to do."""
    async with await api.client() as client:
        answer = await client.post("/search", json={"query": "event.outcome:failure and usr.id:a"})
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["position"]) == (400, "query", 26)
        assert "user.id" in error["next_step"]
        cases = [
            ({"since": "yesterday"}, 400, "time"),
            ({"since": ""}, 422, "invalid_request"),  # is neither the default nor `all`
            ({"since": " "}, 400, "time"),
            ({"since": "1h", "until": "2h"}, 400, "bad_request"),
            ({"since": "1900-01-01"}, 400, "time"),
            ({"since": "1980-01-01"}, 400, "bad_request"),
            ({"sort": "gen_ai.input.messages:asc"}, 400, "bad_request"),
            ({"fields": ["nothing"]}, 400, "bad_request"),
            ({"cursor": "xyz"}, 400, "bad_request"),
            ({"size": 501}, 422, "invalid_request"),
            ({"siez": 5}, 422, "invalid_request"),
            ({"query": "\ud800"}, 422, "invalid_request"),
            ({"query": "a" * 9000}, 422, "invalid_request"),
        ]
        for body, status, kind in cases:
            text = json.dumps(body)
            answer = await client.post(
                "/search", content=text, headers={"content-type": "application/json"}
            )
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind), body
        huge = await client.post("/search", json={"query": "a" * 300_000})
        assert (huge.status_code, huge.json()["error"]["type"]) == (413, "too_large")
        checked = await good(client.post("/query/check", json={"query": "user.id: (a"}))
        assert (checked["ok"], checked["error"]["position"]) == (False, 9)
        checked = await good(client.post("/query/check", json={"query": "user.id : a  AND b"}))
        assert checked == {"ok": True, "normalized": "user.id:a and b", "error": None}


async def test_a_tenant_sees_nothing_of_another_by_any_route(api: Api) -> None:
    """Hits, counts, facets, neighbours, single events, exports: all are narrowed."""
    await api.write(12)  # odd numbers are acme's
    async with await api.client("analyst", tenants=("acme",)) as client:
        assert (await good(client.post("/search", json={})))["total"] == 6
        assert (await good(client.post("/histogram", json={})))["total"] == 6
        facets = await good(client.post("/facets", json={"fields": ["organization.id"]}))
        assert [v["value"] for v in facets["facets"]["organization.id"]["values"]] == ["acme"]
        assert (await client.get("/events/access-000002")).status_code == 404
        assert (await client.get("/events/access-000002/around")).status_code == 404
        near = await good(client.get("/events/access-000005/around"))
        ids = [h["id"] for h in near["before"] + near["after"]]
        assert ids == [f"access-{n:06d}" for n in (1, 3, 7, 9, 11)]
        assert (await good(client.post("/exports", json={}), 201))["total"] == 6
        overview = await good(client.get("/overview"))
        assert (overview["total"], overview["storage"]) == (6, None)


async def test_masked_fields_can_be_neither_seen_nor_asked_for(api: Api) -> None:
    """By a viewer: not in hits, queries, sorts, facets, splits or pivots."""
    await api.write(3)
    async with await api.client("viewer") as client:
        found = await good(client.post("/search", json={}))
        assert {h["source"]["user"]["name"] for h in found["hits"]} == {"[masked]"}
        assert {h["source"]["source"]["ip"] for h in found["hits"]} == {"[masked]"}
        oracle = await client.post("/search", json={"query": "event.id:a or user.name:Person*"})
        assert (oracle.status_code, oracle.json()["error"]["position"]) == (403, 14)
        assert (await good(client.post("/search", json={"query": "Person"})))["total"] == 0
        for path, body in (
            ("/search", {"sort": "source.ip:asc"}),
            ("/facets", {"fields": ["user.name"]}),
            ("/facets", {"fields": ["user.id"]}),
            ("/histogram", {"split_by": "source.ip"}),
            ("/exports", {}),
        ):
            assert (await client.post(path, json=body)).status_code == 403, path
        assert (await client.get("/events/access-000001/around?by=source.ip")).status_code == 403
        event = await good(client.get("/events/access-000001"))
        assert "source.ip" not in {r["by"] for r in event["related"]}


async def test_an_export_that_was_cut_goes_on_with_the_same_bytes(api: Api) -> None:
    """Cut anywhere, with documents coming in meanwhile; NDJSON and CSV."""
    await api.book.write(*(row(n, at=BEGAN + timedelta(seconds=n // 2)) for n in range(450)))
    async with await api.client() as client:
        for total, form in ((450, "ndjson"), (451, "csv")):
            made = await good(client.post("/exports", json={"format": form}), 201)
            assert made["total"] == total
            path = f"/exports/{made['id']}/data"
            whole = (await client.get(path)).content
            state = await good(client.get(f"/exports/{made['id']}"))
            assert (state["state"], state["done"], state["total"]) == ("done", total, total)
            await api.book.write(row(5_000 + len(form), at=BEGAN + timedelta(seconds=30)))
            lines = whole.splitlines(keepends=True)
            for cut in (2, 200, 333):
                kept = b"".join(lines[:cut])
                rest = await client.get(path, params={"after": position(lines[cut - 1], form)})
                assert kept + rest.content == whole, (form, cut)
        strange = await client.get(path, params={"after": "x"})
        assert strange.status_code == 400
    async with await api.client() as other:
        assert (await other.get(path)).status_code == 404


def position(line: bytes, form: str) -> str:
    if form == "ndjson":
        document = json.loads(line)
        return f"{document['@timestamp']},{document['event']['id']}"
    at, event_id, *_ = next(csv.reader([line.decode()]))
    return "" if at.endswith("@timestamp") else f"{at},{event_id}"


@pytest.mark.parametrize("bound", ["now-100m", "now-2h+20m"])
async def test_an_export_of_a_relative_time_stays_what_it_was(api: Api, bound: str) -> None:
    """`now` in its query is when it was made: cut, and gone on with half an hour later, it is the
    same bytes."""
    await api.write(60)
    async with await api.client() as client:
        body = {"query": f"@timestamp >= {bound}", "since": "all"}
        made = await good(client.post("/exports", json=body), 201)
        path = f"/exports/{made['id']}/data"
        whole = (await client.get(path)).content
        lines = whole.splitlines(keepends=True)
        assert 30 < len(lines) == made["total"] < 60
        pass_time(api, timedelta(minutes=30))
        after = position(lines[4], "ndjson")
        rest = await client.get(path, params={"after": after})
        assert b"".join(lines[:5]) + rest.content == whole
        assert rest.headers["x-gatebook-done"] == "5"


def pass_time(api: Api, span: timedelta) -> None:
    """So much later than now by the service's clock, from here on."""
    state = api.service.app.state
    state.deps = replace(state.deps, clock=lambda: datetime.now(UTC) + span)


async def test_an_export_that_is_over_is_deleted(api: Api) -> None:
    """After its 7 days nobody can read it, and the next export that is made takes it away: its
    query may name somebody."""
    await api.write(1)
    kept = ConsoleState(api.book.connection, api.book.namespace)
    async with await api.client() as client:
        old = await good(client.post("/exports", json={"query": "user.id:gus"}), 201)
        pass_time(api, timedelta(days=6))
        await good(client.post("/exports", json={}), 201)
        assert len(await kept.find("export")) == 2
        pass_time(api, timedelta(days=7, hours=1))
        assert (await client.get(f"/exports/{old['id']}")).status_code == 404
        await good(client.post("/exports", json={}), 201)
    left = await kept.find("export")
    assert len(left) == 2
    assert "user.id:gus" not in str(left)


class HeldAudit(KeptAudit):
    """Takes long over the first reading of an export."""

    def __init__(self) -> None:
        super().__init__()
        self.has_come, self.goes_on = asyncio.Event(), asyncio.Event()

    async def record(self, act: Act) -> None:
        if act.action == "export.read" and not self.has_come.is_set():
            self.has_come.set()
            await self.goes_on.wait()
        await super().record(act)


async def test_no_more_exports_are_read_at_once_than_may_be(api: Api) -> None:
    """Also where the second comes while the first is being recorded; a place is free again once
    its reading has ended, or could not be recorded."""
    await api.write(3)
    state, audit = api.service.app.state, HeldAudit()
    state.deps, state.audit = replace(state.deps, settings=ServeSettings(max_exports=1)), audit
    async with await api.client() as client:
        ids = [(await good(client.post("/exports", json={}), 201))["id"] for _ in range(2)]
        first, second = (f"/exports/{one}/data" for one in ids)
        reading = asyncio.create_task(client.get(first))
        await audit.has_come.wait()
        for path in (first, second):
            refused = await client.get(path)
            assert refused.status_code == 429, path
            assert refused.json()["error"]["type"] == "too_many_exports"
        assert audit.of("export.read")[-1]["export"] == ids[1]
        audit.goes_on.set()
        assert len((await reading).content.splitlines()) == 3
        audit.broken = True
        assert (await client.get(second)).status_code == 503
        audit.broken = False
        assert (await client.get(second)).status_code == 200


async def test_what_was_exported_is_recorded(api: Api) -> None:
    """Query, kind, range, form and fields, both when it is made and when it is read."""
    await api.write(3)
    async with await api.client() as client:
        body = {"query": "user.id:user-1", "since": "12h", "format": "csv", "fields": ["user.id"]}
        made = await good(client.post("/exports", json=body), 201)
        await client.get(f"/exports/{made['id']}/data")
    (making,), (reading,) = (api.service.audit.of(f"export.{act}") for act in ("make", "read"))
    wanted = {"query": "user.id:user-1", "kind": "access", "format": "csv", "fields": "user.id"}
    wanted["export"] = made["id"]
    assert wanted.items() <= making.items()
    assert wanted.items() <= reading.items()
    assert (making["since"], making["total"], making.get("until")) == ("12h", "1", None)
    assert (making["from"], making["to"]) == (reading["since"], reading["until"])
    assert making["from"] < stamp(BEGAN) < making["to"]


async def test_an_exported_table_runs_no_formula(api: Api) -> None:
    """What a user wrote stands as text in a spreadsheet, and steers no terminal."""
    hostile = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\x1b[31m\u202e\nb"]
    await api.book.write(*(row(n, user={"id": text}) for n, text in enumerate(hostile)))
    async with await api.client() as client:
        made = await good(
            client.post("/exports", json={"format": "csv", "fields": ["user.id"]}), 201
        )
        text = (await client.get(f"/exports/{made['id']}/data")).text
        cells = [line[2] for line in csv.reader(io.StringIO(text))]
        assert cells[0] == "user.id"
        assert [c[0] for c in cells[1:7]] == ["'"] * 6
        assert cells[7] == r"a\x1b[31m\u202e\nb"
        assert len(text.splitlines()) == 8


async def test_a_finding_is_drawn_against_its_baseline(api: Api) -> None:
    """Its window, its threshold, and the same figure in the windows before and after it."""
    start = BEGAN.replace(second=0)
    rows = [row(n, at=start + timedelta(minutes=n // 3)) for n in range(60)]
    burst = [row(100 + n, at=start + timedelta(minutes=20, seconds=n)) for n in range(40)]
    # It goes on after the detector found it: 40 were seen within 45 seconds.
    later = [row(200 + n, at=start + timedelta(minutes=20, seconds=46 + n)) for n in range(7)]
    about = {
        "incident": "inc-1",
        "severity": "error",
        "dedup_key": "k",
        "principal": "acme/user-1",
        "observed": 40.0,
        "threshold": 30.0,
        "baseline": 3.0,
        "unit": "requests",
        "window_seconds": 60,
        "search": 'service.name:"chat"',
        "evidence": ["access-000101"],
    }
    window = {
        "start": stamp(start + timedelta(minutes=20)),
        "end": stamp(start + timedelta(minutes=20, seconds=45)),
    }
    rule = {"id": "request_rate", "name": "Request rate", "version": "1"}
    fired = make_row(
        1,
        kind="finding",
        when=start + timedelta(minutes=21),
        event={"action": "firing", "reason": "40 requests", "kind": "alert", **window},
        rule=rule,
        gatebook=about,
    )
    await api.book.write(*rows, *burst, *later, fired)
    async with await api.client() as client:
        listed = await good(client.get("/findings"))
        assert [(f["incident"], f["state"]) for f in listed["findings"]] == [("inc-1", "firing")]
        found = await good(client.get("/findings/inc-1"))
        baseline = found["baseline"]
        assert (baseline["unit"], baseline["threshold"], baseline["exact"]) == (
            "requests",
            30,
            True,
        )
        by_time = {point["at"]: point["value"] for point in baseline["series"]}
        assert by_time[baseline["window"]["from"]] == baseline["observed"] == 40
        assert 7 in by_time.values()
        assert by_time[(start + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:00.000000Z")] == 3
        assert len(by_time) >= 26
        event = await good(client.get("/events/access-000101"))
        assert [c["id"] for c in event["cited_by"]] == ["finding-000001"]
        closed = make_row(
            2,
            kind="finding",
            when=NOW,
            event={"action": "closed", "reason": "a load test", "kind": "alert"},
            rule=rule,
            gatebook={"incident": "inc-1", "verdict": "benign", "dedup_key": "k"},
            labels={"finding_id": "finding-000001", "by": "ada"},
        )
        await api.book.write(closed)
        assert (await good(client.get("/findings")))["total"] == 0
        assert (await good(client.get("/findings?state=all")))["findings"][0]["verdict"] == "benign"
        told = (await good(client.get("/findings/finding-000001")))["verdicts"]
        assert [(v["verdict"], v["note"], v["by"]) for v in told] == [
            ("benign", "a load test", "ada")
        ]


def flagged(number: int, action: str = "firing", **about: Any) -> Any:
    """A finding, or a word on one: of incident inc-N, a second after the one before."""
    ours = {"incident": f"inc-{number}", "dedup_key": f"k-{number}", "severity": "warning", **about}
    when = ours.pop("at", NOW - timedelta(seconds=90_000 - number))
    return make_row(
        ours.pop("document", number),
        kind="finding",
        when=when,
        event={"action": action, "reason": f"{ours['incident']} is {action}", "kind": "alert"},
        rule={"id": "request_rate", "name": "Request rate", "version": "1"},
        gatebook=ours,
    )


async def test_a_storm_of_findings_hides_no_open_incident(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of newer findings leave the grave one of the day before among the open ones. The
    total is of all, every one can be reached, and what could not be read is told."""
    grave = flagged(1, severity="critical", observed=7.0)
    over = (flagged(n, "resolved", document=10_000 + n) for n in range(2, 12))
    many = 6_000
    await api.book.write(grave, *(flagged(n) for n in range(2, many + 1)), *over)
    async with await api.client() as client:
        found = await good(client.get("/findings"))
        assert (found["total"], found["complete"], found["unread"]) == (many - 10, True, 0)
        assert found["by_severity"] == {"critical": 1, "warning": many - 11}
        assert len(found["findings"]) == 500
        (oldest,) = [f for f in found["findings"] if f["incident"] == "inc-1"]
        assert oldest["finding"]["gatebook"]["observed"] == 7.0  # the whole document
        times = [f["finding"]["@timestamp"] for f in found["findings"]]
        assert times == sorted(times, reverse=True)
        critical = await good(client.get("/findings?severity=critical"))
        assert [f["incident"] for f in critical["findings"]] == ["inc-1"]
        assert (critical["total"], critical["by_severity"]) == (1, found["by_severity"])
        last = await good(client.get("/findings?offset=5500"))
        assert [f["incident"] for f in last["findings"]] == [f"inc-{n}" for n in range(501, 11, -1)]
        everything = await good(client.get("/findings?state=all"))
        assert everything["total"] == many
        monkeypatch.setattr(findings, "MAX_DOCUMENTS", 5_500)
        part = await good(client.get("/findings"))
        assert (part["complete"], part["unread"]) == (False, many + 10 - 5_500)
        assert part["total"] == 5_500
        oldest_read = min(f["finding"]["@timestamp"] for f in part["findings"])
        assert grave_time(grave) < part["unread_before"] <= oldest_read


def grave_time(row: Any) -> str:
    found: str = json.loads(row.body)["@timestamp"]
    return found


@pytest.fixture
async def told(engines: Any, namespace: str) -> AsyncIterator[tuple[Api, list[dict[str, Any]]]]:
    """A service, and what it would write to the finding topic."""
    url = engines.elasticsearch_url
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace)
    book, words = Book(url, namespace), []

    async def say(record: dict[str, Any]) -> None:
        words.append(record)

    def make(deps: Any) -> Any:
        return create_app(replace(deps, say=say))

    async with running_service(url, namespace, make=make) as service:
        yield Api(service, book), words
    await book.connection.close()


async def test_a_finding_is_taken_on_and_a_verdict_is_not_replaced_without_a_reason(
    told: tuple[Api, list[dict[str, Any]]],
) -> None:
    """Acknowledging says who; it is in the log before it is said; a closed incident is not taken
    on any more, and another verdict wants a note."""
    api, words = told

    def told_of(number: int, event: dict[str, Any], **more: Any) -> Any:
        about = {"incident": "inc-1", "dedup_key": "k", **more.pop("gatebook", {})}
        given = {"event": {"kind": "alert", **event}, "rule": {"id": "r"}, "gatebook": about}
        return make_row(
            number, kind="finding", when=NOW - timedelta(minutes=9 - number), **given, **more
        )

    cites = {"finding_id": "finding-000001", "by": "ada"}
    await api.book.write(
        told_of(1, {"action": "firing"}), told_of(2, {"action": "acknowledged"}, labels=cites)
    )
    async with await api.client() as client:
        (listed,) = (await good(client.get("/findings")))["findings"]
        assert (listed["state"], listed["by"]) == ("acknowledged", "ada")
        await good(client.post("/findings/finding-000001/acknowledge"))
        (word,) = words
        assert (word["event"]["action"], word["gatebook"]["incident"]) == ("acknowledged", "inc-1")
        assert word["labels"]["finding_id"] == "finding-000001"
        assert api.service.audit.of("finding.acknowledged")[-1]["finding"] == "finding-000001"
        assert word["labels"]["by"]
        await good(client.post("/findings/inc-1/verdict", json={"verdict": "true_positive"}))
        closed = told_of(
            3, {"action": "closed"}, labels=cites, gatebook={"verdict": "true_positive"}
        )
        await api.book.write(closed)
        for path, body, kind in (
            ("acknowledge", None, "closed"),
            ("verdict", {"verdict": "benign"}, "verdict_given"),
            ("verdict", {"verdict": "benign", "note": "  "}, "verdict_given"),
        ):
            answer = await client.post(f"/findings/inc-1/{path}", json=body)
            assert (answer.status_code, answer.json()["error"]["type"]) == (409, kind)
        assert len(words) == 2
        body = {"verdict": "benign", "note": "it was a drill"}
        await good(client.post("/findings/inc-1/verdict", json=body))
        assert words[-1]["gatebook"]["verdict"] == "benign"


async def test_the_overview_adds_up(api: Api) -> None:
    """Traffic, tokens, errors, tops and storage agree with what was written."""
    await api.write(30)
    async with await api.client() as client:
        found = await good(client.get("/overview?since=12h"))
        assert found["total"] == sum(b["count"] for b in found["traffic"]) == 30
        assert found["tokens"] == {"input": 300, "output": 150}
        assert found["errors"]["total"] == 10
        assert sum(top["count"] for top in found["top_models"]) == 30
        sizes = found["storage"]["indices"]
        assert sum(s["documents"] for s in sizes if "-access-" in s["name"]) == 30
        assert found["storage"]["disk"]["free_bytes"] > 0


async def test_searches_are_kept_and_shared(api: Api) -> None:
    """One's own, under a name that is taken once; shared ones show to others, who cannot delete,
    and whose look at them is in the log."""
    async with await api.client() as ada, await api.client() as bob:
        body = {"name": "failures", "query": "event.outcome:failure", "shared": True}
        kept = await good(ada.post("/saved-searches", json=body), 201)
        assert (await ada.post("/saved-searches", json=body)).status_code == 409
        assert (
            await ada.post("/saved-searches", json={"name": "x", "query": "("})
        ).status_code == 400
        await good(ada.get("/saved-searches"))
        assert api.service.audit.of("search.list_saved") == []
        seen = (await good(bob.get("/saved-searches")))["saved_searches"]
        (look,) = [one for one in api.service.audit.acts if one[0] == "search.list_saved"]
        assert look[1] == "success"
        assert [(s["name"], s["mine"]) for s in seen] == [("failures", False)]
        assert (await bob.delete(f"/saved-searches/{kept['id']}")).status_code == 404
        assert (await ada.delete(f"/saved-searches/{kept['id']}")).status_code == 204
        assert (await good(ada.get("/saved-searches")))["saved_searches"] == []


async def test_a_namespace_without_documents_answers_empty(api: Api) -> None:
    """Nothing there is an answer, not an error."""
    async with await api.client() as client:
        assert (await good(client.post("/search", json={})))["total"] == 0
        assert (await good(client.post("/facets", json={"fields": ["user.id"]})))["total"] == 0
        assert (await good(client.post("/histogram", json={"since": "all"})))["total"] == 0
        assert (await good(client.get("/overview")))["total"] == 0
        assert (await good(client.get("/findings?state=all")))["findings"] == []
        assert (await good(client.post("/exports", json={}), 201))["total"] == 0


async def test_a_long_range_is_counted_from_summaries_and_says_so(api: Api) -> None:
    """The same counts as the details have, by value and tenant, too; what summaries do not keep is
    counted from details."""
    summed = SummaryBook(api.book.url, api.book.namespace)
    began = (NOW - timedelta(days=40)).replace(minute=0, second=0)
    await summed.write(spread_out(80, began, 3 * 24))
    await summed.connection.request("POST", f"/{api.book.namespace}-*/_refresh")
    await summed.run(NOW.replace(minute=0, second=0))
    await summed.connection.close()
    async with await api.client() as client:
        body = {"since": "45d", "split_by": "event.outcome", "buckets": 100}
        found = await good(client.post("/histogram", json=body))
        assert found["source"] in ("summaries", "both")
        assert found["total"] == sum(b["count"] for b in found["buckets"]) == 80
        failures = {"query": "event.outcome:failure", "since": "45d", "size": 1}
        exact = (await good(client.post("/search", json=failures)))["total"]
        assert sum(b["parts"].get("failure", 0) for b in found["buckets"]) == exact > 0
        other = await good(client.post("/histogram", json={**body, "query": "trace.id:*"}))
        assert (other["source"], other["total"]) == ("details", 0)
    async with await api.client("analyst", tenants=("acme",)) as client:
        mine = await good(client.post("/histogram", json=body))
        exact = (await good(client.post("/search", json={"since": "45d"})))["total"]
        assert (mine["total"], mine["source"]) == (exact, found["source"])
        assert 0 < exact < 80
