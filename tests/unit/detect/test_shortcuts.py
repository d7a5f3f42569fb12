"""What is skipped for speed changes nothing: the same rules look, the same windows are true."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.benchmarks.detection.traffic import month

from gatebook.processors.detect.access import NANOSECONDS, Access, id_digest
from gatebook.processors.detect.engine import DetectionEngine, all_detectors
from gatebook.processors.detect.lanes import Lane
from gatebook.processors.detect.limits import Counts, Limits
from gatebook.processors.detect.plans import Plans
from gatebook.processors.detect.registry import load_detector

LATENESS_NS = 300 * NANOSECONDS


def lanes_of(detectors: list[Any]) -> list[Lane]:
    return [Lane(detector, Limits(), Counts()) for detector in detectors]


def test_the_plan_of_alike_accesses_asks_what_each_rule_asks() -> None:
    """For every access of generated traffic, attacks included, the rules that look are those whose
    own question says yes."""
    detectors = all_detectors()
    plans = Plans(lanes_of(detectors))
    accesses = DetectionEngine([]).read(month(20, 18, 1).documents())
    for access in accesses[::7]:
        assert access is not None
        planned = {lane.rule.id for lane, _ in plans.looking(access)}
        assert planned == {d.rule.id for d in detectors if d.matches(access)}


def test_what_cannot_be_a_key_has_a_plan_of_its_own() -> None:
    """A field with a list in it, which no producer of ours sends, is looked at all the same."""
    strange = Access(event_id="e", id_digest=b"", timestamp_ns=1, principal="p", outcome="failure")
    strange.tools_called = ["shell"]  # type: ignore[assignment]  # that is the point
    plans = Plans(lanes_of([load_detector("failure_burst")]))
    assert [lane.rule.id for lane, _ in plans.looking(strange)] == ["failure_burst"]


def test_a_tenants_own_parameters_are_asked() -> None:
    """A rule that is off for everybody but one tenant looks at that tenant's accesses only."""
    own = {"enabled": False, "tenants": {"acme": {"enabled": True}}}
    plans = Plans(lanes_of([load_detector("failure_burst", own)]))
    common = {"event_id": "e", "id_digest": b"", "timestamp_ns": 1, "outcome": "failure"}
    assert plans.looking(Access(**common, tenant="acme"))
    assert not plans.looking(Access(**common, tenant="globex"))


@pytest.mark.parametrize("seed", range(12))
def test_windows_that_are_passed_over_were_not_true(seed: int) -> None:
    """Hopping windows over different items, late accesses among them: a signal comes exactly where
    counting everything anew says so."""
    draw = random.Random(seed)
    detector = load_detector(
        "model_enumeration", {"threshold": 4, "window_seconds": 1800, "step_seconds": 300}
    )
    state, seen, newest = detector.state_type(), list[tuple[int, str]](), 0
    for number in range(400):
        newest += draw.choice((1, 5, 60, 400)) * NANOSECONDS
        at_ns = newest - draw.choice((0, 0, 0, 250)) * NANOSECONDS
        item = f"slm-{draw.randrange(draw.choice((2, 6)))}"
        seen.append((at_ns, item))
        access = Access(
            event_id=str(number),
            id_digest=id_digest(str(number)),
            timestamp_ns=at_ns,
            model=item,
        )
        told = detector.apply(state, access, newest - LATENESS_NS) is not None
        assert told == _is_true(seen, at_ns, 4), number


def _is_true(seen: list[tuple[int, str]], at_ns: int, threshold: int) -> bool:
    """Whether any window of 1,800 s that hops by 300 s and holds this moment has enough items."""
    step = 300 * NANOSECONDS
    pane = at_ns // step
    windows = [range(end - 5, end + 1) for end in range(pane, pane + 6)]
    return any(
        len({item for at, item in seen if at // step in window}) >= threshold for window in windows
    )
