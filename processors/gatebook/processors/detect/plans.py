"""Who looks at an access: found once for all that are alike, for nearly all of them are.

Most conditions of rules are about fields with few values (predicates.LIKENESS). For each
combination of those that was seen there is a plan: the rules that are not ruled out by it, with
what is left to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.lanes import Lane
from gatebook.processors.detect.predicates import Likeness, likeness

Looking = list[tuple[Lane, Detector]]
Plan = list[tuple[Lane, Detector, Callable[[Access], bool] | None]]
# Somebody who invents reasons must not fill our memory: then it is begun anew.
MAX_PLANS = 1024


class Plans:
    """The detectors of one scope, by what they look at."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._plain = [lane for lane in lanes if not lane.tenants]
        self._tenanted = [lane for lane in lanes if lane.tenants]
        self._plans: dict[Likeness, Plan] = {}

    def looking(self, access: Access) -> Looking:
        """The detectors that look at this access."""
        like = likeness(access)
        try:
            plan = self._plans.get(like)
        except TypeError:  # a field holds what cannot be a key: nobody else is like it
            plan = self._plan(access)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[like] = self._plan(access)
        found: Looking = [(lane, own) for lane, own, asks in plan if asks is None or asks(access)]
        if self._tenanted:
            found += self._of_tenant(access)
        return found

    def _plan(self, access: Access) -> Plan:
        asked: list[tuple[Lane, Any, Any]] = [
            (lane, lane.default, lane.default.asks(access))
            for lane in self._plain
            if lane.default is not None
        ]
        return [(lane, own, None if asks is True else asks) for lane, own, asks in asked if asks]

    def _of_tenant(self, access: Access) -> Looking:
        own = ((lane, lane.detector_for(access.tenant)) for lane in self._tenanted)
        return [(lane, one) for lane, one in own if one is not None and one.matches(access)]
