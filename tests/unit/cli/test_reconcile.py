"""`gatebook reconcile` looks once and ends, also where it cannot look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def reconcile(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where no broker listens; a process, for the client's own words go to its
    standard error."""
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "reconcile", *arguments],
        env={
            **os.environ,
            "GATEBOOK_HOME": str(home),
            "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "GATEBOOK_ELASTICSEARCH_URL": "http://127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_a_broker_it_says_so_and_ends(tmp_path: Path) -> None:
    """A single pass waits for nobody; one line says what to do."""
    done = reconcile(tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "Kafka does not answer at 127.0.0.1:1" in line
    assert "gatebook up" in line


def test_one_pass_and_many_are_not_one(tmp_path: Path) -> None:
    """Wrong usage is told before anything is asked."""
    done = reconcile(tmp_path, "--once", "--watch")
    assert done.returncode == 2
    assert "give one of them" in done.stderr
