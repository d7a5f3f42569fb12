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
    for roles in (("--roles", "retention"), ()):
        code, said = gatebook(tmp_path, "worker", *roles, **set_to)
        assert (code, "the policy is invalid" in said) == (2, True)
        assert "starting it anew" not in said


@pytest.mark.parametrize("command", [["show", ""], ["show", " "], ["finding", "show", ""]])
def test_an_empty_id_is_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    """A shell variable that was not set is no outage of Elasticsearch."""
    code, said = gatebook(tmp_path, *command)
    assert code == 2
    assert "the id is empty" in said


@pytest.mark.parametrize("reason", ["", " \t", "\u200b\u2060"])
@pytest.mark.parametrize(
    "command",
    [
        ["retention", "hold", "--tenant", "acme"],
        ["retention", "release", "case-1"],
        ["retention", "apply", "--yes", "--policy", "policy.toml"],
        ["retention", "reopen", "2026.01.31"],
        ["archive", "export", "backups"],
        ["archive", "restore", "backups/one"],
        ["archive", "drop", "--restored", "--yes"],
        ["subject", "erase", "ada", "--yes"],
        ["subject", "hold", "ada"],
        ["subject", "release", "ada", "--hold-id", "case-1"],
        ["subject", "export", "ada", "--output", "out"],
        ["subject", "reidentify", "EMAIL_e1_ABCDEFGHIJKLMNOP"],
        ["subject", "rewrap"],
        ["show", "01939a6e", "--reveal", "full"],
        ["keys", "destroy", "0123456789abcdef", "--yes"],
    ],
)
def test_an_act_without_a_reason_is_refused(
    tmp_path: Path, command: list[str], reason: str
) -> None:
    """A reason that says nothing would stand in the record as if somebody had been asked."""
    code, said = gatebook(tmp_path, *command, "--reason", reason)
    assert code == 2
    assert "--reason" in said
    assert "say why" in said


@pytest.mark.parametrize("hold_id", ["a b", "../case", "cas\u00e9", "c" * 129, "case\n"])
def test_the_id_of_a_hold_is_one_that_can_be_told(tmp_path: Path, hold_id: str) -> None:
    """It stands in addresses and in certificates."""
    for command in (["retention", "hold", "--tenant", "acme"], ["subject", "hold", "ada"]):
        code, said = gatebook(tmp_path, *command, "--reason", "case", "--hold-id", hold_id)
        assert code == 2
        assert "--hold-id" in said


def test_a_policy_that_was_not_named_says_how_to_name_one(tmp_path: Path) -> None:
    """By option or variable, and where an example is."""
    for command in ("check", "plan", "run"):
        code, said = gatebook(tmp_path, "retention", command)
        told = " ".join(said.split())
        assert code == 2
        assert "Missing option '--policy'" in told
        assert "GATEBOOK_RETENTION_POLICY" in told
        assert "infra/examples/retention-policy.toml" in told


def test_a_policy_in_the_home_is_the_one_that_is_meant(tmp_path: Path) -> None:
    """Where none is named; a named one goes first."""
    example = Path(__file__).parents[3] / "infra/examples/retention-policy.toml"
    (tmp_path / "retention-policy.toml").write_bytes(example.read_bytes())
    code, said = gatebook(tmp_path, "retention", "check", "--offline")
    assert (code, "policy example" in said) == (0, True)
    named = {"GATEBOOK_RETENTION_POLICY": str(tmp_path / "nope.toml")}
    code, said = gatebook(tmp_path, "retention", "check", "--offline", **named)
    assert (code, "nope.toml" in said) == (2, True)


def test_an_outage_is_told_with_the_address_and_what_to_do(tmp_path: Path) -> None:
    """Of Kafka for the list of alerts, of Elasticsearch for the state of retention: in one line,
    without a trace, and with the exit code of an outage."""
    away = {"GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    code, said = gatebook(tmp_path, "alerts", "list", **away)
    assert (code, "Kafka does not answer at 127.0.0.1:1" in said) == (3, True), said
    assert "gatebook up" in said
    assert "nobody expected" not in said
    assert "rdkafka" not in said
    away = {"GATEBOOK_ELASTICSEARCH_URL": "http://127.0.0.1:1"}
    code, said = gatebook(tmp_path, "retention", "status", **away)
    assert (code, "Elasticsearch does not answer at http://127.0.0.1:1" in said) == (3, True), said
