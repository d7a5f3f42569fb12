"""ratio: which share of a key's accesses within a window is a hit."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Rule, Signal
from gatebook.processors.detect.kinds.count import WindowParameters
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector, windows_of
from gatebook.processors.detect.windows import (
    SHARE,
    Sessions,
    ShareState,
    add_evidence,
    evidence_since,
)
from gatebook.schemas.errors import Fatal


class RatioParameters(WindowParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """True from this share of hits on, 0 to 1 ..."""
    minimum: Annotated[int, msgspec.Meta(ge=1)]
    """... where there are so many accesses in the window at least."""


class Ratio(SimpleDetector):
    """True while the share is `threshold` or more; only a hit can make it true."""

    state_type = ShareState
    parameters_type = RatioParameters

    def __init__(self, rule: Rule, parameters: RatioParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        hit = logic.get("hit")
        if hit is None:
            raise Fatal(f"{rule.id}: ratio needs hit(access, parameters)", "write it in logic.py")
        self._hit = hit
        self._windows = windows_of(rule, parameters, SHARE)

    def apply(self, state: ShareState, access: Access, horizon_ns: int) -> Signal | None:
        """Count one access, hit or not."""
        at_ns, hit = access.timestamp_ns, bool(self._hit(access, self.parameters))
        windows = self._windows
        if not hit and not isinstance(windows, Sessions):
            windows.put(state, at_ns, hit, horizon_ns)
            return None
        if hit:
            add_evidence(state, at_ns, access.event_id)
        for window in windows.add(state, at_ns, hit, horizon_ns):
            hits, total = window.total
            share = hits / total
            if hit and total >= self.parameters.minimum and share >= self.parameters.threshold:
                return Signal(
                    start_ns=window.start_ns,
                    end_ns=at_ns,
                    observed=round(share, 4),
                    threshold=self.parameters.threshold,
                    evidence=evidence_since(state, window.start_ns),
                    evidence_count=hits,
                    window_seconds=self.parameters.window_seconds,
                )
        return None
