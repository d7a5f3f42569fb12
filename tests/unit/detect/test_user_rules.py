"""Users add rules of their own, and what is broken in them is told before a worker runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.detect.rules import write_rule

from gatebook.cli.rules_commands import rules
from gatebook.processors.config import WorkerSettings
from gatebook.processors.detect.cases import load_cases, run_case
from gatebook.processors.detect.registry import (
    all_detectors,
    detector_ids,
    load_limits,
    load_overrides,
)
from gatebook.processors.stages.detect import DetectStage
from gatebook.schemas.errors import Fatal

README = Path("processors/gatebook/processors/detect/README.md")
COUNT = '[detect]\nkind = "count"\n[parameters]\nthreshold = 2\n'


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(rules, list(arguments))
    return result.exit_code, result.output


def test_a_new_rule_works_at_once(tmp_path: Path) -> None:
    """`rules new` makes a folder whose cases hold, that is listed, shown and run by a worker."""
    code, told = run_cli("new", "my_rule", "--rules-path", str(tmp_path))
    assert (code, "rules test my_rule" in told) == (0, True)
    code, told = run_cli("test", "my_rule", "--rules-path", str(tmp_path))
    assert (code, told.splitlines()[-1]) == (0, "2 passed, 0 failed")
    assert "my_rule" in run_cli("list", "--rules-path", str(tmp_path))[1]
    assert "Blind spots:" in run_cli("show", "my_rule", "--rules-path", str(tmp_path))[1]
    stage = DetectStage(WorkerSettings(rules_path=str(tmp_path)))
    assert "my_rule" in {detector.rule.id for detector in stage._detectors}


@pytest.mark.parametrize("name", ["failure_burst", "My-Rule", "x"])
def test_a_new_rule_takes_nothing_that_is_taken(name: str, tmp_path: Path) -> None:
    """Ids of ours and what is no id are refused, and a folder is never written over."""
    result = CliRunner().invoke(rules, ["new", name, "--rules-path", str(tmp_path)])
    assert isinstance(result.exception, Fatal)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rest", "logic", "told"),
    [
        ("[detect\n", "", "rule.toml"),
        ('[detect]\nkind = "count"\n', "", "threshold"),
        (COUNT + "colour = 1\n", "", "colour"),
        (COUNT, "def matches(access, parameters:\n", "logic.py: SyntaxError"),
        (COUNT, "import no_such_package\n", "no_such_package"),
        ('[detect]\nkind = "custom"\n', "def build(rule, p):\n    return 1 / 0\n", "ZeroDivision"),
    ],
)
def test_a_broken_rule_stops_the_worker_at_its_start(
    rest: str, logic: str, told: str, tmp_path: Path
) -> None:
    """The error names the file or the parameter and what is wrong with it."""
    write_rule(tmp_path, "broken_one", rest, logic)
    with pytest.raises(Fatal, match=told) as caught:
        DetectStage(WorkerSettings(rules_path=str(tmp_path)))
    assert "broken_one" in str(caught.value) + caught.value.next_step


def test_ours_cannot_be_replaced(tmp_path: Path) -> None:
    """A folder with the id of a packaged rule is refused."""
    write_rule(tmp_path, "failure_burst", COUNT)
    with pytest.raises(Fatal, match="rule of the package"):
        all_detectors({}, tmp_path)


def test_a_folder_that_is_not_there_is_told() -> None:
    """A misspelt GATEBOOK_RULES_PATH does not mean: no rules."""
    with pytest.raises(Fatal, match="GATEBOOK_RULES_PATH"):
        detector_ids("/no/such/folder")


def test_a_rule_without_runbook_is_refused(tmp_path: Path) -> None:
    """On-call always has something to read."""
    folder = write_rule(tmp_path, "no_runbook", COUNT)
    (folder / "runbook.md").unlink()
    with pytest.raises(Fatal, match=re.escape("runbook.md")):
        detector_ids(tmp_path) and all_detectors({}, tmp_path)


def test_limits_come_from_the_same_file(tmp_path: Path) -> None:
    """[limits] bounds the engine; a misspelt one is refused."""
    file = tmp_path / "detectors.toml"
    file.write_text("[limits]\nmax_keys_per_scope = 7\n")
    assert load_limits(load_overrides(file)).max_keys_per_scope == 7
    file.write_text("[limits]\nmax_kees = 7\n")
    with pytest.raises(Fatal, match="max_kees"):
        load_limits(load_overrides(file))


def test_the_readme_tells_the_truth(tmp_path: Path) -> None:
    """The example of the how-to is a rule whose cases hold, and its parameters file loads."""
    rule_toml, cases_toml, parameters = re.findall(
        r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    name = tomllib.loads(rule_toml)["id"]
    folder = tmp_path / name
    folder.mkdir()
    (folder / "rule.toml").write_text(rule_toml)
    (folder / "cases.toml").write_text(cases_toml)
    (folder / "runbook.md").write_text("Look.")
    cases = load_cases(name, tmp_path)
    assert len(cases) == 2
    assert [run_case(name, case, tmp_path).problems for case in cases] == [(), ()]
    file = tmp_path / "detectors.toml"
    file.write_text(parameters)
    found = {d.rule.id: d for d in all_detectors(load_overrides(file), tmp_path)}
    assert found["failure_burst"].tenants["acme"] is not None
    assert (found["rate_baseline"].enabled, "acme" in found["rate_baseline"].tenants) == (
        False,
        True,
    )
