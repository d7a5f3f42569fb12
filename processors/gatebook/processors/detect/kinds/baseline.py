"""baseline: a key's figure in a span of time against what it usually is."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import MAX_EVIDENCE, Common, Rule, Signal
from gatebook.processors.detect.baselines import DECIMALS, Usual, decay_of
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector

HOUR_NS = 3600 * NANOSECONDS
THURSDAY_HOURS = 72  # 1970 began on a Thursday; weeks begin on Mondays
SEASON_HOURS = {"none": 1, "day": 24, "week": 168}
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class BaselineParameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change. A bucket is a span of event time that
    gives one figure."""

    bucket_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    """Length of a bucket."""
    measure: Literal["sum", "mean"] = "sum"
    """A bucket's figure: the sum of its values (how many there are, without a value) or the mean
    of them."""
    minimum_samples: Positive = 1
    """A mean counts from so many accesses in the bucket on."""
    floor: NotNegative
    """Never true at or below this figure, whatever the baseline."""
    ratio: Annotated[float, msgspec.Meta(ge=1)] = 3.0
    """True above this multiple of the mean ..."""
    deviations: NotNegative = 4.0
    """... and this many standard deviations above it."""
    minimum_buckets: Positive = 15
    """Buckets that must be learned before the baseline counts."""
    cold_start: NotNegative = 0.0
    """Threshold until then; 0: silent until then."""
    half_life_buckets: Positive = 240
    """A bucket this old weighs half."""
    idle_buckets_limit: Annotated[int, msgspec.Meta(ge=0)] = 60
    """A pause counts as at most so many empty buckets, so that a night does not undo a day. A mean
    learns nothing from empty ones."""
    season: Literal["none", "day", "week"] = "none"
    """Learn each hour of the day or of the week apart; one that is not learned yet is held
    against all hours together."""


class Bucket(msgspec.Struct, array_like=True):
    """An open bucket: accesses, sum of values, event ids where it comes near the floor."""

    number: int = 0
    total: float = 0.0
    evidence: list[str] = []


class BaselineState(msgspec.Struct, array_like=True):
    """What is usual, by season (-1: all together); the next bucket to learn, -1 before the first;
    and the open ones by number since 1970."""

    usual: dict[int, Usual] = {}
    next_bucket: int = -1
    open: dict[int, Bucket] = {}


class Baseline(SimpleDetector):
    """Learns from buckets that are closed, and holds every open one against that at once."""

    state_type = BaselineState
    parameters_type = BaselineParameters

    def __init__(self, rule: Rule, parameters: BaselineParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        self._bucket_ns = parameters.bucket_seconds * NANOSECONDS
        self.quiet_ns = self.quiet_ns or 5 * self._bucket_ns
        self._decay = decay_of(parameters.half_life_buckets)
        self._mean = parameters.measure == "mean"
        self._floor = parameters.floor
        self._seasonal = parameters.season != "none"
        self._season_hours = SEASON_HOURS[parameters.season]

    def apply(self, state: BaselineState, access: Access, horizon_ns: int) -> Signal | None:
        """Count one access, closing buckets that no access can enter any more."""
        number = access.timestamp_ns // self._bucket_ns
        if state.next_bucket < 0:
            state.next_bucket = number
        if horizon_ns >= (state.next_bucket + 1) * self._bucket_ns:
            self._close(state, horizon_ns // self._bucket_ns)
        bucket = state.open.get(number)
        if bucket is None:
            bucket = state.open[number] = Bucket()
        bucket.number += 1
        bucket.total += self.value(access)
        evidence = bucket.evidence
        evidence.append(access.event_id)
        if len(evidence) > MAX_EVIDENCE:
            del evidence[0]
        figure = self._figure(bucket) if self._mean else bucket.total
        if figure <= self._floor:
            return None
        return self._judge(state, number, bucket, figure, access)

    def _figure(self, bucket: Bucket) -> float:
        if not self._mean:
            return bucket.total
        if bucket.number < self.parameters.minimum_samples:
            return 0.0
        return bucket.total / bucket.number

    def _judge(
        self, state: BaselineState, number: int, bucket: Bucket, figure: float, access: Access
    ) -> Signal | None:
        usual = self._usual(state, number)
        threshold = self.threshold(usual)
        if figure <= threshold:
            return None
        known = usual.learned >= self.parameters.minimum_buckets
        return Signal(
            start_ns=number * self._bucket_ns,
            end_ns=access.timestamp_ns,
            observed=round(figure, DECIMALS),
            baseline=usual.mean if known else None,
            threshold=threshold,
            evidence=bucket.evidence,
            evidence_count=bucket.number,
            window_seconds=self.parameters.bucket_seconds,
        )

    def season_of(self, number: int) -> int:
        """Hour of the day or of the week of a bucket, in UTC."""
        hours = number * self._bucket_ns // HOUR_NS
        return (hours + THURSDAY_HOURS) % self._season_hours

    def _usual(self, state: BaselineState, number: int) -> Usual:
        """What a bucket is held against: its season, else everything."""
        if self._seasonal:
            season = state.usual.get(self.season_of(number))
            if season is not None and season.learned >= self.parameters.minimum_buckets:
                return season
        return state.usual.get(-1) or Usual()

    def threshold(self, usual: Usual) -> float:
        """The figure above which a bucket is out of the usual."""
        limits = self.parameters
        if usual.learned < limits.minimum_buckets:
            return float(max(limits.floor, limits.cold_start)) if limits.cold_start else inf
        mean = usual.mean
        above = max(mean * limits.ratio, mean + usual.deviation * limits.deviations)
        return float(max(limits.floor, round(above, DECIMALS)))

    def _close(self, state: BaselineState, horizon: int) -> None:
        """Learn every bucket before the horizon, empty ones as zeros."""
        for number in sorted(n for n in state.open if n < horizon):
            self._learn_idle(state, number - state.next_bucket)
            self._learn(state, number, state.open.pop(number))
            state.next_bucket = max(state.next_bucket, number + 1)
        self._learn_idle(state, horizon - state.next_bucket)
        state.next_bucket = max(state.next_bucket, horizon)

    def _learn(self, state: BaselineState, number: int, bucket: Bucket) -> None:
        """One bucket. Clipped at the threshold: a flood must not teach that floods are usual."""
        if self._mean and bucket.number < self.parameters.minimum_samples:
            return
        figure = self._figure(bucket)
        seasons = (-1, self.season_of(number)) if self._seasonal else (-1,)
        for season in seasons:
            usual = state.usual.setdefault(season, Usual())
            usual.learn(min(figure, self.threshold(usual)), self._decay)

    def _learn_idle(self, state: BaselineState, buckets: int) -> None:
        if buckets > 0 and not self._mean:
            usual = state.usual.setdefault(-1, Usual())
            usual.learn_zeros(min(buckets, self.parameters.idle_buckets_limit), self._decay)
