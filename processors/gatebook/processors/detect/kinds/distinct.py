"""distinct: how many different items a key shows within a window."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Rule, Signal
from gatebook.processors.detect.distinct import item_digest
from gatebook.processors.detect.kinds.count import WindowParameters
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector, windows_of
from gatebook.processors.detect.windows import (
    DISTINCT,
    DistinctState,
    add_evidence,
    evidence_since,
)


class DistinctParameters(WindowParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    threshold: Annotated[int, msgspec.Meta(ge=1)]
    """True from so many different items on. Exact up to 128; beyond, within about 3 %."""


class DistinctItems(SimpleDetector):
    """True while a window holds `threshold` or more different items. An empty item is none."""

    state_type = DistinctState
    parameters_type = DistinctParameters

    def __init__(self, rule: Rule, parameters: DistinctParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        self._threshold = parameters.threshold
        self._windows = windows_of(rule, parameters, DISTINCT)

    def apply(self, state: DistinctState, access: Access, horizon_ns: int) -> Signal | None:
        """Count the item of one access."""
        item = self.item(access)
        if not item:
            return None
        at_ns = access.timestamp_ns
        add_evidence(state, at_ns, access.event_id)
        for window in self._windows.add(state, at_ns, item_digest(item), horizon_ns):
            observed = len(window.total)
            if observed >= self._threshold:
                ids = evidence_since(state, window.start_ns)
                return Signal(
                    start_ns=window.start_ns,
                    end_ns=at_ns,
                    observed=observed,
                    threshold=self._threshold,
                    evidence=ids,
                    evidence_count=len(ids),
                    window_seconds=self.parameters.window_seconds,
                )
        return None
