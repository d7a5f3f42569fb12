"""NAB's scoring, written anew from its documentation (Lavin and Ahmad, 2015; the project's wiki).

A detector gives each point of a series an anomaly score. One threshold for the whole corpus makes
detections of scores. Each labelled window is worth what its best detection is worth: 1 at its
beginning, falling along a sigmoid to about 0 at its end, or minus the weight of a miss. Detections
outside cost the weight of a false positive, less of it shortly after a window. The first 15 % of a
series (750 points at most) are for learning and do not count. The threshold is the one with the
best sum; 0 is a detector that says nothing, 100 one that is right at each window's beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import exp
from operator import itemgetter

PROBATION_SHARE = 0.15
PROBATION_POINTS = 5000
NEVER = 1.1  # above every score


@dataclass(frozen=True)
class Profile:
    """What a right, a false and a missed detection weigh; the standard profile."""

    true_positive: float = 1.0
    false_positive: float = 0.11
    missed: float = 1.0


STANDARD = Profile()


@dataclass(frozen=True)
class Series:
    """Values with their times in seconds, and labelled windows as index ranges, both ends in."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]
    windows: Sequence[tuple[int, int]]

    @property
    def probation(self) -> int:
        """So many points do not count."""
        return int(PROBATION_SHARE * min(len(self.values), PROBATION_POINTS))


@dataclass(frozen=True)
class Result:
    """The best threshold, and the score there. `raw` is the sum before it is scaled."""

    threshold: float
    raw: float
    windows: int
    profile: Profile = STANDARD

    @property
    def score(self) -> float:
        """0: nothing was detected; 100: everything at once. May be negative."""
        null = -self.windows * self.profile.missed
        perfect = self.windows * self.profile.true_positive
        return 100 * (self.raw - null) / (perfect - null) if self.windows else 0.0


def sigmoid(position: float) -> float:
    """The worth of a detection: `position` is -1 at a window's beginning, 0 at its end, and
    counts on in lengths of the window behind it."""
    return -1.0 if position > 3 else 2 / (1 + exp(5 * position)) - 1


BEST = sigmoid(-1.0)


def worths(series: Series, profile: Profile = STANDARD) -> list[tuple[float, int]]:
    """For each point what a detection there is worth, and the number of its window; -1: outside."""
    out = [(-profile.false_positive, -1)] * len(series.values)
    for number, (first, last) in enumerate(series.windows):
        length = last - first + 1
        for index in range(first, last + 1):
            inside = sigmoid(-(last - index + 1) / length) / BEST
            out[index] = (profile.true_positive * inside, number)
        following = series.windows[number + 1 :]
        end = following[0][0] if following else len(series.values)
        for index in range(last + 1, end):
            behind = sigmoid((index - last) / max(1, length - 1))
            out[index] = (profile.false_positive * behind, -1)
    return out


def sweep(
    corpus: Iterable[Series],
    scores: Mapping[str, Sequence[float]],
    profile: Profile = STANDARD,
) -> list[tuple[float, float]]:
    """Each threshold with the sum over the corpus, from the highest threshold down."""
    points: list[tuple[float, str, int, float]] = []
    missed = 0
    for series in corpus:
        missed += len(series.windows)
        valued = zip(scores[series.name], worths(series, profile), strict=True)
        found = [(score, series.name, window, worth) for score, (worth, window) in valued]
        points += found[series.probation :]
    points.sort(key=itemgetter(0), reverse=True)
    total = -missed * profile.missed
    best: dict[tuple[str, int], float] = {}
    sums = [(NEVER, total)]
    for threshold, group in groupby(points, key=itemgetter(0)):
        for _, name, window, worth in group:
            if window < 0:
                total += worth
                continue
            before = best.get((name, window), -profile.missed)
            if worth > before:
                best[name, window] = worth
                total += worth - before
        sums.append((threshold, total))
    return sums


def optimised(
    corpus: Sequence[Series], scores: Mapping[str, Sequence[float]], profile: Profile = STANDARD
) -> Result:
    """The score at the threshold that is best for this corpus, as NAB reports it."""
    threshold, raw = max(sweep(corpus, scores, profile), key=itemgetter(1))
    return Result(threshold, raw, sum(len(series.windows) for series in corpus), profile)


def at(
    corpus: Sequence[Series],
    scores: Mapping[str, Sequence[float]],
    threshold: float,
    profile: Profile = STANDARD,
) -> Result:
    """The score at a threshold that was found elsewhere."""
    reached = [raw for bound, raw in sweep(corpus, scores, profile) if bound >= threshold]
    return Result(threshold, reached[-1], sum(len(series.windows) for series in corpus), profile)
