"""What a rule would have found, without Kafka and without the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.detect.streams import NS, START_NS, Document, access

from gatebook.processors.detect.backtest import (
    Backtest,
    Known,
    Label,
    Report,
    Trial,
    Verdicts,
    only_in,
)
from gatebook.processors.detect.registry import load_detector
from gatebook.schemas.errors import Fatal

HOUR = 3600
DAY = 24 * HOUR


def burst(first: int, seconds: float, count: int, principal: str) -> list[Document]:
    """So many failures, two seconds apart."""
    return [access(first + n, seconds + 2 * n, principal, outcome="failure") for n in range(count)]


def trial(name: str, verdicts: Verdicts, since_seconds: float = 0, **parameters: Any) -> Trial:
    """failure_burst with these parameters."""
    detector = load_detector("failure_burst", parameters)
    return Trial(name, [detector], verdicts, START_NS + round(since_seconds * NS))


def replay(documents: Sequence[Document], *trials: Trial, examples: int = 5) -> list[Report]:
    """All reports; each document is a batch of its own."""
    run = Backtest(trials)
    for document in documents:
        run.take([document])
    return run.finish(examples)


def three_bursts() -> list[Document]:
    """Eve twice on the first day, Bob once on the second, and quiet ones in between."""
    return [
        *burst(100, HOUR, 12, "acme/eve"),
        *burst(200, 5 * HOUR, 12, "acme/eve"),
        access(300, 20 * HOUR, "acme/ann"),
        *burst(400, DAY + HOUR, 25, "acme/bob"),
    ]


def test_counts_incidents_by_day_and_names_the_busiest() -> None:
    """Each incident counts once, on the day on which it began, for whom it is about."""
    (report,) = replay(three_bursts(), trial("now", Verdicts()))
    assert report.incidents == 3
    assert list(report.by_day.values()) == [2, 1]
    assert report.busiest == [("acme/eve", 2), ("acme/bob", 1)]
    assert report.accesses == 12 + 12 + 1 + 25
    assert report.a_day == pytest.approx(3 / report.days, rel=0.01)


def test_examples_say_figures_and_ids() -> None:
    """An example holds what was observed against what, and the ids of its evidence."""
    (report,) = replay(three_bursts(), trial("now", Verdicts()), examples=1)
    (example,) = report.examples
    assert (example.observed, example.threshold) == (10.0, 10.0)
    assert example.evidence_count == 10
    assert example.evidence[0] == three_bursts()[0]["event"]["id"]


def test_a_higher_threshold_beside_the_one_in_force() -> None:
    """Both see the same accesses; what only one of them finds is told apart."""
    now, against = trial("now", Verdicts()), trial("against", Verdicts(), threshold=20)
    first, second = replay(three_bursts(), now, against)
    assert (first.incidents, second.incidents) == (3, 1)
    assert {example.who for example in only_in(now, against)} == {"acme/eve"}
    assert only_in(against, now) == []


def test_what_comes_before_since_is_learned_and_not_reported() -> None:
    """Only findings from --since on count, though the engine saw all accesses."""
    (report,) = replay(three_bursts(), trial("now", Verdicts(), since_seconds=DAY))
    assert (report.incidents, report.accesses) == (1, 50)
    assert report.days < 1


def test_no_verdicts_no_precision() -> None:
    """Nobody judged anything: precision is unknown, not nought and not one."""
    (report,) = replay(three_bursts(), trial("now", Verdicts()))
    assert report.precision is None


def test_precision_counts_what_was_judged() -> None:
    """One true, one false, one unjudged: half of what was judged was right."""
    true = Label(verdict="true_positive", event=str(three_bursts()[0]["event"]["id"]))
    false = Label(verdict="false_positive", principal="acme/bob", since="2026-01-06T00:00:00Z")
    (report,) = replay(three_bursts(), trial("now", Verdicts([true, false])))
    assert report.precision == 0.5
    assert report.verdicts == {"true_positive": 1, "false_positive": 1, "benign": 0, "": 1}


def test_a_closed_incident_is_known_again_though_it_begins_elsewhere() -> None:
    """A lower threshold makes the incident begin earlier; its verdict still holds."""
    began = START_NS + HOUR * NS
    closed = Known("failure_burst:acme/eve", began + 30 * NS, began + 60 * NS, "true_positive")
    (report,) = replay(three_bursts(), trial("now", Verdicts(known=[closed]), threshold=8))
    assert report.verdicts["true_positive"] == 1
    assert report.precision == 1.0


def test_no_finding_without_a_failure() -> None:
    """Quiet traffic: a report that says nought, over the right time."""
    quiet = [access(n, n * HOUR) for n in range(48)]
    (report,) = replay(quiet, trial("now", Verdicts()))
    assert (report.incidents, report.findings, report.a_day) == (0, 0, 0.0)
    assert report.days == round(47 / 24, 3)


@pytest.mark.parametrize(
    "label", [Label(verdict="right", event="x"), Label(verdict="true_positive")]
)
def test_a_label_that_says_nothing_is_refused(label: Label) -> None:
    """A verdict that is none, or one on nothing, stops the run."""
    with pytest.raises(Fatal):
        Verdicts([label])


def test_rules_about_frames_cannot_be_replayed() -> None:
    """Frames of producers are not kept: to say so is better than to find nothing."""
    with pytest.raises(Fatal, match="frames"):
        Trial("now", [load_detector("silent_producer")], Verdicts(), 0)
