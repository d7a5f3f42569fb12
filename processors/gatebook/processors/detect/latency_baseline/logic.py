"""The time an answer took."""

from __future__ import annotations

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.kinds.baseline import BaselineParameters


def value(access: Access, parameters: BaselineParameters) -> float:
    """Seconds."""
    return access.duration_ns / NANOSECONDS
