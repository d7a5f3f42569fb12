"""Dates of birth: a full date beside a word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from .probe import Found, Probe

_NUMBERS = re.compile(rb"[0-9]+")
_MONTH = re.compile(rb"[a-zA-Z\x80-\xff]{3,}")
# The first three letters in English, German, French, Spanish, Italian, Portuguese and Dutch.
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan ene gen", "feb fev", "mar maa", "apr abr avr", "may mai mag mei mayo",
            "jun jui giu", "jul lug", "aug ago aou", "sep set", "oct okt ott out", "nov",
            "dec dez dic",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
_FIRST_YEAR, _LAST_YEAR = 1900, 2035


def birth_date(probe: Probe) -> Iterator[Found]:
    """Accept a date that exists, in either order of day and month."""
    day = _date(probe.value)
    if day:
        yield Found(probe.start, probe.end, day.isoformat())


def _date(value: bytes) -> date | None:
    numbers = [int(number) for number in _NUMBERS.findall(value)]
    month = _month(value)
    if month and len(numbers) == 2:
        return _first_valid([(_year(numbers[1]), month, numbers[0])])
    if len(numbers) != 3:
        return None
    one, two, three = numbers
    if one > 31:
        return _first_valid([(_year(one), two, three), (_year(one), three, two)])
    return _first_valid([(_year(three), two, one), (_year(three), one, two)])


def _month(value: bytes) -> int:
    words = (match[0].lower()[:3].decode("utf-8", "replace") for match in _MONTH.finditer(value))
    return next((_MONTHS[word] for word in words if word in _MONTHS), 0)


def _year(number: int) -> int:
    if number > 99:
        return number
    return number + (1900 if number > _LAST_YEAR - 2000 else 2000)


def _first_valid(candidates: list[tuple[int, int, int]]) -> date | None:
    for year, month, day in candidates:
        if _FIRST_YEAR <= year <= _LAST_YEAR:
            try:
                return date(year, month, day)
            except ValueError:
                continue
    return None
