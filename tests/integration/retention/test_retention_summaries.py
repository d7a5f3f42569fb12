"""Summaries have their own time: hours go before days, what is held stays, nothing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.retention.retention_tools import Store, document

from gatebook.processors.retention import holds
from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.manager import Manager
from gatebook.processors.summaries import answer, keeping
from gatebook.processors.summaries.check import check
from gatebook.processors.summaries.erasing import erase
from gatebook.processors.summaries.reading import floor_hour
from gatebook.processors.summaries.rollup import Rollup
from gatebook.processors.summaries.store import SummaryStore

POLICY = b"""
version = 1
name = "test"

[defaults]
metadata = "%s"
redacted = "30d"
full = "30d"

[kinds]
finding = "forever"
summary-hour = "400d"
summary-day = "%s"
"""
OLD, YOUNG = 470, 3


class Kept:
    """The summaries of a store, as the command line has them."""

    def __init__(self, store: Store) -> None:
        self._where = store.connection, store.namespace

    async def ensure(self, since: datetime, until: datetime) -> None:
        await keeping.ensure(*self._where, since, until)

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        await keeping.freeze(*self._where, leaving, coming)

    async def forget(self, grain: str, until: datetime) -> None:
        await keeping.forget(*self._where, grain, until)


def manager(store: Store, metadata: str = "forever", days: str = "7y") -> Manager:
    policy = POLICY % (metadata.encode(), days.encode())
    return store.manager(policy, summaries=Kept(store))


async def sum_up(store: Store, **given: Any) -> None:
    """A run of summaries, as of now."""
    summaries = SummaryStore(store.connection, store.namespace)
    async with summaries.lease(10) as lease:
        await Rollup(summaries, lease).run(floor_hour(datetime.now(UTC)), **given)


async def by_day(store: Store, **given: Any) -> dict[str, tuple[int, int]]:
    """Events and principals by day, of all time."""
    found = await answer.totals(store.connection, store.namespace, group_by=["day"], **given)
    assert found is not None
    return {g.key["day"]: (g.row.events, g.principals) for g in found.groups}


async def rows(store: Store, grain: str, **equal: str) -> list[dict[str, Any]]:
    """Rows by principal that a search finds, of whatever index."""
    alias = f"/{store.namespace}-summary"
    await store.cluster.ask("POST", f"{alias}/_refresh")
    terms = {"summary.grain": grain, "summary.by": "principal", **equal}
    query = {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items()]}}
    body = {"query": query, "size": 1000}
    hits = (await store.cluster.ask("POST", f"{alias}/_search", json=body))["hits"]["hits"]
    return [hit["_source"] for hit in hits]


async def names(store: Store) -> list[str]:
    """Indices of summaries, without the namespace."""
    found = await store.cluster.ask("GET", f"/{store.namespace}-summary/_alias", absent={})
    return sorted(name.removeprefix(f"{store.namespace}-summary-") for name in found)


@pytest.mark.parametrize("metadata", ["forever", "30d"], ids=["with_details", "without_details"])
async def test_hours_go_and_days_say_the_same(store: Store, metadata: str) -> None:
    """Whether details are still there or not: the month of hours goes with a certificate, whole
    days are counted as before, also by a range that begins within one; neither a run nor a rebuild
    brings the hours back, and a second run of retention has nothing to do."""
    old = [document(n, OLD) for n in range(30)]
    await store.write(*old, *(document(n, YOUNG) for n in range(9)))
    await sum_up(store)
    before, hours = await by_day(store), len(await rows(store, "hour"))
    certificate = await manager(store, metadata).apply("ada", "policy")

    assert certificate is not None
    assert certificate["totals"]["dropped"]["summary-hour"] > 0
    assert await by_day(store) == before
    old_day = datetime.fromisoformat(old[0]["@timestamp"][:10] + "T00:00:00+00:00")
    assert min(before) == f"{old_day:%Y-%m-%d}"
    assert await by_day(store, since=old_day + timedelta(hours=7)) == before
    left = await rows(store, "hour")
    assert 0 < len(left) < hours
    assert min(one["@timestamp"] for one in left)[:7] > f"{old_day:%Y-%m}"
    await sum_up(store)
    await sum_up(store, force=True)
    assert len(await rows(store, "hour")) == len(left)
    assert await by_day(store) == before
    found = await check(store.connection, store.namespace)
    assert (found.differences, found.waiting) == ([], [])
    assert await manager(store, metadata).apply("ada", "policy") is None
    state = await store.cluster.ask(
        "POST",
        f"/{store.namespace}-rollup-state/_search",
        json={"size": 1000, "query": {"terms": {"type": ["carried", "going"]}}},
    )
    assert state["hits"]["hits"] == []  # those name principals, too


async def test_days_go_in_their_own_time(store: Store) -> None:
    """A year of days is deleted as a whole, and answers begin where something is left."""
    await store.write(document(1, 1000), *(document(n, YOUNG) for n in range(9)))
    await sum_up(store)
    certificate = await manager(store, "30d", "500d").apply("ada", "policy")
    assert certificate is not None
    assert certificate["totals"]["dropped"]["summary-day"] == 2  # by principal, and over all
    assert [events for events, _ in (await by_day(store)).values()] == [9]
    assert len(await names(store)) == 2  # this month, this year


@pytest.mark.parametrize("how", ["subject", "tenant", "query", "time"])
async def test_what_is_held_stays_until_it_is_released(store: Store, how: str) -> None:
    """Rows under hold are moved out before their month goes, and go once they are released."""
    other = [document(n, OLD, tenant="other") for n in (1, 2)]
    await store.write(document(3, OLD), *other, *(document(n, YOUNG) for n in range(3)))
    await sum_up(store)
    at = document(3, OLD)["@timestamp"]
    what: dict[str, Any] = {
        "subject": None,
        "tenant": {"tenant": "acme"},
        "query": {"query": 'user.id: "user-3"'},
        "time": {"since": at[:14] + "10:00Z", "until": at[:14] + "20:00Z"},
    }[how]
    if what is None:
        store.held = {"tag-3": ()}
    else:
        await holds.put(store.state, holds.checked(store.hold("case", **what)))
    certificate = await manager(store).apply("ada", "policy")
    assert certificate is not None
    assert certificate["totals"]["held"] > 0
    old = [one for one in await rows(store, "hour") if one["@timestamp"][:10] == at[:10]]
    assert [one["user"]["id"] for one in old] == ["user-3"]
    assert any("hour-held-" in name for name in await names(store))
    assert await manager(store).apply("ada", "policy") is None

    store.held = {}
    if what is not None:
        await holds.release(store.state, "case")
    assert await manager(store).apply("ada", "released") is not None
    assert not any("held" in name for name in await names(store))


async def test_an_erased_person_goes_from_days_whose_hours_have_gone(store: Store) -> None:
    """Also from rows that nothing is left to sum up from, and from those a hold on others keeps:
    counts and the number of people stay."""
    await store.write(*(document(n, OLD) for n in range(12)), document(1, YOUNG))
    await sum_up(store)
    hold = holds.checked(store.hold("case", tenant="acme", since=document(0, OLD)["@timestamp"]))
    await holds.put(store.state, hold)
    await manager(store).apply("ada", "policy")
    before = await by_day(store)
    assert await rows(store, "hour", **{"gatebook.subject": "tag-3"})
    done = await erase(
        store.connection, store.namespace, "tag-3", int(datetime.now(UTC).timestamp()) * 10**9
    )
    assert done["summary_rows"] > 0
    for grain in ("hour", "day"):
        assert await rows(store, grain)
        assert "user-3" not in str(await rows(store, grain))
        assert not await rows(store, grain, **{"gatebook.subject": "tag-3"})
    assert await by_day(store) == before


async def test_a_run_that_ends_before_the_rows_go_is_gone_on_with(store: Store) -> None:
    """It dies once nobody sums these hours up any more: days answer for them, and the next run
    deletes them."""
    await store.write(*(document(n, OLD) for n in range(12)), document(1, YOUNG))
    await sum_up(store)
    before = await by_day(store)

    async def cut_off(*_: Any) -> None:
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "swap", cut_off)
        with pytest.raises(asyncio.CancelledError):
            await manager(store).apply("ada", "policy")
    await sum_up(store, force=True)
    assert await by_day(store) == before
    assert await manager(store).apply("ada", "policy") is not None
    assert await by_day(store) == before
    assert not [one for one in await store.cluster.indices("summary-hour") if one.is_blocked]
