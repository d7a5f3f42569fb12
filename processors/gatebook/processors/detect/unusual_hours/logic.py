"""The hour of an access, as people's habits go."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.kinds.first_seen import FirstSeenParameters

HOUR_NS = 3600 * NANOSECONDS
THURSDAY = 3  # 1970 began on a Thursday; weeks begin on Mondays
SATURDAY = 5


class Parameters(FirstSeenParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    utc_offset_hours: Annotated[int, msgspec.Meta(ge=-12, le=14)] = 0
    """Hours the caller's clock is ahead of UTC."""


def item(access: Access, parameters: Parameters) -> str:
    """Such as `working day, 09 h` or `weekend, 23 h`."""
    hours = access.timestamp_ns // HOUR_NS + parameters.utc_offset_hours
    weekend = (hours // 24 + THURSDAY) % 7 >= SATURDAY
    return f"{'weekend' if weekend else 'working day'}, {hours % 24:02d} h"
