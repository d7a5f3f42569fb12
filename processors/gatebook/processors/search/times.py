"""Points in time as people write them: 15m, now-1d, 2026-11-23, 2026-11-23T10:15:00+01:00."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from gatebook.schemas.errors import GatebookError

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_FLOORED = re.compile(r"now(?:\s*-\s*(\d{1,6})([smhdw]))?\s*/\s*([mhdw])")
_AGO = re.compile(r"(?:now\s*-\s*)?(\d{1,6})([smhdw])")
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(\.\d{1,9})?\s*(Z|[+-]\d{2}:?\d{2})?)?"
)
# Elasticsearch keeps times as nanoseconds since 1970 in 63 bits: no event is beyond.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)


class TimeError(GatebookError):
    """A point in time that cannot be understood, or that no event can have."""

    exit_code = 2
    next_step = (
        "write 15m, 1h, 7d, now-1d, now/d, 2026-11-23 or 2026-11-23T10:15:00Z; units are s, m, h, "
        "d and w"
    )


def parse_time(text: str, now: datetime) -> str:
    """A point in time as Elasticsearch reads it, in UTC, up to nanoseconds.

    `1h` and `now-1h` are an hour before `now`; a time without an offset is UTC; a date without a
    time is its first instant; `now/d` is the beginning of today (`/m`, `/h`, `/w`: of the minute,
    the hour, the week, which begins on Monday). Raises TimeError, also for what is not between
    EARLIEST and LATEST.
    """
    text = text.strip()
    if text == "now":
        return _render(now, "")
    try:
        if ago := _AGO.fullmatch(text):
            return _render(now - int(ago[1]) * _UNITS[ago[2]], "")
        if floored := _FLOORED.fullmatch(text):
            count, unit, whole = floored.groups()
            return _render(_floor(now - int(count or 0) * _UNITS[unit or "s"], whole), "")
        if iso := _ISO.fullmatch(text):
            return _absolute(iso)
    except OverflowError:
        raise _beyond(text) from None
    except ValueError:
        pass
    raise TimeError("this is not a point in time: " + ascii(text[:40]))


def _floor(moment: datetime, unit: str) -> datetime:
    whole = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if unit == "m":
        return whole
    whole = whole.replace(minute=0)
    if unit == "h":
        return whole
    whole = whole.replace(hour=0)
    return whole if unit == "d" else whole - timedelta(days=whole.weekday())


def _absolute(iso: re.Match[str]) -> str:
    day, clock, fraction, offset = iso.groups()
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(offset or 'Z')}")
    return _render(moment, fraction or "")


def _render(moment: datetime, fraction: str) -> str:
    """`fraction` (with its dot) keeps nanoseconds that datetime has no room for."""
    utc = moment.astimezone(UTC)
    if not EARLIEST <= utc <= LATEST:
        raise OverflowError
    digits = fraction or f".{utc.microsecond:06d}"
    return utc.replace(tzinfo=None).isoformat(timespec="seconds") + digits + "Z"


def _beyond(text: str) -> TimeError:
    return TimeError(
        f"this is outside the times that can be searched ({EARLIEST:%Y-%m-%d} to "
        f"{LATEST:%Y-%m-%d}): " + ascii(text[:40])
    )
