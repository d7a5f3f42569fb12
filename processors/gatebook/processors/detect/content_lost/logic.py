"""Which losses count."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


def matches(access: Access, parameters: CountParameters) -> bool:
    """Content that was lost against the policy's will."""
    return access.sealed_failed != "subject_erased"
