"""Requests a minute of one principal against what it usually does."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Annotated, Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import MAX_EVIDENCE, Rule, Signal
from gatebook.processors.detect.findings import printable
from gatebook.processors.detect.registry import convert_parameters

MINUTE_NS = 60 * NANOSECONDS
# A steady rate of 40 reads as 40, not as 39.999999999999986.
_DECIMALS = 3
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    floor_per_minute: Rate
    """Never fires at or below this rate, whatever the baseline."""
    ratio: Annotated[float, msgspec.Meta(ge=1)]
    """Fires above this multiple of the mean ..."""
    deviations: Annotated[float, msgspec.Meta(ge=0)]
    """... and this many standard deviations above it."""
    minimum_minutes: Annotated[int, msgspec.Meta(ge=1)]
    """Minutes that must be learned before the baseline counts."""
    cold_start_per_minute: Rate
    """Threshold until then."""
    half_life_minutes: Annotated[int, msgspec.Meta(ge=1)]
    """A minute this old weighs half."""
    idle_minutes_limit: Annotated[int, msgspec.Meta(ge=0)]
    """A pause counts as at most this many idle minutes, so that a night does not undo a day."""
    quiet_minutes: Annotated[int, msgspec.Meta(ge=1)]
    """An excess is over after this many minutes without one; only then can the next one fire."""


class State(msgspec.Struct, array_like=True):
    """Exponentially weighted sums over closed minutes (count, square, weight), how many were
    learned, the next minute to close, the counts of open minutes, the last minute in excess, and
    event ids of open minutes that come near the floor. Minutes are since 1970; -1 means none."""

    total: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    learned: int = 0
    next_minute: int = -1
    open: dict[int, int] = {}
    excess_minute: int = -1
    evidence: dict[int, list[str]] = {}


class RateBaseline:
    """Learns from minutes that are closed, and holds every open minute against that at once."""

    state_type = State

    def __init__(self, rule: Rule, parameters: Parameters) -> None:
        self.rule = rule
        self.parameters = parameters
        self._decay = 0.5 ** (1.0 / parameters.half_life_minutes)
        lowest = min(parameters.floor_per_minute, parameters.cold_start_per_minute)
        self._evidence_from = max(0, int(lowest) + 1 - MAX_EVIDENCE)

    def key(self, access: Access) -> str | None:
        """The principal, for every access."""
        return access.principal

    def apply(self, state: State, access: Access, horizon_ns: int) -> Signal | None:
        """Count one access, closing minutes that no access can enter any more."""
        minute = access.timestamp_ns // MINUTE_NS
        if state.next_minute < 0:
            state.next_minute = minute
        self._close(state, horizon_ns // MINUTE_NS)
        count = state.open[minute] = state.open.get(minute, 0) + 1
        if count > self._evidence_from:
            self._keep_evidence(state, minute, access.event_id)
        if count <= self.parameters.floor_per_minute:
            return None
        return self._judge(state, minute, count, access)

    def _keep_evidence(self, state: State, minute: int, event_id: str) -> None:
        ids = state.evidence.setdefault(minute, [])
        ids.append(event_id)
        del ids[:-MAX_EVIDENCE]

    def _judge(self, state: State, minute: int, count: int, access: Access) -> Signal | None:
        threshold = self.threshold(state)
        if count <= threshold:
            return None
        last, state.excess_minute = state.excess_minute, max(state.excess_minute, minute)
        if last >= 0 and minute - last <= self.parameters.quiet_minutes:
            return None
        return self._signal(state, minute, count, threshold, access)

    def mean(self, state: State) -> float:
        """Requests a minute, weighted towards the recent; 0 where nothing is learned."""
        return round(state.total / state.weight, _DECIMALS) if state.weight else 0.0

    def threshold(self, state: State) -> float:
        """Requests a minute above which this principal is in excess."""
        limits = self.parameters
        if state.learned < limits.minimum_minutes:
            return max(limits.floor_per_minute, limits.cold_start_per_minute)
        mean = self.mean(state)
        deviation = sqrt(max(0.0, state.squares / state.weight - mean * mean))
        usual = max(mean * limits.ratio, mean + deviation * limits.deviations)
        return max(limits.floor_per_minute, round(usual, _DECIMALS))

    def _close(self, state: State, horizon_minute: int) -> None:
        """Learn every minute before the horizon, idle ones as zeros."""
        if horizon_minute <= state.next_minute:
            return
        for minute in sorted(m for m in state.open if m < horizon_minute):
            self._learn_idle(state, minute - state.next_minute)
            self._learn(state, state.open.pop(minute))
            state.evidence.pop(minute, None)
            state.next_minute = max(state.next_minute, minute + 1)
        self._learn_idle(state, horizon_minute - state.next_minute)
        state.next_minute = horizon_minute

    def _learn(self, state: State, count: int) -> None:
        """One minute. Clipped at the threshold: a flood must not teach that floods are usual."""
        value = min(float(count), self.threshold(state))
        state.total = state.total * self._decay + value
        state.squares = state.squares * self._decay + value * value
        state.weight = state.weight * self._decay + 1.0
        state.learned += 1

    def _learn_idle(self, state: State, minutes: int) -> None:
        """Any number of idle minutes, in one step."""
        minutes = min(minutes, self.parameters.idle_minutes_limit)
        if minutes <= 0:
            return
        faded = self._decay**minutes
        state.total *= faded
        state.squares *= faded
        state.weight = state.weight * faded + (1.0 - faded) / (1.0 - self._decay)
        state.learned += minutes

    def _signal(
        self, state: State, minute: int, count: int, threshold: float, access: Access
    ) -> Signal:
        known = state.learned >= self.parameters.minimum_minutes
        usual = f"{self.mean(state):.1f} is usual" if known else "no baseline yet"
        who = printable(access.principal)
        return Signal(
            start_ns=minute * MINUTE_NS,
            end_ns=access.timestamp_ns,
            reason=f"{who}: {count} requests in one minute, {usual}, limit {threshold:.1f}",
            observed=count,
            baseline=self.mean(state) if known else None,
            threshold=threshold,
            evidence=tuple(state.evidence.get(minute, ())),
            evidence_count=count,
            search="",
        )


def build(rule: Rule, overrides: Mapping[str, Any]) -> RateBaseline:
    """The detector with its parameters checked."""
    return RateBaseline(rule, convert_parameters(rule, overrides, Parameters))
