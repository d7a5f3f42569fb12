"""Tenants see their own documents and nothing else, whatever they ask; roles reach what they may.

On a real Elasticsearch, through the real app and its gate.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access_service import Service, running_service
from tests.integration.search.test_search import Book, make_row

from gatebook.processors.serve.access.caller import act_of_route
from gatebook.processors.serve.access.masking import MASKED_REASONS
from gatebook.processors.serve.access.roles import ROLES, Permission, permissions_of
from gatebook.processors.serve.app import create_app
from gatebook.processors.serve.deps import Deps
from gatebook.processors.serve.settings import ServeSettings
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.settings import ElasticsearchSettings

NOW = datetime.now(UTC).replace(microsecond=0)
TENANTS = ("acme", "zeta", "acme2", "")
KINDS = ("access", "finding", "deadletter", "alert")
FACETS = ["organization.id", "user.id", "service.name"]


def documents() -> list[Any]:
    """The same people, traces, sessions and addresses in every tenant, and in none."""
    rows: list[Any] = []
    for number in range(40):
        tenant = TENANTS[number % 4]
        shared: dict[str, Any] = {
            "user": {"id": f"user-{number % 3}", "name": f"of {tenant}", "email": f"x@{tenant}"},
            "service": {"name": "chat"},
            "source": {"ip": "10.0.0.1"},
            "trace": {"id": "one-trace"},
            "session": {"id": "one-session"},
            "event": {"outcome": "failure" if number % 5 == 0 else "success", "kind": "event"},
            "gen_ai": {"input": {"messages": f"the zebra of {tenant or 'nobody'}"}},
        }
        if number == 0:
            shared["event"]["reason"] = "timeout"
        if tenant:
            shared["organization"] = {"id": tenant}
        rows.append(make_row(number, when=NOW - timedelta(minutes=number), **shared))
    for number, tenant in enumerate(TENANTS):
        rows.append(finding(number, tenant))
    for kind in ("deadletter", "alert"):
        event = {"reason": "schema_mismatch", "kind": "event" if kind == "deadletter" else "alert"}
        rows.append(make_row(1, kind=kind, when=NOW, event=event))
    return rows


def finding(number: int, tenant: str) -> Any:
    about = {
        "incident": f"inc-{tenant or 'none'}",
        "severity": "error",
        "dedup_key": f"k-{tenant}",
        "principal": f"{tenant}/user-1",
        "observed": 4.0,
        "threshold": 3.0,
        "unit": "requests",
        "window_seconds": 60,
        "search": 'service.name:"chat"',
        "evidence": [f"access-{number:06d}"],
    }
    event = {"action": "firing", "reason": f"{tenant}/user-1: 4 requests", "kind": "alert"}
    owner = {"organization": {"id": tenant}} if tenant else {}
    rule = {"id": "request_rate", "name": "Request rate", "version": "1"}
    when = NOW - timedelta(minutes=1)
    return make_row(
        number, kind="finding", when=when, event=event, rule=rule, gatebook=about, **owner
    )


def with_short_tails(deps: Deps) -> Any:
    async def said(_record: dict[str, Any]) -> None:
        """There are no brokers here; what is said is said."""

    async def opened(_document: Any, wanted: Any) -> dict[str, Any]:
        return {layer: {"state": "opened", "content": {"secret": "zebra"}} for layer in wanted}

    short = ServeSettings(tail_seconds=1.0, tail_interval_seconds=0.05)
    return create_app(replace(deps, settings=short, say=said, reveal=opened))


@pytest.fixture
async def service(engines: Any, namespace: str) -> AsyncIterator[Service]:
    from gatebook.processors.serve.access.settings import AccessSettings

    url = engines.elasticsearch_url
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace)
    book = Book(url, namespace)
    await book.write(*documents())
    unhurried = AccessSettings(caller_per_minute=1e6, address_per_minute=1e6)
    async with running_service(url, namespace, unhurried, make=with_short_tails) as found:
        yield found
    names = await book.connection.request("GET", f"/{namespace}-*/_alias?expand_wildcards=all")
    if names.body:
        await book.connection.request("DELETE", "/" + ",".join(names.body))
    await book.connection.close()


async def client_of(service: Service, *roles: str, tenants: Any = None) -> httpx.AsyncClient:
    found: httpx.AsyncClient = await service.by_token(*roles, tenants=tenants)
    found.base_url = httpx.URL("http://127.0.0.1:8321/api/v1/")
    return found


# --- whatever is asked -------------------------------------------------------------------------

VALUES = st.sampled_from(
    ["acme", "zeta", "acme2", "*", "a*", "*a", "user-0", "user-1", "zebra", "one-trace", "10.0.0.1",
     '"of zeta"', "(acme or zeta)", "(not acme)", "(* and not acme)", "failure", "inc-zeta",
     '"the zebra of zeta"', "access-000001", "firing"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["organization.id", "user.id", "user.name", "event.id", "trace.id", "source.ip", "event.kind",
     "gen_ai.input.messages", "event.outcome", "gatebook.incident", "service.name",
     "gatebook.evidence"]
)  # fmt: skip
CLAUSES = st.one_of(
    st.builds(lambda name, value: f"{name}:{value}", NAMES, VALUES),
    st.sampled_from(["zebra", "nobody", "zeta", "*", "", "user-1 4"]),
)
QUERIES = st.one_of(
    st.recursive(
        CLAUSES,
        lambda inner: st.one_of(
            st.builds(lambda one: f"not {one}", inner),
            st.builds(lambda a, b: f"({a} or {b})", inner, inner),
            st.builds(lambda a, b: f"({a} and {b})", inner, inner),
        ),
        max_leaves=5,
    ),
    st.text(max_size=30),
    # What would matter if the text of a query were ever pasted into a request.
    st.sampled_from(['"}},{"match_all":{}}', "*) or (*", "organization.id:* or *", "\\", "a\x00b"]),
)


def tenant_of(source: dict[str, Any]) -> str:
    return str(source.get("organization", {}).get("id", ""))


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The answer, or None where the query is refused as wrong."""
    answer = await client.post(path, json={"since": "all", **body})
    if answer.status_code == 400:
        return None
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_no_query_shows_or_counts_what_is_another_tenants(service: Service) -> None:
    """For any text: hits, totals, histogram, facets and splits of a caller who is bound to one
    tenant are those of its documents alone, as if there were no others."""
    bound = await client_of(service, "analyst", tenants=("acme",))
    free = await client_of(service, "analyst")
    loop = asyncio.get_running_loop()
    seen = {"understood": 0, "foreign": 0}

    async def one(query: str, kind: str) -> None:
        everything = await ask(free, "search", query=query, kind=kind, size=500)
        mine = await ask(bound, "search", query=query, kind=kind, size=500)
        assert (everything is None) == (mine is None)
        if everything is None:
            return
        own = {h["id"] for h in everything["hits"] if tenant_of(h["source"]) == "acme"}
        assert {h["id"] for h in mine["hits"]} == own
        assert mine["total"] == len(own)
        seen["understood"] += 1
        seen["foreign"] += everything["total"] > mine["total"]
        histogram = await ask(bound, "histogram", query=query, kind=kind, buckets=10)
        assert histogram["total"] == sum(b["count"] for b in histogram["buckets"]) == len(own)
        if kind != "access":
            return
        split = await ask(bound, "histogram", query=query, buckets=10, split_by="organization.id")
        assert {name for b in split["buckets"] for name in b["parts"]} <= {"acme"}
        facets = await ask(bound, "facets", query=query, fields=FACETS, size=50)
        assert facets["total"] == len(own)
        values = facets["facets"]["organization.id"]["values"]
        assert values == ([{"value": "acme", "count": len(own)}] if own else [])
        assert facets["facets"]["organization.id"]["missing"] == 0
        assert sum(v["count"] for v in facets["facets"]["user.id"]["values"]) == len(own)

    @given(QUERIES, st.sampled_from(KINDS))
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    def any_query(query: str, kind: str) -> None:
        asyncio.run_coroutine_threadsafe(one(query, kind), loop).result(60)

    async with bound, free:
        await asyncio.to_thread(any_query)
    assert seen["understood"] > 30, seen
    assert seen["foreign"] > 15, seen  # or nothing was shown at all


# --- by id, around, findings, export, tail -----------------------------------------------------


async def test_documents_of_others_are_not_there(service: Service) -> None:
    """By id, as neighbours, as evidence, as findings: 404, as for an id that does not exist."""
    bound = await client_of(service, "privacy_officer", tenants=("acme",))
    async with bound as client:
        own = await client.get("events/access-000000")
        assert own.status_code == 200
        assert all(tenant_of(d["source"]) == "acme" for d in own.json()["documents"])
        assert [c["id"] for c in own.json()["cited_by"]] == ["finding-000000"]
        assert {r["count"] for r in own.json()["related"] if r["by"] == "trace.id"} <= {10}
        missing = (await client.get("events/access-999999")).json()
        for foreign in ("access-000001", "access-000003", "finding-000001", "deadletter-000001"):
            answer = await client.get(f"events/{foreign}")
            assert (answer.status_code, answer.json()) == (404, missing), foreign
            assert (await client.get(f"events/{foreign}/around")).status_code == 404
            body = {"layer": "full", "reason": "curious"}
            refused = await client.post(f"events/{foreign}/reveal", json=body)
            assert (refused.status_code, "zebra" in refused.text) == (404, False)
        for by in ("trace.id", "session.id", "source.ip", "user.id", "service.name"):
            answer = await client.get(
                "events/access-000020/around", params={"by": by, "before": 50, "after": 50}
            )
            found = answer.json()
            around = found["before"] + found["after"]
            assert {tenant_of(hit["source"]) for hit in around} == {"acme"}, by
        findings = (await client.get("findings", params={"state": "all"})).json()
        assert [f["incident"] for f in findings["findings"]] == ["inc-acme"]
        for foreign in ("inc-zeta", "inc-none", "finding-000001"):
            assert (await client.get(f"findings/{foreign}")).status_code == 404
            verdict = {"verdict": "benign", "note": "none of mine"}
            answer = await client.post(f"findings/{foreign}/verdict", json=verdict)
            assert answer.status_code == 404
            assert (await client.post(f"findings/{foreign}/acknowledge")).status_code == 404
        mine = (await client.get("findings/inc-acme")).json()
        assert sum(point["value"] for point in mine["baseline"]["series"]) <= 10
    # What was tried is recorded, as refused.
    tried = service.audit.of("event.reveal") + service.audit.of("finding.verdict")
    assert [act["refused"] for act in tried] == ["not_found"] * 7


async def test_exports_overviews_and_tails_are_narrowed(service: Service) -> None:
    """What is streamed is what could be searched; an export of another caller is not there."""
    bound = await client_of(service, "analyst", tenants=("acme", "acme2"))
    other = await client_of(service, "analyst", tenants=("zeta",))
    async with bound, other:
        body = {"query": "", "since": "all", "kind": "access", "format": "ndjson"}
        made = (await bound.post("exports", json=body)).json()
        data = await bound.get(f"exports/{made['id']}/data")
        lines = [json.loads(line) for line in data.text.splitlines() if line]
        assert {tenant_of(line) for line in lines} == {"acme", "acme2"}
        assert len(lines) == made["total"] == 20
        for path in (f"exports/{made['id']}", f"exports/{made['id']}/data"):
            assert (await other.get(path)).status_code in (403, 404)
        overview = (await bound.get("overview", params={"since": "24h"})).json()
        assert overview["total"] == 20
        assert {top["value"] for top in overview["top_principals"]} <= {
            f"user-{n}" for n in range(3)
        }
        assert overview["errors"]["total"] == 4
        tail = await bound.get("tail", headers={"last-event-id": _stamp(NOW - timedelta(days=1))})
        hits = [line for line in tail.text.splitlines() if line.startswith('data: {"index"')]
        assert {tenant_of(json.loads(h[6:])["source"]) for h in hits} <= {"acme", "acme2"}
        assert hits


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_caller_without_tenants_sees_nothing(service: Service) -> None:
    """Somebody whom the provider gives no tenant is not somebody who sees all."""
    from gatebook.processors.serve.access.caller import Caller

    caller = Caller("lost", "Lost", "oidc", frozenset({"analyst"}), frozenset())
    value = await service.access.sessions.begin(caller)
    async with service.client(cookies={service.access.cookie_name: value}) as client:
        csrf = (await client.get("/api/v1/session")).json()["csrf_token"]
        client.headers["x-csrf-token"] = csrf
        for kind in KINDS:
            found = await ask(client, "/api/v1/search", query="", kind=kind)
            assert (found["total"], found["hits"]) == (0, [])
        assert (await client.get("/api/v1/events/access-000000")).status_code == 404
        assert (await client.get("/api/v1/findings?state=all")).json()["findings"] == []


# --- masks -------------------------------------------------------------------------------------


async def test_a_reason_is_masked_where_it_names_a_person_and_nowhere_else(
    service: Service,
) -> None:
    """Of an access a viewer sees it, whichever fields are asked for; of a finding in no way, and
    /fields says so of each kind."""
    async with await client_of(service, "viewer") as client:
        for kind, wanted in (("access", "timeout"), ("finding", "[masked]")):
            for fields in (["event.reason"], ["event.id", "event.reason"], None):
                found = await ask(
                    client, "search", query=f"event.id:{kind}-000000", kind=kind, fields=fields
                )
                (hit,) = found["hits"]
                assert hit["source"]["event"]["reason"] == wanted, (kind, fields)
                if fields:
                    assert {f"event.{name}" for name in hit["source"]["event"]} == set(fields)
        for kind in KINDS:
            told = (await client.get("fields", params={"kind": kind})).json()["fields"]
            (reason,) = (field for field in told if field["name"] == "event.reason")
            asked = {"sort": "event.reason:asc", "kind": kind, "since": "all"}
            status = (await client.post("search", json=asked)).status_code
            assert (reason["masked"], status) == (
                (True, 403) if kind in MASKED_REASONS else (False, 200)
            )


async def test_a_viewer_learns_masked_values_in_no_way(service: Service) -> None:
    """Not shown, not filtered by, not sorted by, not counted, not split by, not pivoted on, and
    not by words; each refusal is recorded with who tried."""
    viewer = await client_of(service, "viewer")
    async with viewer as client:
        found = await ask(client, "search", query="event.id:access-000000")
        shown = json.dumps(found)
        for secret in ("of acme", "x@acme", "10.0.0.1", "zebra", "user-0"):
            assert secret not in shown
        assert (await ask(client, "search", query="zebra"))["total"] == 0
        assert (await ask(client, "search", query='"of zeta"'))["total"] == 0
        refused = [
            ("search", {"query": "user.name:*"}),
            ("search", {"query": "user.id:user-1"}),
            ("search", {"query": "gatebook.subject:*"}),
            ("search", {"query": "gatebook.identity.on_behalf_of:*"}),
            ("search", {"query": "gatebook.identity.key_id:*"}),
            ("search", {"query": "user.id:user-1", "kind": "finding"}),
            ("search", {"sort": "user.id:asc"}),
            ("histogram", {"split_by": "user.id"}),
            ("facets", {"fields": ["user.id"]}),
            ("facets", {"fields": ["gatebook.subject"]}),
            ("search", {"query": "not source.ip:10.0.0.1"}),
            ("search", {"query": "gen_ai.input.messages:zebra"}),
            ("search", {"sort": "user.email:asc"}),
            ("search", {"query": "event.reason:acme*", "kind": "finding"}),
            ("search", {"sort": "event.reason:asc", "kind": "finding"}),
            ("histogram", {"split_by": "source.ip"}),
            ("histogram", {"query": "user.email:a*"}),
            ("facets", {"fields": ["user.name"]}),
            ("facets", {"fields": ["event.reason"], "kind": "finding"}),
            ("facets", {"fields": ["gatebook.principal"]}),
        ]
        for path, body in refused:
            answer = await client.post(path, json={"since": "all", "query": "", **body})
            assert answer.status_code == 403, (path, body, answer.text)
            assert answer.json()["error"]["type"] == "masked_field"
        for by in ("source.ip", "user.id"):
            around = await client.get("events/access-000000/around", params={"by": by})
            assert around.status_code == 403
        finding_ = (await client.get("findings/inc-acme")).text
        event = (await client.get("events/access-000000")).text
        listed = (await client.get("findings")).text
        overview = (await client.get("overview")).text
        assert json.loads(overview)["top_principals"] == []
        followed = await client.get("tail", params={"query": "user.id:user-1"})
        assert followed.status_code == 403
        tail = await client.get("tail", headers={"last-event-id": _stamp(NOW - timedelta(days=1))})
        assert "access-0000" in tail.text
        for text in (finding_, event, listed, overview, tail.text):
            for secret in ("of acme", "x@acme", "10.0.0.1", "zebra", "user-0", "user-1", "user-2"):
                assert secret not in text
    assert len(service.audit.of("access.refused")) == len(refused) + 3
    analyst = await client_of(service, "analyst")
    async with analyst as client:
        for path, body in refused:
            answer = await client.post(path, json={"since": "all", "query": "", **body})
            assert answer.status_code == 200, (path, body, answer.text)


AS_JSON = {"content-type": "application/json"}


# --- what failed ------------------------------------------------------------------------------


async def test_what_failed_is_recorded_as_failed(service: Service) -> None:
    """Wrong queries, and looks, reveals and verdicts of what another tenant has: each stands once
    in the log, as a failure, with what was asked for; a search that worked with its range."""
    acme = await client_of(service, "analyst", tenants=("acme",))
    async with acme as client:
        before = len(service.audit.acts)
        tried: list[tuple[str, str, Any, int, str, dict[str, str]]] = [
            ("POST", "search", {"query": "user.id:"}, 400, "search", {"query": "user.id:"}),
            ("POST", "search", {"query": "no.such:1"}, 400, "search", {"query": "no.such:1"}),
            ("POST", "facets", {"query": "(", "fields": ["user.id"]}, 400, "search.facets",
             {"query": "("}),
            ("POST", "histogram", {"query": ")"}, 400, "search.histogram", {"query": ")"}),
            ("GET", "events/access-000001", None, 404, "event.view", {"event": "access-000001"}),
            ("GET", "events/access-000001/around", None, 404, "event.around",
             {"event": "access-000001"}),
            ("POST", "events/access-000001/reveal", {"layer": "redacted", "reason": "why"}, 404,
             "event.reveal", {"event": "access-000001", "reason": "why"}),
            ("POST", "events/access-000000/reveal", {"layer": "redacted", "reason": " \u200b\t"},
             422, "event.reveal", {"event": "access-000000"}),
            ("GET", "findings/inc-zeta", None, 404, "finding.view", {"finding": "inc-zeta"}),
            ("POST", "findings/inc-zeta/verdict", {"verdict": "benign", "note": "no"}, 404,
             "finding.verdict", {"finding": "inc-zeta"}),
            ("POST", "search", {"query": 7}, 422, "search", {}),
            ("POST", "query/check", {"query": 7}, 422, "query.check", {}),
            ("GET", "fields?kind=x", None, 422, "field.list", {}),
            ("GET", "exports/nothing", None, 404, "export.state", {}),
            ("GET", "exports/nothing/data", None, 404, "export.read", {}),
            ("POST", "saved-searches", {"name": 7}, 422, "search.save", {}),
            ("DELETE", "saved-searches/nothing", None, 404, "search.unsave", {}),
            ("GET", "nothing", None, 404, "access.refused", {}),
        ]  # fmt: skip
        for method, path, body, status, *_ in tried:
            answer = await client.request(method, path, json=body)
            assert answer.status_code == status, (path, answer.text)
        kept = service.audit.acts[before:]
        assert [act for act, *_ in kept] == [act for *_, act, _ in tried]
        broken = await client.post("search", content=b"{", headers=AS_JSON)
        assert broken.status_code == 400
        act, outcome, details, _ = service.audit.acts[-1]
        assert (act, outcome, details["refused"]) == ("search", "failure", "not_json")
        for (_, outcome, details, who), (*_, status, _, wanted) in zip(kept, tried, strict=True):
            assert (outcome, details["status"]) == ("failure", str(status))
            assert details | wanted == details
            assert who is not None
            assert who.tenants == {"acme"}
        await ask(client, "search", query="event.id:access-000000", since="1h")
        act, outcome, details, _ = service.audit.acts[-1]
        assert (act, outcome, details["since"]) == ("search", "success", "1h")
        assert details["from"] < details["to"]
        assert details["to"].startswith("20")
    viewer = await client_of(service, "viewer")
    async with viewer as client:
        asked = {"query": "user.id:user-1", "since": "1h"}
        assert (await client.post("search", json=asked)).status_code == 403
    refused = service.audit.of("access.refused")[-1]
    assert (refused["query"], refused["field"], refused["act"]) == (
        "user.id:user-1", "user.id", "search"
    )  # fmt: skip


# --- every route, every role -------------------------------------------------------------------

QUERY = {"query": "", "since": "all"}
ROUTES: list[tuple[str, str, Any, Permission, str]] = [
    ("GET", "session", None, Permission.SESSION, ""),
    ("GET", "tokens", None, Permission.TOKENS, "token.list"),
    ("POST", "tokens", {"name": "n", "roles": ["admin"], "tenants": None, "days": 1},
     Permission.TOKENS, "token.new"),
    ("DELETE", "tokens/{id}", None, Permission.TOKENS, "token.revoke"),
    ("GET", "fields", None, Permission.SEARCH, ""),
    ("POST", "query/check", {"query": "a"}, Permission.SEARCH, ""),
    ("POST", "search", QUERY, Permission.SEARCH, "search"),
    ("POST", "histogram", QUERY, Permission.SEARCH, "search.histogram"),
    ("POST", "facets", {**QUERY, "fields": ["service.name"]}, Permission.SEARCH, "search.facets"),
    ("GET", "events/{id}", None, Permission.SEARCH, "event.view"),
    ("GET", "events/{id}/around", None, Permission.SEARCH, "event.around"),
    ("POST", "events/{id}/reveal", {"layer": "redacted", "reason": "a test"},
     Permission.REVEAL_REDACTED, "event.reveal"),
    ("POST", "events/{id}/reveal", {"layer": "full", "reason": "a test"},
     Permission.REVEAL_FULL, "event.reveal"),
    ("GET", "tail", None, Permission.SEARCH, "search.tail"),
    ("POST", "exports", {**QUERY, "format": "csv"}, Permission.EXPORT, "export.make"),
    ("GET", "exports/{id}", None, Permission.EXPORT, ""),
    ("GET", "exports/{id}/data", None, Permission.EXPORT, ""),
    ("GET", "findings", None, Permission.SEARCH, "finding.list"),
    ("GET", "findings/{incident}", None, Permission.SEARCH, "finding.view"),
    ("POST", "findings/{incident}/acknowledge", None, Permission.VERDICT, "finding.acknowledged"),
    ("POST", "findings/{incident}/verdict", {"verdict": "benign", "note": "a test"},
     Permission.VERDICT, "finding.verdict"),
    ("GET", "overview", None, Permission.OVERVIEW, "overview.view"),
    ("GET", "saved-searches", None, Permission.SAVED_SEARCHES, ""),
    ("POST", "saved-searches", {"name": "mine", "query": "user.id:a"},
     Permission.SAVED_SEARCHES, "search.save"),
    ("DELETE", "saved-searches/{id}", None, Permission.SAVED_SEARCHES, ""),
    ("GET", "retention", None, Permission.RETENTION_READ, "retention.view"),
]  # fmt: skip
PLACES = {"events/{id}": "events/access-000000", "findings/{incident}": "findings/inc-acme"}


async def test_every_route_answers_the_roles_that_may_and_refuses_the_others(
    service: Service,
) -> None:
    """The matrix of routes and roles: allowed means anything but 401 and 403, and an act in the
    log; refused means 403, nothing done, and the refusal in the log."""
    declared = {
        (method, route.path.removeprefix("/api/v1/")): act_of_route(route)
        for route in service.app.routes
        if getattr(route, "path", "").startswith("/api/v1/")
        for method in route.methods or ()
        if route.path not in ("/api/v1/health", "/api/v1/openapi.json")
    }
    assert {(method, path) for method, path, *_ in ROUTES} == set(declared)
    for method, path, _, _, act in ROUTES:
        assert not act or declared[method, path] == act, (method, path)
    for role in sorted(ROLES):
        client = await client_of(service, role)
        async with client:
            for method, path, body, permission, act in ROUTES:
                before = len(service.audit.acts)
                answer = await client.request(method, await _address(service, path), json=body)
                done = [name for name, *_ in service.audit.acts[before:]]
                where = (role, method, path, answer.status_code, answer.text[:200])
                if permission in permissions_of([role]):
                    assert answer.status_code not in (401, 403, 422, 500), where
                    assert not act or act in done, (where, done)
                else:
                    assert answer.status_code == 403, where
                    assert done == ["access.refused"], (where, done)
                    refused = service.audit.acts[-1][2]
                    assert refused["act"] == declared[method, path], where
                    assert refused["route"] == f"/api/v1/{path}"
                    assert "zebra" not in answer.text


async def _address(service: Service, path: str) -> str:
    """The path with something that is there in the place of its parameter."""
    if path == "tokens/{id}":
        _, facts = await service.token("viewer")
        return f"tokens/{facts.id}"
    for template, place in PLACES.items():
        path = path.replace(template, place)
    return path.replace("{id}", "nothing")
