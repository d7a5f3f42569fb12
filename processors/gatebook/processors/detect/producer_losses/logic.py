"""Events a producer says it dropped."""

from __future__ import annotations

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import BaseDetector, Common, Rule, Signal


class State(msgspec.Struct, array_like=True):
    """The greatest total heard."""

    total: int = 0


class ProducerLosses(BaseDetector):
    """One state for each process (epoch) of a producer: totals begin anew with it."""

    state_type = State

    def matches(self, access: Access) -> bool:
        """Frames that tell of losses."""
        return access.frame_losses > 0

    def group(self, access: Access) -> str:
        """Totals are those of a process."""
        return str(access.epoch)

    def apply(self, state: State, access: Access, horizon_ns: int) -> Signal | None:
        """True where the total rose."""
        if access.frame_losses <= state.total:
            return None
        before, state.total = state.total, access.frame_losses
        return Signal(
            start_ns=access.timestamp_ns,
            end_ns=access.timestamp_ns,
            observed=state.total,
            threshold=before + 1,
            baseline=float(before),
            evidence_count=state.total,
        )


def build(rule: Rule, parameters: Common) -> ProducerLosses:
    """The detector."""
    return ProducerLosses(rule, parameters)


Parameters = Common
