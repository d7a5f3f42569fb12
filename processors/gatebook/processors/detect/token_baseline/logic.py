"""Tokens of an access."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.baseline import BaselineParameters


def matches(access: Access, parameters: BaselineParameters) -> bool:
    """Accesses that used tokens."""
    return access.input_tokens + access.output_tokens > 0


def value(access: Access, parameters: BaselineParameters) -> float:
    """Tokens in and out."""
    return float(access.input_tokens + access.output_tokens)
