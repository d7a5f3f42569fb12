"""`gatebook worker` alone keeps summaries, and storage inside the policy that is there."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from tests.integration.retention.retention_tools import POLICY, Store, day, document
from tests.pipeline import Pipeline
from tests.waiting import wait_until


@pytest.fixture
async def old(pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    """A day that the policy of these tests lets go, and one that it keeps."""
    url = pipeline.engines.elasticsearch_url
    store = await Store(url, pipeline.namespace, pipeline.home).open()
    await store.write(document(1, 40), document(2, 1))
    yield pipeline
    await store.close()


@contextmanager
def worker(pipeline: Pipeline) -> Iterator[psutil.Process]:
    """All roles, until they are stopped; they end in good order."""
    command = [sys.executable, "-m", "gatebook.cli.main", "worker"]
    with (pipeline.home / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(command, env=pipeline.environment(), stdout=log, stderr=log)
    pipeline.workers.append(supervisor)
    yield psutil.Process(supervisor.pid)
    assert pipeline.kill(supervisor, signal.SIGTERM) == 0


def days(pipeline: Pipeline) -> set[str]:
    """Days of which there is an index."""
    found: dict[str, Any] = pipeline.http.get(f"/{pipeline.namespace}-access-*/_alias").json()
    return {name.removeprefix(f"{pipeline.namespace}-access-")[:10] for name in found}


def is_summed(pipeline: Pipeline) -> bool:
    answer = pipeline.http.get(f"/{pipeline.namespace}-summary/_count")
    return answer.status_code == 200 and answer.json()["count"] > 0


def roles(supervisor: psutil.Process) -> set[str]:
    return {child.cmdline()[3] for child in supervisor.children()}


async def test_a_policy_in_the_home_is_kept_to_and_without_one_nothing_goes(old: Pipeline) -> None:
    """Summaries are kept either way. With a policy there, the day that is due goes, with a
    certificate; no other command is needed for that."""
    with worker(old) as supervisor:
        wait_until("it is summed up", lambda: is_summed(old), 120)
        assert "retention" not in roles(supervisor)
        assert days(old) == {day(40), day(1)}
    (old.home / "retention-policy.toml").write_bytes(POLICY)
    with worker(old) as supervisor:
        wait_until("the day goes", lambda: day(40) not in days(old), 120)
        assert day(1) in days(old)
        assert {"intake", "index", "summaries", "retention"} <= roles(supervisor)
        certificates = old.home / "certificates"
        wait_until("it is certified", lambda: list(certificates.glob("retention-*.json")), 60)
