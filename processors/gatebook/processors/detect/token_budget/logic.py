"""What counts against a budget."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


def matches(access: Access, parameters: CountParameters) -> bool:
    """Accesses that used tokens."""
    return access.input_tokens + access.output_tokens > 0


def value(access: Access, parameters: CountParameters) -> float:
    """Tokens in and out."""
    return float(access.input_tokens + access.output_tokens)
