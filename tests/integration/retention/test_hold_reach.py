"""`gatebook retention hold` says what it covers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.integration.retention.retention_tools import Store, document

HOLD = ("retention", "hold", "--reason", "case 1")


def hold(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Put a hold as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", *HOLD, *arguments],
        env={
            **os.environ,
            "GATEBOOK_HOME": str(store.home),
            "GATEBOOK_ELASTICSEARCH_URL": store.url,
            "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "GATEBOOK_NAMESPACE": store.namespace,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def acme(store: Store) -> Store:
    """Three accesses of one tenant."""
    await store.write(*(document(number, 1) for number in range(3)))
    return store


async def test_a_hold_on_nothing_that_is_stored_warns(acme: Store) -> None:
    """It stands all the same: such events may come. One that covers something says how much."""
    typo = hold(acme, "--tenant", "acmee", "--json")
    assert typo.returncode == 0, typo.stderr
    assert json.loads(typo.stdout)["covers"] == 0
    assert "nothing in the index matches it" in typo.stderr
    right = hold(acme, "--tenant", "acme")
    assert "is in force; it covers 3 documents now" in right.stdout
    assert "nothing in the index" not in right.stderr
