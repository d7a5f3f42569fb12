"""Amounts as people write them: 2s, 150ms, 10kb, 5xx. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_OCTETS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([a-z]{1,2})")
_STATUS_CLASS = re.compile(r"([1-5])xx")


def nanoseconds(text: str) -> int | None:
    """A length of time with a unit (150ms, 2s, 1.5m); None where it is none."""
    return _scaled(text, _NANOSECONDS)


def octets(text: str) -> int | None:
    """A size with a unit (512b, 10kb, 2mb; of 1,024); None where it is none."""
    return _scaled(text, _OCTETS)


def _scaled(text: str, units: dict[str, int]) -> int | None:
    found = _AMOUNT.fullmatch(text.lower())
    if found is None or found[2] not in units:
        return None
    return int(Decimal(found[1]) * units[found[2]])


def status_class(text: str) -> int | None:
    """The first status of a class such as 5xx; None where it is none."""
    found = _STATUS_CLASS.fullmatch(text.lower())
    return int(found[1]) * 100 if found else None
