"""What the service says of days whose details retention took: the figures of summaries."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.access_service import Service, running_service
from tests.integration.summaries.book import Book, documents, spread_out

from gatebook.cli.counts_page import BUCKETS
from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.state import State
from gatebook.processors.serve.app import create_app
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.erasure import Privileged
from gatebook.processors.summaries import keeping

POLICY = b"""
version = 1
name = "days"

[defaults]
metadata = "12d"
redacted = "12d"
full = "12d"
"""
EVENTS, SINCE = 300, "20d"
KEPT = (
    "organization.id",
    "service.name",
    "gen_ai.request.model",
    "gen_ai.operation.name",
    "event.outcome",
    "user.id",
)
STATUS = "http.response.status_code"
FIGURES = ("total", "tokens", "top_models", "top_principals")


class Kept:
    """Summaries as retention asks for them."""

    def __init__(self, book: Book) -> None:
        self._given = (book.connection, book.namespace)

    async def ensure(self, since: datetime, until: datetime) -> None:
        await keeping.ensure(*self._given, since, until)

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        await keeping.freeze(*self._given, leaving, coming)


class Log:
    """A log of five days, and its service; retention may take the first two of the days."""

    def __init__(self, service: Service, book: Book, home: Path) -> None:
        self.service, self.book, self.home = service, book, home
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.rows = spread_out(EVENTS, today - timedelta(days=14), 5 * 24)
        self.last_gone = f"{today - timedelta(days=13):%Y.%m.%d}"

    async def ask(self, *roles: str, tenants: tuple[str, ...] | None = None) -> Any:
        found = await self.service.by_token(*roles, tenants=tenants)
        found.base_url = "http://127.0.0.1:8321/api/v1"
        return found

    def manager(self) -> Manager:
        async def record(act: Privileged) -> None:
            assert act.action.startswith("retention.")

        async def nobody() -> Mapping[str, Any]:
            return {}

        cluster = Cluster(self.book.connection, self.book.namespace)
        signer = Signer.from_file(self.home / "certificates.key")
        given = (cluster, State(cluster), POLICY, signer, record, nobody)
        return Manager(*given, Kept(self.book), gate_lease_seconds=0.0)

    async def takes_days(self) -> int:
        """How many documents retention deleted; summaries are kept up to date before."""
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        await self.book.run(now)
        certificate = await self.manager().apply("ada", "the policy")
        assert certificate is not None
        dropped: dict[str, int] = certificate["totals"]["dropped"]
        return sum(dropped.values())


@pytest.fixture
async def log(engines: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Log]:
    book = Book(engines.elasticsearch_url, namespace)
    await book.prepare()
    async with running_service(engines.elasticsearch_url, namespace, make=create_app) as service:
        found = Log(service, book, tmp_path)
        await book.write(found.rows)
        await book.connection.request("POST", f"/{namespace}-*/_refresh")
        yield found
    await book.close()


async def good(answer: Any) -> Any:
    found = await answer
    assert found.status_code == 200, (found.status_code, found.text[:500])
    return found.json()


async def looked(client: Any, kept: Sequence[str]) -> tuple[Any, Any]:
    """Overview and facets."""
    asked = {"since": SINCE, "fields": [*kept, STATUS], "size": 50}
    overview, facets = await asyncio.gather(
        good(client.get(f"/overview?since={SINCE}")), good(client.post("/facets", json=asked))
    )
    return overview, facets


@pytest.mark.parametrize(
    ("role", "tenants"),
    [("analyst", None), ("analyst", ("acme",)), ("viewer", None), ("viewer", ("wayne",))],
)
async def test_figures_stay_when_details_go(
    log: Log, role: str, tenants: tuple[str, ...] | None
) -> None:
    """Before retention took two days and after it, overview and facets say the same, and say what
    was counted; each caller sees their tenants' part of it, and a viewer no principals."""
    kept = [name for name in KEPT if role != "viewer" or name != "user.id"]
    async with await log.ask(role, tenants=tenants) as client:
        overview, facets = await looked(client, kept)
        assert overview["source"] == overview["figures_source"] == facets["source"] == "details"
        gone = sum(row.day <= log.last_gone for row in log.rows)
        assert await log.takes_days() == gone > EVENTS // 4
        after, left = await looked(client, kept)
        assert after["source"] in ("summaries", "both")
        assert after["figures_source"] == left["source"] == after["source"]
        assert {n: after[n] for n in FIGURES} == {n: overview[n] for n in FIGURES}
        assert after["errors"]["total"] == overview["errors"]["total"] > 0
        assert after["errors"]["reasons_source"] == "details"
        mine = [d for d in documents(log.rows) if tenants is None or tenant(d) in tenants]
        assert after["total"] == left["total"] == facets["total"] == len(mine)
        for name in kept:
            expected = {**facets["facets"][name], "source": left["source"]}
            assert left["facets"][name] == expected, name
        # What summaries do not keep is counted in what is there, and that is said.
        there = sum(value["count"] for value in left["facets"][STATUS]["values"])
        assert left["facets"][STATUS]["source"] == "details"
        assert 0 < there < left["total"]
        principals = {top["value"] for top in after["top_principals"]}
        masked = {"ada", "bob", "eve"}
        assert (not principals) if role == "viewer" else (principals and not principals & masked)
        asked = {"since": SINCE, "fields": ["gatebook.principal"]}
        status = (await client.post("/facets", json=asked)).status_code
        assert status == (403 if role == "viewer" else 200)


async def test_a_query_narrows_summaries_too(log: Log) -> None:
    """Of one person, with the principals; of what summaries do not keep, only details are
    counted."""
    async with await log.ask("analyst", tenants=("acme",)) as client:
        await log.takes_days()
        asked = {"since": SINCE, "query": "user.id:ada", "fields": ["gatebook.principal"]}
        found = await good(client.post("/facets", json=asked))
        wanted = [d for d in documents(log.rows) if tenant(d) == "acme"]
        adas = sum(d["user"]["id"] == "ada" for d in wanted)
        assert found["source"] in ("summaries", "both")
        assert found["facets"]["gatebook.principal"] == {
            "values": [{"value": "acme/user:ada", "count": adas}],
            "other": 0,
            "missing": 0,
            "distinct": 1,
            "exact": True,
            "source": found["source"],
        }
        other = {"since": SINCE, "query": f"{STATUS}:503", "fields": ["user.id"]}
        left = await good(client.post("/facets", json=other))
        failed = sum(d["event"]["outcome"] == "failure" for d in wanted)
        assert left["source"] == left["facets"]["user.id"]["source"] == "details"
        assert 0 < left["total"] < failed


async def counted(log: Log, *arguments: str) -> Any:
    """`gatebook search` of accesses, as a person counts them."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gatebook.cli.main", "search", *arguments],
        env={
            **os.environ,
            "GATEBOOK_ELASTICSEARCH_URL": log.book.url,
            "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "GATEBOOK_NAMESPACE": log.book.namespace,
            "GATEBOOK_SPOOL_DIR": str(log.home / "spool"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_command_line_counts_as_the_service_does(log: Log) -> None:
    """Where details are gone, --histogram and --facets are of summaries, as the API's; they say so
    to people and to programs, and warn only where details alone could be counted."""
    fields = ["user.id", "organization.id"]
    split = {"since": SINCE, "split_by": "organization.id", "buckets": BUCKETS}
    of_all = ("--since", SINCE, "--split-by", "organization.id", "--facets", ",".join(fields))
    async with await log.ask("analyst") as client:
        whole = await counted(log, *of_all, "--json")
        await log.takes_days()
        by_time = await good(client.post("/histogram", json=split))
        by_value = await good(client.post("/facets", json={"since": SINCE, "fields": fields}))
    after = await counted(log, *of_all, "--json")
    told, before = json.loads(after.stdout), json.loads(whole.stdout)
    histogram, facets = told["histogram"], told["facets"]
    assert before["histogram"]["source"] == before["facets"]["source"] == "details"
    assert histogram["total"] == before["histogram"]["total"] == by_time["total"] == EVENTS
    assert histogram["source"] == facets["source"] == by_time["source"] != "details"
    assert parts_of(histogram) == parts_of(before["histogram"]) == parts_of(by_time)
    for name in fields:
        values = [[one["value"], one["count"]] for one in by_value["facets"][name]["values"]]
        assert facets["facets"][name]["values"] == values
    assert "not all that was taken in" not in after.stderr
    shown = await counted(log, *of_all)
    assert f"{EVENTS} in intervals of" in shown.stderr
    assert f"of {EVENTS} events, counted from hourly summaries" in shown.stderr
    some = await counted(log, "--since", SINCE, "--facets", f"user.id,{STATUS}")
    assert "counted in the details that are there" in some.stdout
    assert "not all that was taken in is there" in some.stderr


def parts_of(histogram: Mapping[str, Any]) -> Counter[str]:
    """Counts by value over all buckets; what has none is in no part."""
    parts: Counter[str] = Counter()
    for bucket in histogram["buckets"]:
        parts.update(bucket["parts"])
        assert sum(bucket["parts"].values()) <= bucket["count"]
    assert set(parts) == {"acme", "wayne"}
    return parts


def tenant(document: Mapping[str, Any]) -> str:
    return str(document.get("organization", {}).get("id", ""))
