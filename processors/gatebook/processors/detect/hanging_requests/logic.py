"""Which requests hung."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.kinds.count import CountParameters

REASONS = frozenset({"timeout", "incomplete"})


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    hanging_seconds: Annotated[int, msgspec.Meta(ge=1)] = 300
    """A request that took longer hung, even if it ended well."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Requests that timed out, never ended, or took too long."""
    return access.reason in REASONS or access.duration_ns > parameters.hanging_seconds * NANOSECONDS
