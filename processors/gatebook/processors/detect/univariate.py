"""One figure over time, such as the requests of a service every five minutes: how unusual it is.

For rules of your own (kind custom) about a series rather than about single accesses. A state is a
few hundred bytes and can be part of a detector's state. Five questions are asked of each figure,
four of them against all that was seen before:

- is it far from what is usual at this hour of the day, for some figures on end?
- is the mean of the last few figures far from what such means are?
- is the mean of the last many?
- is it beyond everything that was ever seen?
- is it very far from what is usual lately?

An alarm is followed by a rest: what goes on is one incident and not many.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import msgspec

DAY_SECONDS = 86_400
HOUR_SECONDS = 3600
# A series that never changed has no deviation: a thousandth of the greatest step stands for it.
SMALLEST_DEVIATION = 1e-3
ALARM = 0.5
Positive = Annotated[float, msgspec.Meta(gt=0)]


class UnivariateParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From where on each answer is an alarm. The defaults were found on half of the series of the
    Numenta Anomaly Benchmark; see tests/benchmarks/detection."""

    season_deviations: Positive = 5.0
    """Standard deviations from what is usual at this hour ..."""
    season_points: Annotated[int, msgspec.Meta(ge=1)] = 6
    """... of the mean of so many figures."""
    season_half_life_days: Positive = 5.0
    """What was usual at an hour so long ago weighs half."""
    short_deviations: Positive = 4.5
    short_points: Annotated[int, msgspec.Meta(ge=1)] = 6
    long_deviations: Positive = 2.5
    long_points: Annotated[int, msgspec.Meta(ge=1)] = 72
    beyond: Positive = 0.1
    """Beyond what was ever seen by this share of the range between the least and the greatest."""
    lately_deviations: Positive = 14.0
    lately_half_life_points: Positive = 300.0
    """A figure so many figures ago weighs half in what is usual lately."""
    rest_points: Annotated[int, msgspec.Meta(ge=0)] = 225
    """After an alarm so many figures are not judged."""


class Spread(msgspec.Struct, array_like=True):
    """Mean and deviation of figures so far, and the greatest distance from the mean."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    farthest: float = 0.0

    def surprise(self, figure: float, fresh: float = 0.0) -> float:
        """Standard deviations from the mean of what came before; then learn the figure, which
        weighs `fresh` at least: without it all figures weigh the same."""
        distance = figure - self.mean if self.count else 0.0
        self.farthest = max(self.farthest, abs(distance))
        deviation = max(sqrt(self.variance), SMALLEST_DEVIATION * self.farthest)
        self.count += 1
        weight = max(fresh, 1 / self.count)
        self.mean += weight * (figure - self.mean) if self.count > 1 else figure
        spread = distance * distance if fresh else distance * (figure - self.mean)
        self.variance += weight * (spread - self.variance)
        return abs(distance) / deviation if deviation else 0.0


class Mean(msgspec.Struct, array_like=True):
    """The mean of the last so many figures."""

    last: list[float] = []
    total: float = 0.0

    def of(self, figure: float, points: int) -> float:
        """With this figure."""
        self.last.append(figure)
        self.total += figure
        if len(self.last) > points:
            self.total -= self.last.pop(0)
        return self.total / len(self.last)


class Univariate(msgspec.Struct, array_like=True):
    """The state of one series. Figures come in order of time."""

    usual: dict[int, float] = {}
    """By hour of the day."""
    rest: int = 0
    before_seconds: float = 0.0
    least: float = 0.0
    greatest: float = 0.0
    seen: int = 0
    season: Spread = msgspec.field(default_factory=Spread)
    short: Spread = msgspec.field(default_factory=Spread)
    long: Spread = msgspec.field(default_factory=Spread)
    lately: Spread = msgspec.field(default_factory=Spread)
    season_mean: Mean = msgspec.field(default_factory=Mean)
    short_mean: Mean = msgspec.field(default_factory=Mean)
    long_mean: Mean = msgspec.field(default_factory=Mean)

    def score(self, seconds: float, figure: float, parameters: UnivariateParameters) -> float:
        """How unusual this is, from 0 to 1; an alarm from ALARM on. 0 while it rests."""
        limits = parameters
        residual = self._residual(seconds, figure, limits)
        smoothed = self.season_mean.of(residual, limits.season_points)
        short = self.short_mean.of(figure, limits.short_points)
        long = self.long_mean.of(figure, limits.long_points)
        beyond, fresh = self._beyond(figure), 1 - 0.5 ** (1 / limits.lately_half_life_points)
        answer = max(
            self.season.surprise(smoothed) / limits.season_deviations,
            self.short.surprise(short) / limits.short_deviations,
            self.long.surprise(long) / limits.long_deviations,
            beyond / limits.beyond,
            self.lately.surprise(figure, fresh) / limits.lately_deviations,
        )
        if self.rest > 0:
            self.rest -= 1
            return 0.0
        if answer >= 1:
            self.rest = max(0, limits.rest_points - 1)
        return answer / (1 + answer)

    def _residual(self, seconds: float, figure: float, limits: UnivariateParameters) -> float:
        """The distance from what is usual at this hour, which is learned."""
        hour = int(seconds % DAY_SECONDS // HOUR_SECONDS)
        passed = min(max(seconds - self.before_seconds, 0.0), HOUR_SECONDS)
        self.before_seconds = seconds
        usual = self.usual.setdefault(hour, figure)
        # An hour of each day is this one: a figure weighs 24 times its time.
        faded = 0.5 ** (24 * passed / (limits.season_half_life_days * DAY_SECONDS))
        self.usual[hour] = usual + (1 - faded) * (figure - usual)
        return figure - usual

    def _beyond(self, figure: float) -> float:
        """How far outside of all that was seen, in lengths of its range."""
        if self.seen == 0:
            self.least = self.greatest = figure
        self.seen += 1
        outside = max(figure - self.greatest, self.least - figure)
        extent = self.greatest - self.least
        self.least, self.greatest = min(self.least, figure), max(self.greatest, figure)
        if outside <= 0:
            return 0.0
        return outside / extent if extent > 0 else 1.0
