"""Settings of the search service: its limits. Read from GATEBOOK_SERVE_*, checked at start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from gatebook.processors.sinks.settings import from_environment

PREFIX = "GATEBOOK_SERVE_"

Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much one request, one caller and all of them together may ask for."""

    max_body_bytes: Annotated[
        int, Meta(ge=1024, description="Largest body of a request; a cursor takes most of it")
    ] = 256 * 1024
    max_range_days: Annotated[Positive, Meta(description="Longest time range of a request")] = 3_660
    view_seconds: Annotated[
        Seconds, Meta(description="A cursor that is not used for so long ends (410)")
    ] = 300.0
    max_views_per_caller: Annotated[
        Positive, Meta(description="Open cursors of one caller; beyond, the oldest one ends")
    ] = 10
    max_tails: Annotated[Positive, Meta(description="Live tails open at once, of all callers")] = 50
    max_tails_per_caller: Annotated[
        Positive, Meta(description="Live tails of one caller at once")
    ] = 4
    tail_seconds: Annotated[
        Seconds, Meta(description="A live tail ends after this; browsers open it again")
    ] = 900.0
    tail_interval_seconds: Annotated[Seconds, Meta(description="Between two looks of a tail")] = 1.0
    max_exports: Annotated[Positive, Meta(description="Exports that stream at once")] = 4
    summaries_after_days: Annotated[
        Positive,
        Meta(description="Ranges longer than this are answered by summaries where they can"),
    ] = 31

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> ServeSettings:
        """Read GATEBOOK_SERVE_*. Raises WrongSetting."""
        return from_environment(cls, PREFIX, environment)
