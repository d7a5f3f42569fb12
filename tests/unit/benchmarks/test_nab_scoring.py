"""The scoring of the Numenta Anomaly Benchmark on cases that can be worked out by hand."""

from __future__ import annotations

from math import exp

import pytest
from tests.benchmarks.detection.nab_scoring import (
    NEVER,
    STANDARD,
    Series,
    at,
    optimised,
    sigmoid,
    sweep,
    worths,
)


def series(windows: list[tuple[int, int]], points: int = 100, name: str = "a") -> Series:
    """So many points; 15 of 100 are for learning."""
    return Series(name, list(range(points)), [0.0] * points, windows)


def scores(*detected: int, points: int = 100) -> list[float]:
    """Detections at these points."""
    return [1.0 if index in detected else 0.0 for index in range(points)]


def test_says_nothing_scores_nought() -> None:
    """The null detector: one threshold, above every score, and all windows missed."""
    one = series([(40, 49), (70, 79)])
    result = optimised([one], {"a": [0.0] * 100})
    assert (result.threshold, result.raw, result.score) == (NEVER, -2.0, 0.0)


def test_right_at_the_beginning_scores_a_hundred() -> None:
    """A detection at the first point of each window is worth all of it."""
    one = series([(40, 49), (70, 79)])
    assert optimised([one], {"a": scores(40, 70)}).score == pytest.approx(100.0)


def test_late_in_the_window_is_worth_less() -> None:
    """At the last of ten points the position is -1/10, of which the sigmoid makes its share."""
    late = (2 / (1 + exp(-0.5)) - 1) / (2 / (1 + exp(-5)) - 1)
    result = optimised([series([(40, 49)])], {"a": scores(49)})
    assert result.score == pytest.approx(100 * (late + 1) / 2)


def test_only_the_best_detection_of_a_window_counts() -> None:
    """Ten detections in a window are worth what the first of them is."""
    one = series([(40, 49)])
    assert optimised([one], {"a": scores(*range(40, 50))}).score == pytest.approx(100.0)


def test_a_false_detection_costs_its_weight() -> None:
    """Before any window: 0.11 of a window, whatever the distance."""
    one = series([(40, 49)])
    result = at([one], {"a": scores(20, 40)}, 1.0)
    assert result.raw == pytest.approx(1 - 0.11)


def test_shortly_after_a_window_costs_less_and_far_behind_all() -> None:
    """One point behind a window of eleven the position is 1/10; three lengths behind it is far."""
    valued = worths(series([(40, 50)]))
    assert valued[51][0] == pytest.approx(0.11 * (2 / (1 + exp(0.5)) - 1))
    assert valued[81][0] == pytest.approx(-0.11)
    assert valued[39] == (-0.11, -1)


def test_what_is_learned_from_does_not_count() -> None:
    """Detections within the first 15 % neither help nor harm; of long series 750 points."""
    one = series([(40, 49)])
    assert at([one], {"a": scores(3, 14, 40)}, 1.0).raw == pytest.approx(1.0)
    assert series([], points=10_000).probation == 750


def test_one_threshold_for_the_whole_corpus() -> None:
    """What one series needs is taken against what another pays for it."""
    first, second = series([(40, 49)]), series([(40, 49)], name="b")
    given = {"a": [s * 0.5 for s in scores(40)], "b": [s * 0.5 for s in scores(20, 60, 90)]}
    given["b"][40] = 0.9
    sums = dict(sweep([first, second], given))
    assert sums[0.9] == pytest.approx(1 - 1)
    result = optimised([first, second], given)
    assert result.threshold == 0.5
    assert result.raw == pytest.approx(2 - 0.11 * 2 + worths(second)[60][0])


def test_the_sigmoid_is_nought_at_the_end_of_a_window() -> None:
    """Full worth before, cost behind, and a floor from three lengths on."""
    assert sigmoid(0) == 0
    assert sigmoid(-1) == pytest.approx(0.98661, abs=1e-5)
    assert sigmoid(3.01) == -1.0
    assert STANDARD.false_positive == 0.11
