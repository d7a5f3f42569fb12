"""Which requests failed on the service's side."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.ratio import RatioParameters

REASONS = frozenset({"upstream_error", "server_error", "unavailable", "timeout", "incomplete"})


def hit(access: Access, parameters: RatioParameters) -> bool:
    """Failures that are not the caller's fault."""
    return access.reason in REASONS
