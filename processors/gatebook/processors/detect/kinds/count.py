"""count: how many accesses match within a window, or what a field of them adds up to."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import MAX_EVIDENCE, Common, Rule, Signal
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector, windows_of
from gatebook.processors.detect.windows import (
    MAX_SLIDING,
    SUM,
    Sessions,
    SumState,
    Window,
    add_evidence,
    evidence_since,
)

Seconds = Annotated[int, msgspec.Meta(ge=1, le=31 * 86_400)]


class WindowParameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every rule with windows has."""

    window_seconds: Seconds = 60
    """Length of a window; of a session the gap that ends it."""
    step_seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Hopping windows begin this far apart; 0: a sixth of the window."""


class CountParameters(WindowParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    threshold: Annotated[float, msgspec.Meta(gt=0)]
    """True from this figure on."""


class Count(SimpleDetector):
    """True while a window holds `threshold` or more."""

    state_type = SumState
    parameters_type = CountParameters

    def __init__(self, rule: Rule, parameters: CountParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        self._threshold = parameters.threshold
        self._seconds = parameters.window_seconds
        self._sliding = rule.detect.window == "sliding"
        self._window_ns = parameters.window_seconds * NANOSECONDS
        self._kept = min(MAX_SLIDING, max(64, int(4 * parameters.threshold)))
        if not self._sliding:
            self._windows = windows_of(rule, parameters, SUM)

    def apply(self, state: SumState, access: Access, horizon_ns: int) -> Signal | None:
        """Count one access."""
        value = self.value(access)
        if self._sliding:
            return self._slide(state, access, value, horizon_ns)
        at_ns = access.timestamp_ns
        add_evidence(state, at_ns, access.event_id)
        for window in self._around(state, at_ns, value, horizon_ns):
            if window.total >= self._threshold:
                ids = evidence_since(state, window.start_ns)
                return self._signal(window.start_ns, at_ns, window.total, ids)
        return None

    def _around(
        self, state: SumState, at_ns: int, value: float, horizon_ns: int
    ) -> Sequence[Window]:
        """The windows an access is in; none where all panes together hold too little."""
        windows = self._windows
        if isinstance(windows, Sessions):
            return windows.add(state, at_ns, value, horizon_ns)
        number = windows.put(state, at_ns, value, horizon_ns)
        totals = state.panes.values()
        if sum(totals) < self._threshold and min(totals) >= 0:
            return ()
        return windows.around(state, number)

    def _slide(
        self, state: SumState, access: Access, value: float, horizon_ns: int
    ) -> Signal | None:
        """The first window ending at an access that holds this one and enough others."""
        stamps, at_ns = state.stamps, access.timestamp_ns
        stamp = (at_ns, access.event_id, value)
        insort(stamps, stamp)
        oldest_ns = horizon_ns - self._window_ns
        # It may be older itself: of a key that nobody else has been seen of.
        while stamps and (stamps[0][0] < oldest_ns or len(stamps) > self._kept):
            del stamps[0]
        total, first = 0.0, 0
        for end, (end_ns, _, figure) in enumerate(stamps):
            total += figure
            while stamps[first][0] < end_ns - self._window_ns:
                total -= stamps[first][2]
                first += 1
            if end_ns >= at_ns and stamps[first][0] <= at_ns and total >= self._threshold:
                run = stamps[first : end + 1]
                return self._signal(run[0][0], end_ns, total, [i for _, i, _ in run])
        return None

    def _signal(self, start_ns: int, end_ns: int, observed: float, ids: list[str]) -> Signal:
        return Signal(
            start_ns=start_ns,
            end_ns=end_ns,
            observed=observed,
            threshold=self._threshold,
            evidence=ids[-MAX_EVIDENCE:],
            evidence_count=len(ids),
            window_seconds=self._seconds,
        )
