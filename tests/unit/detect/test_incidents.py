"""One problem is one incident: it begins, may become graver, ends, and stays quiet in between."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tests.unit.detect.rules import by, happens, rule, steps

from gatebook.processors.detect.cases import Case, play

PLAIN = """
[detect]
kind = "count"
[parameters]
threshold = 2
window_seconds = 60
quiet_seconds = 30
{more}
[[escalate]]
times = 2.0
severity = "critical"
"""


def test_firing_and_resolved_are_one_incident(tmp_path: Path) -> None:
    """Both name the same incident and dedup key, and are findings of their own; the end tells the
    peak and how often it was true."""
    detector = rule(tmp_path, PLAIN.format(more=""))
    moments = steps((0, by()), (5, by()), (10, by()), (900, None))
    begin, end = play(detector, Case(says="", steps=moments, expect=()))
    assert begin["gatebook"]["incident"] == end["gatebook"]["incident"]
    assert begin["gatebook"]["dedup_key"] == end["gatebook"]["dedup_key"]
    assert begin["event"]["id"] != end["event"]["id"]
    assert (end["event"]["action"], end["gatebook"]["observed"]) == ("resolved", 3)
    assert end["gatebook"]["occurrences"] == 2
    assert end["timestamp"] == begin["event"]["start"] + 40 * 10**9  # ten and thirty of quiet


def test_a_graver_problem_is_told_again(tmp_path: Path) -> None:
    """At twice the threshold the same incident becomes critical, once."""
    detector = rule(tmp_path, PLAIN.format(more=""))
    moments = steps(*((n, by()) for n in range(8)))
    first, second = play(detector, Case(says="", steps=moments, expect=()))
    assert [f["gatebook"]["severity"] for f in (first, second)] == ["warning", "critical"]
    assert first["gatebook"]["incident"] == second["gatebook"]["incident"]
    assert first["event"]["id"] != second["event"]["id"]


def test_a_problem_that_comes_back_is_another(tmp_path: Path) -> None:
    """After a quiet time it fires anew, with an incident of its own, also where the window is the
    same."""
    detector = rule(tmp_path, PLAIN.format(more=""))
    moments = steps((0, by()), (1, by()), (50, by()), (900, None))
    found = play(detector, Case(says="", steps=moments, expect=()))
    assert [f["event"]["action"] for f in found] == ["firing", "resolved", "firing", "resolved"]
    assert len({f["gatebook"]["incident"] for f in found}) == 2


def test_a_suppressed_problem_stays_quiet(tmp_path: Path) -> None:
    """suppress_seconds after its end, the same key does not fire again; another does."""
    detector = rule(tmp_path, PLAIN.format(more="suppress_seconds = 600"))
    again = ((0, by()), (1, by()), (100, by()), (101, by()), (120, by("bob")), (121, by("bob")))
    assert [a for a, _ in happens(detector, *again)].count("firing") == 2
    later = ((0, by()), (1, by()), (700, by()), (701, by()))
    assert [a for a, _ in happens(detector, *later)].count("firing") == 2


def test_groups_of_a_key_are_apart(tmp_path: Path) -> None:
    """Two models of one principal have counts and incidents of their own."""
    rest = '[detect]\nkind = "count"\ngroup = "model"\n[parameters]\nthreshold = 2\n'
    detector = rule(tmp_path, rest)
    use = [by(gen_ai={"request": {"model": name}}) for name in "aba"]
    (found,) = play(detector, Case(says="", steps=steps(*enumerate(use)), expect=()))
    assert found["gatebook"]["dedup_key"] == "tested:eve:a"


def test_tenants_have_parameters_of_their_own(tmp_path: Path) -> None:
    """A threshold holds for the tenant it is set for; a rule can be off for one."""
    rest = '[detect]\nkind = "count"\n[parameters]\nthreshold = 2\n'
    tenants = {"big": {"threshold": 3}, "off": {"enabled": False}}
    detector = rule(tmp_path, rest, tenants=tenants)

    def of(tenant: str) -> list[tuple[str, float]]:
        document = by(f"{tenant}/eve", organization={"id": tenant})
        return happens(detector, *((n, document) for n in range(3)))

    assert [of(tenant) for tenant in ("acme", "big", "off")] == [
        [("firing", 2)],
        [("firing", 3)],
        [],
    ]


def test_a_finding_names_techniques_of_one_framework(tmp_path: Path) -> None:
    """What stands under MITRE ATLAS is of MITRE ATLAS; OWASP's entries have a label."""
    detector = rule(tmp_path, PLAIN.format(more=""))
    for mitre, framework, techniques in (
        (("AML.T0040",), "MITRE ATLAS", ["AML.T0040"]),
        ((), "OWASP LLM", ["LLM10:2025"]),
    ):
        detector.rule = msgspec.structs.replace(
            detector.rule, mitre_atlas=mitre, owasp_llm=("LLM10:2025",)
        )
        moments = steps((0, by()), (1, by()))
        (found,) = play(detector, Case(says="", steps=moments, expect=()))
        assert found["threat"] == {"framework": framework, "technique": {"id": techniques}}
        assert found["labels"]["owasp_llm"] == "LLM10:2025"
