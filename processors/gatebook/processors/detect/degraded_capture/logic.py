"""From how many accesses on: one without a key is a condition, one that was too large is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Rule, Signal
from gatebook.processors.detect.kinds.count import Count, CountParameters
from gatebook.processors.detect.windows import SumState

Threshold = Annotated[float, msgspec.Meta(gt=0)]


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    threshold_by_reason: Mapping[str, Threshold] = {}
    """Thresholds of reasons (gatebook.capture.degraded_reason) that have one of their own."""


class DegradedCapture(Count):
    """A count for each reason; `group` gives each a state of its own."""

    def __init__(self, rule: Rule, parameters: Parameters) -> None:
        super().__init__(rule, parameters, {})
        replace = msgspec.structs.replace
        self._by_reason = {
            reason: Count(rule, replace(parameters, threshold=threshold), {})
            for reason, threshold in parameters.threshold_by_reason.items()
        }

    def apply(self, state: SumState, access: Access, horizon_ns: int) -> Signal | None:
        """Count one access."""
        own = self._by_reason.get(access.degraded_reason)
        if own is not None:
            return own.apply(state, access, horizon_ns)
        return super().apply(state, access, horizon_ns)


def build(rule: Rule, parameters: Parameters) -> DegradedCapture:
    """The detector."""
    return DegradedCapture(rule, parameters)
