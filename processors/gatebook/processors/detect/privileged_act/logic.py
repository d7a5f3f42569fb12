"""Which acts count, and what is said of them."""

from __future__ import annotations

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import Rule, Signal
from gatebook.processors.detect.findings import figure, printable
from gatebook.processors.detect.kinds.count import Count, CountParameters
from gatebook.processors.detect.windows import SumState


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    ignored: frozenset[str] = frozenset()
    """Values of event.action that do not count."""
    harmless: frozenset[str] = frozenset()
    """Those that do not count anywhere, for they only read, or are what findings are for."""


class PrivilegedAct(Count):
    """Counts the acts of one person, and names the one that made it true."""

    def apply(self, state: SumState, access: Access, horizon_ns: int) -> Signal | None:
        """Count one act."""
        signal = super().apply(state, access, horizon_ns)
        return signal and msgspec.structs.replace(signal, reason=_reason(access, signal.observed))


def _reason(access: Access, observed: float) -> str:
    who, action = printable(access.principal), printable(access.action)
    if observed <= 1:
        return f"{who}: {action}"
    return f"{who}: {figure(observed)} privileged acts within an hour, the latest {action}"


def matches(access: Access, parameters: Parameters) -> bool:
    """Privileged acts that are not daily business."""
    return access.action not in parameters.ignored and access.action not in parameters.harmless


def build(rule: Rule, parameters: Parameters) -> PrivilegedAct:
    """The detector."""
    return PrivilegedAct(rule, parameters, {"matches": matches})
