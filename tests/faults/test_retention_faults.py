"""A run of retention that is killed goes on where it was, and certifies the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.faults.retention_child import CALM, INSIDE
from tests.integration.retention.retention_tools import POLICY, Store, day, document
from tests.pipeline import Pipeline

from gatebook.processors.retention import holds
from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.retention.lock import Busy, Lock
from gatebook.processors.retention.recovery import blocked
from gatebook.processors.retention.schedule import Schedule
from gatebook.processors.retention.work import STEPS
from gatebook.processors.sinks.base import BulkOutcome
from gatebook.processors.summaries import answer
from gatebook.processors.summaries.reading import floor_hour
from gatebook.processors.summaries.rollup import Rollup
from gatebook.processors.summaries.store import SummaryStore

CHILD = Path(__file__).with_name("retention_child.py")
POINTS = ("request", "announce", *STEPS, "done", *INSIDE, "certificate", "tell")
SNAPSHOTS = b'[snapshot]\nrepository = "%s"\n'
HELD = "brief-held"


class Case:
    """A namespace with a day to delete, one to thin out by tenant, and one to strip."""

    def __init__(self, pipeline: Pipeline, store: Store, home: Path) -> None:
        self.pipeline, self.store = pipeline, store
        self.stays = [document(n, 12, level="full") for n in range(5)]
        self.stays += [document(n, 40, tenant=HELD) for n in range(2)]
        self.due = [document(n, 40) for n in range(6)]
        self.due += [document(n, 12, tenant="brief-one") for n in range(3)]
        self.late = document(88, 12)
        self.policy = home / "policy.toml"

    @property
    def only_rewritten(self) -> Case:
        """With the one day of which something stays, and that takes events in."""
        self.stays = [one for one in self.stays if one["organization"]["id"] != HELD]
        self.due = [one for one in self.due if one["organization"]["id"] == "brief-one"]
        return self

    async def prepared(self) -> Case:
        repository = self.store.namespace
        await self.store.cluster.ask(
            "PUT",
            f"/_snapshot/{repository}",
            json={"type": "fs", "settings": {"location": repository}},
        )
        # Summaries are kept, and what is deleted goes into a snapshot: every step is taken.
        policy = POLICY.replace(b"summaries = false", b"summaries = true")
        self.policy.write_bytes(policy + SNAPSHOTS % repository.encode())
        await self.store.write(*self.stays, *self.due)
        hold = holds.checked(self.store.hold("case", tenant=HELD))
        await holds.put(self.store.state, hold)
        return self

    def run(self, point: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.pipeline.environment(GATEBOOK_RETENTION_POLICY=str(self.policy)),
            "PYTHONPATH": os.getcwd(),
        }
        return subprocess.run(
            [sys.executable, str(CHILD), point],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def gatebook(self, *words: str) -> str:
        """What a command says."""
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *words],
            env=self.pipeline.environment(GATEBOOK_RETENTION_POLICY=str(self.policy)),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def ends_well(self) -> dict[str, Any]:
        done = self.run(CALM)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))


@pytest.mark.parametrize("point", [*POINTS, CALM])
async def test_a_run_killed_anywhere_ends_as_an_undisturbed_one(
    pipeline: Pipeline, engines: Any, tmp_path: Path, point: str
) -> None:
    """SIGKILL before and inside each step: at no moment a search loses or doubles an event that
    stays; the same command goes on; its certificate counts what an undisturbed one counts; writing
    is let in again, and replays meet their first copies."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    try:
        case = await Case(pipeline, store, tmp_path).prepared()
        stays = {one["event"]["id"] for one in case.stays}
        if point != CALM:
            killed = case.run(point)
            assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
            assert stays <= set(await store.hits())  # hits() refuses what is found twice
        certificate = await case.ends_well()

        totals = certificate["totals"]
        assert totals["dropped"] == {"default/30d": 6, "brief/3d": 3}
        assert totals["stripped"] == {"full": 5, "redacted": 5}
        assert totals["held"] == 2
        told = {one["slot"]: one for one in certificate["indices"]}
        assert {slot: one["snapshot"]["documents"] for slot, one in told.items()} == {
            day(40): 6,
            day(12): 3,
        }
        assert set(await store.hits()) == stays
        # What went is counted all the same.
        assert await summed(store) == len(case.stays) + len(case.due)
        assert not any(one.is_blocked for one in await store.cluster.indices("access"))
        assert await store.state.find("run", done=False) == []
        outcome = await store.new_sink().write([*map_rows(case.stays), *map_rows(case.due)])
        assert outcome.duplicates == len(stays)
        assert len(outcome.rejected) == len(case.due)
        assert await store.write(document(77, 12)) == BulkOutcome(indexed=1)
    finally:
        await store.close()


@pytest.mark.parametrize("point", ["fill", "swap", "after-write"])
async def test_a_run_that_died_does_not_hold_up_what_comes_in(
    pipeline: Pipeline, engines: Any, tmp_path: Path, point: str
) -> None:
    """Killed while an index takes no writes, and nobody runs retention again: a sink that has
    something for that index opens it by itself; status names it before, and none after."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    try:
        case = await Case(pipeline, store, tmp_path).only_rewritten.prepared()
        assert case.run(point).returncode == -signal.SIGKILL
        (left,) = (await store.manager().status())["blocked"]
        assert left["why"] == "left"
        told = case.gatebook("retention", "status")
        assert f"{left['index']} takes no writes: a run that died left it so" in told
        assert await asyncio.wait_for(store.write(case.late), 30) == BulkOutcome(indexed=1)
        assert (await store.manager().status())["blocked"] == []
        await case.ends_well()
        assert case.late["event"]["id"] in await store.hits()
    finally:
        await store.close()


async def test_a_run_that_may_live_elsewhere_is_waited_for_no_longer_than_its_lease(
    pipeline: Pipeline, engines: Any, tmp_path: Path
) -> None:
    """Nobody can see whether a process on another machine lives: until its lease ends the index
    stays as it is, then it is opened."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    try:
        case = await Case(pipeline, store, tmp_path).only_rewritten.prepared()
        assert case.run("fill").returncode == -signal.SIGKILL
        until = time.time() + 15
        await store.state.change("lock", lambda s: moved(s, until), {})
        (left,) = (await store.manager().status())["blocked"]
        assert (left["why"], left["until"]) == ("rewriting", until)
        assert await asyncio.wait_for(store.write(case.late), 60) == BulkOutcome(indexed=1)
        assert time.time() > until
        await case.ends_well()
    finally:
        await store.close()


async def test_retention_opens_what_was_left_before_anything_else(
    pipeline: Pipeline, engines: Any, tmp_path: Path
) -> None:
    """A schedule that starts while a run of another machine seems to live looks again within
    seconds, not at its next round; and opens first, whatever it finds to do then."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    try:
        case = await Case(pipeline, store, tmp_path).only_rewritten.prepared()
        assert case.run("fill").returncode == -signal.SIGKILL
        await store.state.change("lock", lambda s: moved(s, time.time() + 10), {})
        manager = store.manager(case.policy.read_bytes(), lock=Lock(store.state, 60))
        stopping = asyncio.Event()
        seen: list[list[Any]] = []

        async def apply(*_: Any) -> None:
            seen.append(await blocked(store.cluster, store.state))
            if seen[-1]:
                raise Busy("it seems to live")
            stopping.set()

        manager.apply = apply  # type: ignore[method-assign,assignment]  # what comes after the opening
        schedule = Schedule(manager, "ada", 3600, 3600)
        await asyncio.wait_for(schedule.run_until(stopping), 60)
        assert [one["why"] for one in seen[0]] == ["rewriting"]
        assert seen[-1] == []
    finally:
        await store.close()


async def test_a_run_that_only_stood_still_cannot_swap_any_more(
    pipeline: Pipeline, engines: Any, tmp_path: Path
) -> None:
    """Taken for dead right before it swaps, and events came in: its swap fails as a whole, and the
    events stay."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    swap = Cluster.swap
    calls = 0

    async def stood_still(self: Cluster, *given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await store.state.change("lock", lambda s: moved(s, 0.0), {})
            assert await store.write(case.late) == BulkOutcome(indexed=1)
        await swap(self, *given)

    try:
        case = await Case(pipeline, store, tmp_path).only_rewritten.prepared()
        manager = store.manager(lock=Lock(store.state, 60))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cluster, "swap", stood_still)
            with pytest.raises(Away):
                await manager.apply("ada", "policy")
        stays = {one["event"]["id"] for one in (*case.stays, case.late)}
        assert stays <= set(await store.hits())
        assert await manager.apply("ada", "policy") is not None
        assert stays == set(await store.hits())
    finally:
        await store.close()


def moved(lock: dict[str, Any], until: float) -> dict[str, Any]:
    """The lease as if its owner were on another machine."""
    return {**lock, "owner": {**lock["owner"], "host": "elsewhere"}, "until": until}


@pytest.mark.parametrize("point", ["block", "swap", "after-swap", "settle", CALM])
async def test_a_run_killed_while_rows_of_summaries_go_is_gone_on_with(
    pipeline: Pipeline, engines: Any, tmp_path: Path, point: str
) -> None:
    """At no moment days count less; in the end the month of hours is gone, what is held of it is
    not, and the certificate counts both."""
    store = Store(engines.elasticsearch_url, pipeline.namespace, tmp_path)
    try:
        case = Case(pipeline, store, tmp_path)
        case.policy.write_bytes(POLICY.replace(b'"30d"', b'"forever"'))
        old = [document(n, 470) for n in range(4)]
        await store.write(*old, document(5, 470, tenant="bank"), document(5, 1))
        hold = holds.checked(store.hold("case", tenant="bank"))
        await holds.put(store.state, hold)
        before = await summed(store)
        assert before == 6
        if point != CALM:
            assert case.run(point).returncode == -signal.SIGKILL
            assert await summed(store) == before
        certificate = await case.ends_well()
        assert certificate["totals"]["dropped"] == {"summary-hour": 8}
        assert certificate["totals"]["held"] == 2  # by principal, and over all of the bank's
        assert await summed(store) == before
        left = await store.cluster.indices("summary-hour")
        assert [one.name.is_held for one in left] == [True, False]
        assert not any(one.is_blocked for one in left)
    finally:
        await store.close()


async def summed(store: Store) -> int:
    """Events that summaries count, after their next run."""
    summaries = SummaryStore(store.connection, store.namespace)
    async with summaries.lease(60) as lease:
        await Rollup(summaries, lease).run(floor_hour(datetime.now(UTC)))
    counted = await answer.totals(store.connection, store.namespace)
    assert counted is not None
    return sum(group.row.events for group in counted.groups)


def map_rows(sources: list[dict[str, Any]]) -> list[Any]:
    """The documents as a sink takes them."""
    from tests.integration.retention.retention_tools import row

    return [row(one) for one in sources]
