"""Every detector folder is whole, and every written case holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatebook.cli.rules_commands import rules
from gatebook.processors.detect import registry
from gatebook.processors.detect.cases import Case, Step, load_cases, run_case
from gatebook.processors.detect.registry import (
    all_detectors,
    detector_ids,
    load_detector,
    load_overrides,
    load_rule,
    runbook_text,
)
from gatebook.schemas.errors import Fatal

CASES = [(detector_id, case) for detector_id in detector_ids() for case in load_cases(detector_id)]


@pytest.mark.parametrize(
    ("detector_id", "case"), CASES, ids=[f"{i}/{case.name}" for i, case in CASES]
)
def test_a_case_holds(detector_id: str, case: Case) -> None:
    """What a case says must fire fires, and what must not does not."""
    assert run_case(detector_id, case).problems == ()


@pytest.mark.parametrize("detector_id", detector_ids())
def test_a_detector_has_both_kinds_of_case(detector_id: str) -> None:
    """At least one case that fires and one that must not, named for what they are."""
    fires = {case.name: bool(case.expect) for case in load_cases(detector_id)}
    assert set(fires.values()) == {True, False}
    assert all(name.startswith("fires_" if fire else "quiet_") for name, fire in fires.items())


@pytest.mark.parametrize("detector_id", detector_ids())
def test_a_rule_says_what_on_call_needs(detector_id: str) -> None:
    """Blind spots, a reference and a runbook stand with every rule."""
    rule = load_rule(detector_id)
    assert rule.blind_spots
    assert rule.owasp_llm
    assert rule.mitre_atlas
    assert len(runbook_text(detector_id)) > 300


def test_a_case_that_does_not_hold_is_told() -> None:
    """Planted: wrong figures, a finding too many and one too few are each a problem."""
    document = {"event": {"outcome": "failure"}, "gatebook": {"principal": "p"}}
    steps = (Step(repeat=10, document=document),)
    wrong = Case(says="x", steps=steps, expect=({"gatebook": {"observed": 11.0}},))
    too_many = Case(says="x", steps=steps, expect=())
    too_few = Case(says="x", steps=steps[:0], expect=({},))
    told = [run_case("failure_burst", case).problems for case in (wrong, too_many, too_few)]
    assert told == [
        ("finding 0.gatebook.observed: expected 11.0, got 10.0",),
        ("expected 0 findings, got 1",),
        ("expected 1 findings, got 0",),
    ]


def test_parameters_come_from_a_file(tmp_path: Path) -> None:
    """An overrides file changes a parameter and switches a detector off."""
    file = tmp_path / "detectors.toml"
    file.write_text("[failure_burst]\nthreshold = 4\n[rate_baseline]\nenabled = false\n")
    detectors = {d.rule.id: d for d in all_detectors(load_overrides(file))}
    assert set(detectors) == set(detector_ids()) - {"rate_baseline"}
    assert detectors["failure_burst"].parameters.threshold == 4  # type: ignore[attr-defined]  # its own


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[failure_burst]\nthreshhold = 4\n", "threshhold"),
        ("[failure_burst]\nthreshold = 'many'\n", "threshold"),
        ("[failure_burst]\nthreshold = 0\n", "threshold"),
        ("[no_such_rule]\n", "no_such_rule"),
        ("failure_burst = 4\n", "failure_burst"),
        ("[failure_burst\n", "TOML"),
    ],
)
def test_a_wrong_file_stops_the_start(text: str, told: str, tmp_path: Path) -> None:
    """A misspelt or impossible parameter is an error at start, with its name."""
    file = tmp_path / "detectors.toml"
    file.write_text(text)
    with pytest.raises(Fatal, match=told):
        all_detectors(load_overrides(file))


def test_a_retired_id_cannot_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the id of a rule that was once retired does not load."""
    monkeypatch.setattr(registry, "retired_ids", lambda: frozenset({"failure_burst"}))
    with pytest.raises(Fatal, match="failure_burst"):
        load_detector("failure_burst")


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(rules, list(arguments))
    return result.exit_code, result.output


def test_rules_list_shows_every_rule() -> None:
    """`gatebook rules list` names each rule once, as text and as JSON."""
    _, text = run_cli("list")
    _, listed = run_cli("list", "--json")
    assert [line.split()[0] for line in text.splitlines()] == detector_ids()
    assert [row["id"] for row in json.loads(listed)] == detector_ids()


def test_rules_show_tells_parameters_in_force(tmp_path: Path) -> None:
    """`gatebook rules show` prints what an overrides file makes of the parameters."""
    file = tmp_path / "detectors.toml"
    file.write_text("[failure_burst]\nthreshold = 4\n")
    _, shown = run_cli("show", "failure_burst", "--json", "--detectors-file", str(file))
    _, text = run_cli("show", "failure_burst")
    assert json.loads(shown)["parameters"]["threshold"] == 4
    assert "Blind spots:" in text
    assert "revoke the key" in text


def test_rules_test_runs_every_case() -> None:
    """`gatebook rules test` runs all cases and says how many hold."""
    code, text = run_cli("test")
    assert code == 0
    assert text.splitlines()[-1] == f"{len(CASES)} passed, 0 failed"


def test_rules_test_fails_with_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that does not hold makes the exit code 1."""
    wrong = Case(name="x", says="x", steps=(), expect=({},))
    monkeypatch.setattr("gatebook.processors.detect.cases.load_cases", lambda *_: [wrong])
    code, text = run_cli("test", "failure_burst", "--json")
    assert code == 1
    assert json.loads(text)[0]["passed"] is False
