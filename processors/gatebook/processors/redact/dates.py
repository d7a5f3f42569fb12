"""Dates of birth: a full date beside a word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from .probe import Found, Probe, plain

_NUMBERS = re.compile(rb"[0-9]+")
_MONTH = re.compile(rb"[a-zA-Z\x80-\xff]{3,}")
# The first three letters in the languages of Europe, in Latin or Cyrillic: what they tell is
# whether the date exists.
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan ene gen led oca sty tam ian янв січ",
            "feb fev fév lut úno şub hel фев лют",
            "mar maa mär bře már мар бер",  # noqa: RUF001 - Cyrillic is meant
            "apr abr avr kwi dub nis huh ápr апр кві",
            "may mai mag mei maj kvě tou máj мая май тра",
            "jun jui giu cze haz kes jún июн чер",
            "jul lug lip tem hei júl июл лип",
            "aug ago aou aoû sie srp ağu elo авг сер",  # noqa: RUF001 - Cyrillic is meant
            "sep set wrz zář eyl syy sze сен вер",
            "oct okt ott out paź říj eki lok окт жов",
            "nov lis kas ноя лис",
            "dec dez dic déc des gru pro ara jou дек гру",  # noqa: RUF001 - Cyrillic is meant
        ),
        1,
    )
    for name in names.split()
}
_FIRST_YEAR, _LAST_YEAR = 1900, 2035
# Right before six digits, or a day and a month.
_ANNOUNCED = re.compile(
    rb"(?i)(?:\bdob|\bd\.o\.b\.?|birth|birthdate|born|geb\.|geboren|f\xc3\xb6dd|f\xc3\xb8dt)"
    rb"""["']?[ ]{0,2}[:=]?[ ]{0,2}["']?\Z"""
)
_BIRTHDAY = re.compile(
    rb"(?i)(?:birthday|\bb-?day|geburtstag|cumplea\xc3\xb1os|anniversaire|compleanno|verjaardag"
    rb"|f\xc3\xb6delsedag|f\xc3\xb8dselsdag|urodziny)"
    rb"""["']?[ ]{0,2}(?:[:=]|is|falls|ist|est|es)?[ ]{0,2}["']?"""
    rb"(?:(?:on|am|the|le|el|il|op)[ ]){0,2}\Z"
)
_BEFORE_BYTES = 48
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def birth_date(probe: Probe) -> Iterator[Found]:
    """Accept a date that exists, in either order of day and month."""
    value = probe.value
    end = probe.start + value.find(b"T") if value[-2:-1] == b"T" else probe.end
    day = _short(probe) or _date(probe.data[probe.start : end])
    if day:
        yield Found(probe.start, end, day if isinstance(day, str) else day.isoformat())


def _short(probe: Probe) -> str:
    """Six digits, or a birthday's day and month, right after what says so; '' for all others."""
    value = probe.value
    before = probe.data[max(0, probe.start - _BEFORE_BYTES) : probe.start]
    if len(value) == 6 and value.isdigit():
        day = _date(value[:2] + b"-" + value[2:4] + b"-" + value[4:], year_first=True)
        return day.isoformat() if day and _ANNOUNCED.search(before) else ""
    numbers, month = _NUMBERS.findall(value), _month(value)
    if not month or len(numbers) != 1 or not 1 <= int(numbers[0]) <= _DAYS[month - 1]:
        return ""
    return f"--{month:02}-{int(numbers[0]):02}" if _BIRTHDAY.search(before) else ""


def _date(value: bytes, year_first: bool = False) -> date | None:
    if len(value) == 8 and value.isdigit():
        value = value[:4] + b"-" + value[4:6] + b"-" + value[6:]
    numbers = [int(number) for number in _NUMBERS.findall(value)]
    month = _month(value)
    if month and len(numbers) == 2:
        return _first_valid([(_year(numbers[1]), month, numbers[0])])
    if len(numbers) != 3:
        return None
    one, two, three = numbers
    if one > 31 or year_first:
        return _first_valid([(_year(one), two, three), (_year(one), three, two)])
    return _first_valid([(_year(three), two, one), (_year(three), one, two)])


def _month(value: bytes) -> int:
    words = (plain(match[0]).lower()[:3] for match in _MONTH.finditer(value))
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
