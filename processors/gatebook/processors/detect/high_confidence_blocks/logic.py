"""Which blocks count."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    confidence: str = "HIGH"
    """Value of the attribute guardrail_confidence, in any case."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Blocks the guardrail was sure of."""
    return access.attributes["guardrail_confidence"].upper() == parameters.confidence.upper()
