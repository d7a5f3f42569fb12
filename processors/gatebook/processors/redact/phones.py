"""Telephone numbers: international, national by a region or a word beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from . import plans
from .probe import Found, Probe

MAX_PHONE_DIGITS = 17
_IN_GROUPS = re.compile(rb"[0-9][ .\-/]")
_JOINTS = bytes(byte for byte in range(256) if not 48 <= byte < 58)
_GROUP = re.compile(rb"[0-9]+")
_CLOSE = re.compile(rb"\)(?=\s|$)")
_EXTENSION = re.compile(rb"(?i)[ ,;]{0,2}(?:x|ext\.?|extension|poste|durchwahl) ?[0-9]{1,6}\b")
_TRUNK_ZERO = re.compile(rb"^(?:\+|00) ?\(?([0-9]{1,3})\)?[ .-]?\(0\)")


def phone(probe: Probe) -> Iterator[Found]:
    """Accept the longest valid number at the candidate's start, dropping groups from its end."""
    before = probe.data[max(0, probe.start - 2) : probe.start]
    if before[-1:].isdigit() or (_IN_GROUPS.match(before) and probe.value[:2] == b"00"):
        return  # `00` in the midst of groups of digits is no international prefix
    ends = [m.end() for m in _GROUP.finditer(probe.data, probe.start, probe.end)]
    for end in reversed(ends):
        digits = probe.data[probe.start : end].translate(None, _JOINTS).decode("ascii")
        if not 6 <= len(digits) <= MAX_PHONE_DIGITS + 2 or probe.data[end : end + 1].isdigit():
            continue
        probe.budget.spend(probe.rule.cost)
        normal = _e164(digits, probe)
        if normal:
            yield Found(probe.start, _with_tail(probe.data, end), normal)
            return


_MIN_ALONE_DIGITS = 10
_MIN_BRACKET_DIGITS = 8
_BESIDE_LEFT = re.compile(rb"[A-Za-z_]\Z|[0-9A-Za-z][.\-/,:+=#]\Z|[0-9][ )]{1,2}\Z")
_BESIDE_RIGHT = re.compile(rb"[ .\-/:,]?[0-9]|[A-Za-z_]|-[0-9A-Z]")


def phone_nanp(probe: Probe) -> Iterator[Found]:
    """Accept a number laid out as in North America, if it is given out or not, on its own."""
    if not _LEFT_NANP.search(probe.data[max(0, probe.start - 2) : probe.start]):
        yield from (found for found in phone(probe) if not _goes_on(probe.data, found.end))


_LEFT_NANP = re.compile(rb"[0-9]\Z|[0-9A-Za-z][.\-/]\Z")


def _goes_on(data: bytes, end: int) -> bool:
    """More digits after a number: it is a part of something longer."""
    return bool(re.match(rb"[.\-/]?[0-9]", data[end : end + 2]))


# What is counted, were it calls: `call 5 functions 1234567 times`.
_COUNTED = re.compile(
    rb"(?i)[ ](?:times|users?|people|customers|functions?|calls|requests|records|rows|lines|words"
    rb"|bytes|tokens|items|events|files|messages|documents|entries|iterations|steps|seconds|minutes"
    rb"|hours|days|years|ms|[kmg]?b|km|usd|eur|dollars|euros?|percent|mal|fois|veces|volte|vezes|keer)\b|%"
)


def phone_announced(probe: Probe) -> Iterator[Found]:
    """Accept a number beside a word that announces one, unless it is counted or part of a code."""
    left = probe.data[max(0, probe.start - 2) : probe.start]
    if not _LEFT_NANP.search(left) and not left[-1:].isalpha():
        yield from (found for found in phone(probe) if not _is_more(probe.data, found))


def _is_more(data: bytes, found: Found) -> bool:
    if _goes_on(data, found.end):
        return True
    return found.of(data).isdigit() and _COUNTED.match(data, found.end) is not None


def phone_alone(probe: Probe) -> Iterator[Found]:
    """Accept a number that nothing announces only where no other digits stand beside it."""
    if _beside_digits(probe.data, probe.start):
        return
    least = _MIN_BRACKET_DIGITS if probe.data[probe.start] == 40 else _MIN_ALONE_DIGITS
    for found in phone(probe):
        digits = sum(48 <= byte < 58 for byte in probe.data[found.start : found.end])
        if digits >= least and not _BESIDE_RIGHT.match(probe.data, found.end):
            yield found


def _beside_digits(data: bytes, start: int) -> bool:
    return bool(_BESIDE_LEFT.search(data[max(0, start - 3) : start]))


def _with_tail(data: bytes, end: int) -> int:
    """The end of a number with its closing bracket and extension."""
    close = _CLOSE.match(data, end)
    end = close.end() if close else end
    extension = _EXTENSION.match(data, end)
    return extension.end() if extension else end


def _e164(digits: str, probe: Probe) -> str:
    """The number as +E.164, or '' where no plan has it."""
    region = probe.rule.region
    if probe.data[probe.start : probe.start + 1] == b"+" or not region:
        plus = probe.data[probe.start : probe.start + 1] == b"+"
        written = digits if plus else digits.removeprefix("00")
        return plans.international(_without_trunk_zero(written, probe.value))
    return _national(digits, region) or (_loose(digits) if probe.rule.loose else "")


@lru_cache(maxsize=4096)
def _national(digits: str, region: str) -> str:
    """A region by its code; `*`: any; `large`: any of the large ones."""
    if digits.startswith("00"):
        return plans.international(digits[2:])
    if region == "US":
        return plans.international(digits if len(digits) == 11 else f"1{digits}")
    if region not in ("*", "large"):
        return plans.national(digits, region)
    regions = plans.all_regions() if region == "*" else plans.large_regions()
    return plans.anywhere(digits, regions)


def _loose(digits: str) -> str:
    """A number laid out as in North America need not be one that is given out."""
    bare = digits.removeprefix("1") if len(digits) == 11 else digits
    return f"+1{bare}" if len(bare) == 10 and bare[0] not in "01" else ""


def _without_trunk_zero(digits: str, value: bytes) -> str:
    """`+44 (0) 20 ...` is dialled without the zero in brackets."""
    match = _TRUNK_ZERO.match(value) if b"(0)" in value else None
    if not match:
        return digits
    country = len(match[1])
    return digits[:country] + digits[country + 1 :]
