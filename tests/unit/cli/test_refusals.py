"""Wrong settings and arguments are refused at once, with 2, before anything is started or asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def gatebook(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command where no server listens; its exit code and what it says."""
    clean = {name: value for name, value in os.environ.items() if "GATEBOOK" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", *arguments],
        env={**clean, "GATEBOOK_HOME": str(tmp_path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "role"),
    [("GATEBOOK_ALERTS_FILE", "notify"), ("GATEBOOK_DIRECTORY_FILE", "intake")],
)
def test_a_supervisor_does_not_start_what_could_not_live(
    tmp_path: Path, variable: str, role: str
) -> None:
    """A file that is not there would end its worker again and again."""
    code, said = gatebook(tmp_path, "worker", **{variable: str(tmp_path / "nope")})
    assert code == 2
    assert f"worker {role}: " in said
    assert "starting it anew" not in said


def test_retention_is_not_supervised_without_a_policy(tmp_path: Path) -> None:
    """It would delete nothing, and look as if it did; nor with a policy that is none."""
    code, said = gatebook(tmp_path, "worker", "--roles", "summaries,retention")
    assert (code, "GATEBOOK_RETENTION_POLICY" in said) == (2, True)
    wrong = tmp_path / "policy.toml"
    wrong.write_text("version = 1")
    set_to = {"GATEBOOK_RETENTION_POLICY": str(wrong)}
    code, said = gatebook(tmp_path, "worker", "--roles", "retention", **set_to)
    assert (code, "the policy is invalid" in said) == (2, True)
    assert "starting it anew" not in said


@pytest.mark.parametrize("command", [["show", ""], ["show", " "], ["finding", "show", ""]])
def test_an_empty_id_is_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    """A shell variable that was not set is no outage of Elasticsearch."""
    code, said = gatebook(tmp_path, *command)
    assert code == 2
    assert "the id is empty" in said
