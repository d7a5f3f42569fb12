"""A run of retention that is killed goes on where it was, and certifies the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.faults.retention_child import CALM, INSIDE
from tests.integration.retention.retention_tools import POLICY, Store, day, document
from tests.pipeline import Pipeline

from gatebook.processors.retention import holds
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
        self.policy = home / "policy.toml"

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
