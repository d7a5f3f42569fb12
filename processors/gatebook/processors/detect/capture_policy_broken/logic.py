"""Which producers of a service cannot use their capture policy, and what holds instead."""

from __future__ import annotations

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Common, Over, Rule, Signal, Step
from gatebook.processors.detect.kinds.simple import SimpleDetector

BROKEN = "capture_policy_broken"
MAX_PRODUCERS = 256
OLDER = "an older one is in force"
NEVER = "there never was a good one, so metadata alone is captured"
NEVER_COUNTED = "there never was a good one, so accesses are counted only"


class State(msgspec.Struct, array_like=True):
    """Producers whose policy is broken, with the time of their last notice."""

    broken: dict[str, int] = {}


class CapturePolicyBroken(SimpleDetector):
    """True while a producer of the service says so; over once each of them has taken a policy
    over, or by quiet time where one is not heard any more."""

    state_type = State
    parameters_type = Common

    def apply(self, state: State, access: Access, horizon_ns: int) -> Step:
        """Take one notice in."""
        oldest_ns = horizon_ns - self.quiet_ns
        left = {name: at for name, at in state.broken.items() if at >= oldest_ns}
        state.broken = left
        if access.action != BROKEN:
            return self._mended(left, access)
        if len(left) < MAX_PRODUCERS or access.producer_id in left:
            left[access.producer_id] = max(access.timestamp_ns, left.get(access.producer_id, 0))
        return Signal(
            start_ns=access.timestamp_ns,
            end_ns=access.timestamp_ns,
            observed=len(left),
            threshold=1,
            evidence=(access.event_id,),
            evidence_count=1,
            reason=f"service {access.service}: its capture policy is broken, {_instead(access)}",
        )

    def _mended(self, broken: dict[str, int], access: Access) -> Step:
        at_ns = broken.get(access.producer_id)
        if at_ns is None or access.timestamp_ns < at_ns:
            return None
        del broken[access.producer_id]
        return None if broken else Over(access.timestamp_ns)


def _instead(access: Access) -> str:
    """What holds. A producer of an older release tells it by the policy's name alone."""
    told = access.attributes
    held = told.get("in_force") or ("fallback" if told.get("policy") == "fallback" else "")
    if held != "fallback":
        return OLDER
    return NEVER_COUNTED if told.get("level") == "none" else NEVER


def build(rule: Rule, parameters: Common) -> CapturePolicyBroken:
    """The detector."""
    return CapturePolicyBroken(rule, parameters, {})
