"""Failures of one principal within a sliding window of event time."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import MAX_EVIDENCE, Rule, Signal
from gatebook.processors.detect.findings import printable
from gatebook.processors.detect.registry import convert_parameters

Failure = tuple[int, str]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    threshold: Annotated[int, msgspec.Meta(ge=2, le=1000)]
    """Failures within the window that make a burst."""
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)]
    """Length of the sliding window."""
    quiet_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    """A burst is over after this long without a failure; only then can the next one fire."""
    ignored_reasons: tuple[str, ...] = ()
    """Values of event.reason that do not count, for example client_aborted."""


class State(msgspec.Struct, array_like=True):
    """Failures that may still share a window with one to come, oldest first, as (time, event id);
    and the last failure of the burst that fired, -1 where none is under way."""

    failures: list[Failure] = []
    burst_until_ns: int = -1


class FailureBurst:
    """Fires once per burst: when the threshold is reached, not again until it was quiet."""

    state_type = State

    def __init__(self, rule: Rule, parameters: Parameters) -> None:
        self.rule = rule
        self.parameters = parameters
        self._window_ns = parameters.window_seconds * NANOSECONDS
        self._quiet_ns = parameters.quiet_seconds * NANOSECONDS

    def key(self, access: Access) -> str | None:
        """The principal, for accesses that failed."""
        if access.outcome != "failure" or access.reason in self.parameters.ignored_reasons:
            return None
        return access.principal

    def apply(self, state: State, access: Access, horizon_ns: int) -> Signal | None:
        """Count one failure."""
        if state.burst_until_ns >= 0:
            if access.timestamp_ns - state.burst_until_ns <= self._quiet_ns:
                state.burst_until_ns = max(state.burst_until_ns, access.timestamp_ns)
                return None
            state.burst_until_ns = -1
        failures = state.failures
        insort(failures, (access.timestamp_ns, access.event_id))
        del failures[: bisect_left(failures, (horizon_ns - self._window_ns, ""))]
        burst = self._burst_with(failures, access)
        if not burst:
            return None
        state.burst_until_ns = failures[-1][0]
        state.failures = []
        return self._signal(burst, access)

    def _burst_with(self, failures: list[Failure], access: Access) -> list[Failure]:
        """The earliest run of `threshold` failures within one window that this one completes."""
        size = self.parameters.threshold
        here = bisect_left(failures, (access.timestamp_ns, access.event_id))
        for first in range(max(0, here - size + 1), min(here, len(failures) - size) + 1):
            run = failures[first : first + size]
            if run[-1][0] - run[0][0] <= self._window_ns:
                return run
        return []

    def _signal(self, burst: list[Failure], access: Access) -> Signal:
        size, seconds = self.parameters.threshold, self.parameters.window_seconds
        who = printable(access.principal)
        return Signal(
            start_ns=burst[0][0],
            end_ns=burst[-1][0],
            reason=f"{who}: {size} accesses failed within {seconds} s",
            observed=size,
            threshold=size,
            evidence=tuple(event_id for _, event_id in burst[-MAX_EVIDENCE:]),
            evidence_count=size,
            search="event.outcome:failure",
        )


def build(rule: Rule, overrides: Mapping[str, Any]) -> FailureBurst:
    """The detector with its parameters checked."""
    return FailureBurst(rule, convert_parameters(rule, overrides, Parameters))
