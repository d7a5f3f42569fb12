"""Which invalid requests count."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters
from gatebook.processors.detect.own import is_slip


def matches(access: Access, parameters: CountParameters) -> bool:
    """All but the slips of those who read the log."""
    return not is_slip(access)
