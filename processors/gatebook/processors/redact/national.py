"""National identity numbers: checked by python-stdnum, or here where it has no module."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import cast

from .errors import RuleInvalid
from .probe import Found, Probe, plain

_SEPARATORS = re.compile(r"[\s.\-/]")


def checked(probe: Probe) -> Iterator[Found]:
    """Accept a number that one of the rule's checks takes."""
    value = plain(probe.value)
    compact = _SEPARATORS.sub("", value).upper()
    if len(set(compact)) <= 2 or _is_part(probe):
        return
    for name in probe.rule.checks:
        probe.budget.spend(8)
        if _passes(name, value.upper()):
            yield Found(probe.start, probe.end, compact)
            return


def _passes(name: str, value: str) -> bool:
    try:
        return check_of(name)(value)
    except (LookupError, ValueError):
        # stdnum's cn.ric knows prefixes without a county: a check that breaks has found no fault.
        return True


_LEFT = re.compile(rb"[0-9][ .\-/]\Z|[A-Za-z]-\Z")
_RIGHT = re.compile(rb"[ .\-/][0-9]")


def _is_part(probe: Probe) -> bool:
    """More digits beside it: it is a part of a longer number, and its check digit chance."""
    left = _LEFT.search(probe.data[max(0, probe.start - 2) : probe.start])
    return bool(left or _RIGHT.match(probe.data, probe.end))


@cache
def check_of(name: str) -> Callable[[str], bool]:
    """A check by name: one of ours, or a module of python-stdnum. Raises RuleInvalid."""
    if name in _OWN:
        return _OWN[name]
    try:
        module = importlib.import_module(f"stdnum.{name}")
    except ImportError as error:
        raise RuleInvalid(f"check {name!r} is unknown") from error
    return cast(Callable[[str], bool], module.is_valid)


_NINO = re.compile(
    r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]", re.ASCII
)


def _is_nino(value: str) -> bool:
    """A British national insurance number; it has no check digit."""
    return bool(_NINO.fullmatch(_SEPARATORS.sub("", value)))


def _is_nric(value: str) -> bool:
    """A Singapore identity or foreign identification number."""
    digits = [int(digit) for digit in value[1:8]]
    total = sum(a * b for a, b in zip(digits, (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(value[0], 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}
    table = letters.get(value[0], "XWUTRQPNMLK")
    rest = total % 11
    return value[8] == table[10 - rest if value[0] == "M" else rest]


def _is_hkid(value: str) -> bool:
    """A Hong Kong identity card number, its check digit in brackets or not."""
    bare = re.sub(r"[()\s]", "", value).rjust(9, " ")
    digits = [36 if c == " " else int(c, 36) for c in bare[:-1]]
    total = sum(a * b for a, b in zip(digits, range(9, 1, -1), strict=True))
    return (total + (10 if bare[-1] == "A" else int(bare[-1], 36))) % 11 == 0


def _is_snils(value: str) -> bool:
    """A Russian insurance number: nine digits and their weighted sum."""
    digits = [int(digit) for digit in _SEPARATORS.sub("", value)]
    total = sum(a * b for a, b in zip(digits, range(9, 0, -1), strict=False))
    return total % 101 % 100 == digits[9] * 10 + digits[10]


_OWN: dict[str, Callable[[str], bool]] = {
    "gb.nino": _is_nino,
    "sg.nric": _is_nric,
    "hk.hkid": _is_hkid,
    "ru.snils": _is_snils,
}


def ssn(probe: Probe) -> Iterator[Found]:
    """Accept a US social security number of a range that is given out."""
    digits = _SEPARATORS.sub("", plain(probe.value))
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
        return
    if digits in ("123456789", "078051120", "219099999") or len(set(digits)) == 1:
        return
    yield Found(probe.start, probe.end, digits)
