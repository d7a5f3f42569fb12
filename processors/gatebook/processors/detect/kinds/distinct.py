"""distinct: how many different items a key shows within a window."""

from __future__ import annotations

from collections.abc import Sequence
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
    Sessions,
    Window,
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
        at_ns, digest = access.timestamp_ns, item_digest(item)
        add_evidence(state, at_ns, access.event_id)
        windows = self._windows
        if isinstance(windows, Sessions):
            return self._judge(state, windows.add(state, at_ns, digest, horizon_ns), at_ns)
        number = windows.number(at_ns)
        pane = state.panes.get(number)
        known = pane is not None and pane.below and digest in pane.items
        if known and number == max(state.panes):
            return None  # nothing new in the one window it is in, which was below the threshold
        signal = self._judge(state, windows.add(state, at_ns, digest, horizon_ns), at_ns)
        newest = max(state.panes)
        if number == newest or signal is not None:
            state.panes[newest].below = signal is None
        return signal

    def _judge(self, state: DistinctState, windows: Sequence[Window], at_ns: int) -> Signal | None:
        for window in windows:
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
