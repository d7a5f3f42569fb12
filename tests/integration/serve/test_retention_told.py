"""What GET /retention tells whom of the policy and of holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.access_service import Service, running_service
from tests.integration.retention.retention_tools import Store, day, document

from gatebook.processors.retention import holds
from gatebook.processors.serve.app import create_app
from gatebook.processors.sinks.slots import Gates
from gatebook.processors.summaries.rollup import Rollup, settled
from gatebook.processors.summaries.store import SummaryStore

API = "http://127.0.0.1:8321/api/v1"

POLICY = b"""
version = 1
name = "told"
summaries = false

[defaults]
metadata = "usual"
redacted = "10d"
full = "5d"

[classes]
usual = "30d"
short = "3d"
secret-of-zeta = "400d"

[[rule]]
name = "acme-noise"
match = { tenant = ["acme*", "zeta"] }
metadata = "short"

[[rule]]
name = "zeta-alone"
match = { tenant = "zeta" }
metadata = "secret-of-zeta"

[[rule]]
name = "all"
match = { model = "slm" }
full = "2d"
"""
ZETAS = ("zeta", "secret", "the walrus")


@pytest.fixture
async def service(engines: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Service]:
    """After a run of retention, with a hold on each of two tenants and one on a query."""
    store = await Store(engines.elasticsearch_url, namespace, tmp_path).open()
    await store.write(document(1, 40), document(2, 1))
    assert await store.manager(POLICY).apply("ada", "zeta asked") is not None
    for name, what in (
        ("one", {"tenant": "acme"}),
        ("two", {"tenant": "zeta"}),
        ("three", {"query": 'user.id:"the walrus"'}),
    ):
        await holds.put(store.state, holds.checked(store.hold(name, **what)))
    async with running_service(engines.elasticsearch_url, namespace, make=create_app) as found:
        yield found
    await store.close()


async def told(service: Service, *roles: str, tenants: tuple[str, ...] | None = None) -> Any:
    client = await service.by_token(*roles, tenants=tenants)
    async with client:
        answer = await client.get("http://127.0.0.1:8321/api/v1/retention")
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()


async def test_who_sees_all_tenants_is_told_the_policy_of_the_latest_run(service: Service) -> None:
    """Rules in their order, classes, defaults, and whom the run was for."""
    found = await told(service, "privacy_officer")
    policy = found["policy"]
    assert (policy["name"], policy["sha256"]) == ("told", found["last_run"]["policy"]["sha256"])
    assert policy["defaults"] == {"metadata": "usual", "redacted": "10d", "full": "5d"}
    assert policy["classes"]["secret-of-zeta"] == "400d"
    assert [rule["name"] for rule in policy["rules"]] == ["acme-noise", "zeta-alone", "all"]
    assert policy["rules"][0]["match"] == {"tenant": ["acme*", "zeta"]}
    assert found["last_run"]["totals"]["dropped"] == {"acme-noise/short": 1}
    assert found["last_run"]["requested_by"] == "ada"
    assert [(hold["id"], hold["tenant"]) for hold in found["holds"]] == [
        ("one", "acme"),
        ("three", ""),
        ("two", "zeta"),
    ]
    assert found["holds"][1]["query"] == 'user.id:"the walrus"'
    assert found["subjects_held"] == 0


async def test_a_tenant_is_told_of_itself_alone(service: Service) -> None:
    """No other tenant's name, class, hold or sum; nor a hold that could be about anybody."""
    found = await told(service, "privacy_officer", tenants=("acme",))
    assert [rule["name"] for rule in found["policy"]["rules"]] == ["acme-noise", "all"]
    assert found["policy"]["rules"][0]["match"] == {"tenant": ["acme"]}
    assert found["policy"]["classes"] == {"usual": "30d", "short": "3d"}
    assert [hold["id"] for hold in found["holds"]] == ["one"]
    assert found["subjects_held"] is None
    assert set(found["last_run"]) == {"run", "completed_at", "policy", "signature"}
    assert_silent(found)
    nobody = await told(service, "privacy_officer", tenants=("wayne",))
    assert [rule["name"] for rule in nobody["policy"]["rules"]] == ["all"]
    assert nobody["holds"] == []
    assert_silent(nobody)


async def test_holds_are_for_those_who_put_them_or_set_retention_up(service: Service) -> None:
    """A viewer and an analyst see none; an administrator sees that they stand, and no persons."""
    for role in ("viewer", "analyst"):
        found = await told(service, role)
        assert found["policy"]["name"] == "told"
        assert (found["holds"], found["subjects_held"]) == (None, None)
        assert "requested_by" not in found["last_run"]
        reason = {"viewer": "[masked]", "analyst": "zeta asked"}[role]
        assert found["last_run"]["reason"] == reason
    found = await told(service, "admin")
    assert {hold["query"] for hold in found["holds"]} == {"", "[masked]"}
    assert {hold["reason"] for hold in found["holds"]} == {"[masked]"}
    assert found["last_run"]["reason"] == "[masked]"
    assert "walrus" not in str(found)


def assert_silent(found: Mapping[str, Any]) -> None:
    text = str(found)
    assert [word for word in ZETAS if word in text] == []


SAMPLED = b"""
version = 1
name = "sampled"
summaries = false

[defaults]
metadata = "30d"
redacted = "10d"
full = "5d"

[[rule]]
name = "noise"
match = { tenant = "globex" }
sample_after = "2d"
keep_one_in = 100

[[rule]]
name = "brief"
match = { tenant = "initech" }
metadata = "3d"
"""
WHOLE = {"complete": True, "thinned": []}


@pytest.fixture
async def sampled(engines: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Store]:
    """Globex is thinned out, and of initech a day is gone that nobody else has, one of two days;
    of acme everything from before the last month."""
    store = await Store(engines.elasticsearch_url, namespace, tmp_path).open()
    globex = (document(n, 5, "globex") for n in range(20))
    await store.write(*globex, document(1, 5), document(1, 40), document(1, 7, "initech"))
    await store.write(document(1, 5, "initech"))
    summaries = SummaryStore(store.connection, namespace)
    async with summaries.lease(10) as lease:
        await Rollup(summaries, lease).run(settled(datetime.now(UTC)) - timedelta(hours=1))
    yield store
    await store.close()


async def seen(store: Store, *tenants: str) -> tuple[Any, Any, str]:
    """A search over two months, what retention tells of days that are not whole, and what a
    histogram is made of; in the eyes of these tenants, of all without."""
    async with running_service(store.url, store.namespace, make=create_app) as service:
        client = await service.by_token("analyst", tenants=tenants or None)
        async with client:
            asked = {"since": "10d", "until": "now"}
            searched = await client.post(f"{API}/search", json={**asked, "query": ""})
            counted = await client.post(f"{API}/histogram", json={**asked, "query": ""})
            kept = await client.get(f"{API}/retention")
    assert searched.status_code == counted.status_code == kept.status_code == 200
    return searched.json()["detail"], kept.json()["thinned"], counted.json()["source"]


def days_of(thinned: Any) -> dict[str, tuple[Any, bool, bool]]:
    return {
        one["from"][:10].replace("-", "."): (one["keep_one_in"], one["all_gone"], one["unknown"])
        for one in thinned
    }


async def test_what_went_of_others_is_no_matter_of_a_tenant(sampled: Store) -> None:
    """Neither whether their own details are whole, nor how a histogram is counted, nor what
    GET /retention tells follows from another tenant's rule; each hears of its own."""
    assert await sampled.manager(SAMPLED).apply("ada", "policy") is not None
    detail, thinned, counted = await seen(sampled, "acme")
    assert (detail, counted) == (WHOLE, "details")
    assert days_of(thinned) == {day(40): (None, True, False)}
    detail, thinned, counted = await seen(sampled, "globex")
    assert counted == "both"
    assert days_of(detail["thinned"]) == {day(5): (100, False, False)} == days_of(thinned)
    detail, thinned, _ = await seen(sampled, "initech")
    assert days_of(detail["thinned"]) == days_of(thinned)
    assert days_of(thinned) == {day(7): (None, True, False), day(5): (None, False, False)}
    both, _, _ = await seen(sampled, "acme", "globex")
    assert days_of(both["thinned"]) == {day(5): (100, False, False)}
    detail, thinned, _ = await seen(sampled)
    assert days_of(detail["thinned"]) == {day(7): (None, True, False), day(5): (100, False, False)}
    assert set(days_of(thinned)) == {day(40), day(7), day(5)}


async def test_what_is_not_known_to_be_of_a_tenant_is_told_without_figures(
    sampled: Store,
) -> None:
    """Runs of before it was kept whose details went: a day that is gone as a whole is everybody's;
    of any other a tenant hears that some are gone, perhaps not of its own."""
    assert await sampled.manager(SAMPLED).apply("ada", "policy") is not None
    await sampled.state.change_gates(without_tenants)
    for tenant in ("acme", "globex"):
        detail, _, _ = await seen(sampled, tenant)
        assert detail["complete"] is False
        assert days_of(detail["thinned"]) == {
            day(7): (None, True, False),
            day(5): (None, False, True),
        }
    detail, _, _ = await seen(sampled)
    assert days_of(detail["thinned"])[day(5)] == (100, False, False)


def without_tenants(gates: Gates) -> Gates:
    """As they were written before."""
    closed = {
        kind: {slot: replace(one, whose={}) for slot, one in slots.items()}
        for kind, slots in gates.closed.items()
    }
    return replace(gates, closed=closed)
