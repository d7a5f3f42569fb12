"""The alert rules in the real promtool: they load, fire when they should, and not otherwise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest

from gatebook.cli.dashboards import rules

FOLDER = Path(__file__).parents[3] / "infra" / "dashboards" / "prometheus"


def run(promtool: Path, *arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(promtool), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def only_parsed() -> None:
    """All that can be said of the rules on this machine."""
    for rule in rules.RULES:
        promql_parser.parse(rule.expr)


def test_prometheus_loads_the_rules(promtool: Path | None) -> None:
    """All of them, without a warning."""
    if promtool is None:
        only_parsed()
        return
    done = run(promtool, "check", "rules", "gatebook.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules.RULES)} rules found" in done.stdout


def test_rules_fire_and_keep_quiet_as_their_cases_say(promtool: Path | None) -> None:
    """Every case of every rule, evaluated by Prometheus' own engine, labels and texts included."""
    if promtool is None:
        only_parsed()
        return
    done = run(promtool, "test", "rules", "gatebook.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["vector(1)", "vector(1) > 2"], ids=["always", "never"])
def test_a_rule_that_fires_always_or_never_is_noticed(
    promtool: Path | None, tmp_path: Path, broken: str
) -> None:
    """Whichever rule is broken in either way, its own cases go red."""
    if promtool is None:
        only_parsed()
        return
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    text = (FOLDER / "gatebook.rules.yml").read_text()
    lines = [
        f'        expr: "{broken}"' if line.lstrip().startswith("expr:") else line
        for line in text.splitlines()
    ]
    (tmp_path / "gatebook.rules.yml").write_text("\n".join(lines))
    done = run(promtool, "test", "rules", "gatebook.test.yml", folder=tmp_path)
    assert done.returncode != 0
    told = done.stdout + done.stderr
    missing = [rule.alert for rule in rules.RULES if f"alertname: {rule.alert}" not in told]
    assert missing == []
