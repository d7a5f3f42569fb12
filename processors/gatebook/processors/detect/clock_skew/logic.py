"""Which frames come from a clock that is ahead."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.kinds.count import CountParameters


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    max_ahead_seconds: Annotated[int, msgspec.Meta(ge=1)] = 30
    """How far a clock may be ahead of intake's."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Frames built later than they came in."""
    ahead_ns = access.frame_sent_ns - access.timestamp_ns
    return ahead_ns > parameters.max_ahead_seconds * NANOSECONDS
