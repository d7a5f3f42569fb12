"""What GET /retention tells whom of the policy and of holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.access_service import Service, running_service
from tests.integration.retention.retention_tools import Store, document

from gatebook.processors.retention import holds
from gatebook.processors.serve.app import create_app

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
    found = await told(service, "admin")
    assert {hold["query"] for hold in found["holds"]} == {"", "[masked]"}
    assert {hold["reason"] for hold in found["holds"]} == {"[masked]"}
    assert "walrus" not in str(found)


def assert_silent(found: Mapping[str, Any]) -> None:
    text = str(found)
    assert [word for word in ZETAS if word in text] == []
