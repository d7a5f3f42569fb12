"""Commands and the service say where retention took some of what was asked for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.access_service import running_service
from tests.integration.retention.retention_tools import Store, day, document

from gatebook.processors.serve.app import create_app

LOST = "not all that was taken in is there"


@pytest.fixture
async def thinned(store: Store) -> Store:
    """All of the day 40 days ago went, and some of that 5 days ago; yesterday is whole."""
    of_brief = (document(n, 5, "brief-one") for n in range(3))
    await store.write(document(1, 40), document(1, 5), *of_brief, document(2, 1))
    assert await store.manager().apply("ada", "a test") is not None
    return store


async def gatebook(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gatebook.cli.main", *arguments],
        env={
            **os.environ,
            "GATEBOOK_ELASTICSEARCH_URL": store.url,
            "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "GATEBOOK_NAMESPACE": store.namespace,
            "GATEBOOK_SPOOL_DIR": str(store.home / "spool"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--json"],
        ["search", "--histogram", "--json"],
        ["search", "--facets", "user.id", "--json"],
        ["search", "--histogram", "--facets", "user.id", "--json"],
    ],
)
async def test_a_search_says_which_days_are_not_whole(thinned: Store, arguments: list[str]) -> None:
    """One line for people and a key for programs, in the words of the API; none where all of the
    range is there."""
    some = await gatebook(thinned, *arguments, "--since", "60d")
    detail = json.loads(some.stdout)["detail"]
    assert detail["complete"] is False
    told = {one["from"][:10].replace("-", "."): one["all_gone"] for one in detail["thinned"]}
    assert told == {day(40): True, day(5): False}
    assert [line for line in some.stderr.splitlines() if LOST in line] == [
        f"{LOST}: retention took all details of {iso(40)} and some of {iso(5)}; "
        "`gatebook summary show` counts accesses from before, too"
    ]
    whole = await gatebook(thinned, *arguments, "--since", "3d")
    assert json.loads(whole.stdout)["detail"] == {"complete": True, "thinned": []}
    assert LOST not in whole.stderr


async def test_nothing_found_is_told_apart_from_nothing_left(thinned: Store) -> None:
    """A search over days of which all is gone says so, in each form of its answer."""
    for form in ([], ["--ndjson"], ["--histogram"]):
        found = await gatebook(thinned, "search", "--since", "41d", "--until", "now-39d", *form)
        assert found.returncode == 1
        assert f"{LOST}: retention took all details of {iso(40)};" in found.stderr


async def test_an_export_says_which_days_are_not_whole(thinned: Store, tmp_path: Path) -> None:
    """Into a file, to standard output, and through the service."""
    to_file = ["-o", str(tmp_path / "all.ndjson")]
    for where in (to_file, []):
        found = await gatebook(thinned, "export", "--since", "60d", *where)
        assert found.returncode == 0
        assert found.stderr.count(LOST) == 1
    asked: dict[str, Any] = {"since": "60d"}
    async with running_service(thinned.url, thinned.namespace, make=create_app) as service:
        client = await service.by_token("analyst")
        async with client:
            made = await client.post("/api/v1/exports", json=asked)
            searched = await client.post("/api/v1/search", json=asked)
    assert made.status_code == 201
    assert made.json()["detail"]["complete"] is False
    assert made.json()["detail"] == searched.json()["detail"]


def iso(days_ago: int) -> str:
    """The day as it is told."""
    return day(days_ago).replace(".", "-")
