"""`gatebook rules redaction`: what an operator sees of rules, exceptions and their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatebook.cli.rules_commands import rules
from gatebook.schemas.errors import WrongSetting

OWN = """
id = "badge"
kind = "badge_number"
description = "Badge numbers of our company."
pattern = 'BDG-[0-9]{6}'
validator = "any"
positive = ["badge ⟦BDG-123456⟧ please"]
negative = ["BDG-12"]
"""


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(rules, ["redaction", *arguments], input=text)


def test_the_packaged_rules_hold_their_cases() -> None:
    """All of them, and the exit code says so."""
    result = run("test")
    assert result.exit_code == 0
    assert result.output.endswith("0 problems\n")


def test_own_rules_are_listed_and_change_the_policy_version(tmp_path: Path) -> None:
    """What is in force is what is listed."""
    (tmp_path / "badge.toml").write_text(OWN, encoding="utf-8")
    packaged = json.loads(run("list", "--json").output)
    own = json.loads(run("list", "--json", "--rules", str(tmp_path)).output)
    assert {row["id"] for row in own["rules"]} - {row["id"] for row in packaged["rules"]} == {
        "badge"
    }
    assert own["policy_version"] != packaged["policy_version"]


def test_a_bad_rule_is_named_with_its_file(tmp_path: Path) -> None:
    """The same message as at the start of a worker."""
    (tmp_path / "badge.toml").write_text(OWN.replace("{6}", "{6}("), encoding="utf-8")
    result = run("list", "--rules", str(tmp_path))
    assert isinstance(result.exception, WrongSetting)
    assert "badge.toml: rule badge: its pattern does not compile" in str(result.exception)


def test_a_text_can_be_tried(tmp_path: Path) -> None:
    """With the allow list of a tenant, as intake would read it."""
    policy = tmp_path / "redaction.toml"
    policy.write_text(
        '[[redaction.allow]]\ntenant = "acme"\nkind = "email"\nvalues = ["a@example.com"]\n',
        encoding="utf-8",
    )
    text = "a@example.com b@example.com\n"
    result = run("mask", "--policy", str(policy), "--tenant", "acme", text=text)
    assert result.stdout.startswith("a@example.com [EMAIL_e1_")
    assert result.stderr == "masked: email 1\n"


@pytest.mark.parametrize("name", ["nonesuch", "emails"])
def test_a_rule_that_is_not_there_is_no_success(name: str) -> None:
    """Nothing is tried, the name is said, and it is wrong usage."""
    result = run("test", "email", name)
    assert result.exit_code == 2
    assert f"no redaction rule is called {name};" in result.output
