"""Numbers of a producer's events that never came."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import BaseDetector, Common, Over, Rule, Signal, Step

MAX_GAPS = 64


class Parameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 120
    """How long a gap may take to be filled."""


class State(msgspec.Struct, array_like=True):
    """The number expected next (-1: none was heard), gaps as (first, last), when the oldest began,
    and whether they were told."""

    expected: int = -1
    gaps: list[tuple[int, int]] = []
    since_ns: int = 0
    told: bool = False


class SequenceGap(BaseDetector):
    """One state for each process (epoch) of a producer."""

    state_type = State

    def __init__(self, rule: Rule, parameters: Parameters) -> None:
        super().__init__(rule, parameters)
        self._grace_ns = parameters.grace_seconds * NANOSECONDS

    def matches(self, access: Access) -> bool:
        """Frames that carry numbers."""
        return access.kind == "frame" and access.sequence >= 0

    def group(self, access: Access) -> str:
        """Every process numbers from the beginning."""
        return str(access.epoch)

    def apply(self, state: State, access: Access, horizon_ns: int) -> Step:
        """Take one frame in: it goes on, leaves a gap, or fills one."""
        first, after = access.sequence, access.sequence + access.frame_count
        if state.expected < 0:
            state.expected = after
            return None
        if first > state.expected:
            state.gaps = [*state.gaps, (state.expected, first - 1)][-MAX_GAPS:]
            state.since_ns = state.since_ns or access.timestamp_ns
        elif state.gaps:
            state.gaps = _without(state.gaps, first, after - 1)
        state.expected = max(state.expected, after)
        return self._filled(state, access) if not state.gaps else None

    def _filled(self, state: State, access: Access) -> Step:
        told, state.told, state.since_ns = state.told, False, 0
        return Over(access.timestamp_ns) if told else None

    def deadline(self, state: State) -> int:
        """When a gap becomes too old."""
        return state.since_ns + self._grace_ns if state.gaps and not state.told else 0

    def expire(self, state: State, now_ns: int) -> Signal:
        """It was not filled."""
        state.told = True
        missing = sum(last - first + 1 for first, last in state.gaps)
        first, last = state.gaps[0][0], state.gaps[-1][1]
        return Signal(
            start_ns=state.since_ns,
            end_ns=state.since_ns + self._grace_ns,
            observed=missing,
            threshold=1,
            evidence_count=missing,
            labels={"first_missing": str(first), "last_missing": str(last)},
        )


def _without(gaps: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """The gaps that are left when these numbers have come."""
    left = []
    for low, high in gaps:
        if last < low or first > high:
            left.append((low, high))
            continue
        if low < first:
            left.append((low, first - 1))
        if high > last:
            left.append((last + 1, high))
    return left


def build(rule: Rule, parameters: Parameters) -> SequenceGap:
    """The detector."""
    return SequenceGap(rule, parameters)
