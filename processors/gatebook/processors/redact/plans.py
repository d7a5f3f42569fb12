"""National number plans, taken from `phonenumbers` and compiled: 50 times as fast as parsing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE
from phonenumbers.phonemetadata import PhoneMetadata, PhoneNumberDesc

_TYPES = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "personal_number",
    "voip",
    "pager",
    "uan",
    "voicemail",
)
WORLD = "001"


@dataclass(frozen=True, slots=True)
class Plan:
    """The valid significant numbers of one region, and how they are dialled within it."""

    country_code: str
    valid: re.Pattern[str]
    trunk: re.Pattern[str] | None
    trunk_digit: str
    sizes: frozenset[int]


def international(digits: str) -> str:
    """Return `+` and the digits of a valid number that begins with its country code, or ''."""
    for size in (1, 2, 3):
        code = digits[:size]
        for plan in _plans_of(code):
            number = _significant(plan, digits[size:])
            if number:
                return f"+{code}{number}"
    return ""


@lru_cache(maxsize=1200)
def _plans_of(code: str) -> tuple[Plan, ...]:
    regions = COUNTRY_CODE_TO_REGION_CODE.get(int(code or 0), ())
    return tuple(filter(None, (_plan(region, int(code)) for region in regions)))


def _significant(plan: Plan, digits: str) -> str:
    if plan.valid.fullmatch(digits):
        return digits
    # `+44 020 ...` is wrong and common.
    rest = digits.removeprefix(plan.trunk_digit) if plan.trunk_digit else digits
    return rest if rest != digits and plan.valid.fullmatch(rest) else ""


def national(digits: str, region: str) -> str:
    """Return `+`, country code and number of a number as dialled within a region, or ''."""
    plan = _plan(region, 0)
    return _dialled(plan, digits) if plan else ""


def anywhere(digits: str, regions: tuple[str, ...]) -> str:
    """The same for the first of several regions that has such a number."""
    plans = _plans_by_size(regions).get(len(digits), ())
    return next(filter(None, (_dialled(plan, digits) for plan in plans)), "")


def _dialled(plan: Plan, digits: str) -> str:
    match = plan.trunk.match(digits) if plan.trunk else None
    if match and match.end() and plan.valid.fullmatch(digits, match.end()):
        return f"+{plan.country_code}{digits[match.end() :]}"
    return f"+{plan.country_code}{digits}" if plan.valid.fullmatch(digits) else ""


@cache
def _plans_by_size(regions: tuple[str, ...]) -> dict[int, tuple[Plan, ...]]:
    """The plans that a number of so many dialled digits can belong to."""
    plans = [plan for plan in (_plan(region, 0) for region in regions) if plan]
    return {
        size: tuple(plan for plan in plans if plan.sizes & {size, size - 1, size - 2})
        for size in range(4, 20)
    }


@lru_cache(maxsize=512)
def _plan(region: str, country_code: int) -> Plan | None:
    metadata = (
        PhoneMetadata.metadata_for_nongeo_region(country_code, None)
        if region == WORLD
        else PhoneMetadata.metadata_for_region(region, None)
    )
    if metadata is None:
        return None
    forms = [form for name in _TYPES for form in _forms(getattr(metadata, name))]
    trunk = metadata.national_prefix_for_parsing
    return Plan(
        str(metadata.country_code),
        re.compile("|".join(f"(?:{form})" for form in forms) or r"(?!)"),
        re.compile(trunk) if trunk else None,
        metadata.national_prefix or "",
        frozenset(metadata.general_desc.possible_length if metadata.general_desc else ()),
    )


def _forms(kind: PhoneNumberDesc | None) -> Iterator[str]:
    if kind and kind.national_number_pattern:
        yield kind.national_number_pattern


@cache
def all_regions() -> tuple[str, ...]:
    """Every region with a plan, those of more people first."""
    named = {r for regions in COUNTRY_CODE_TO_REGION_CODE.values() for r in regions if r != WORLD}
    return (*_LARGE, *sorted(named.difference(_LARGE)))


_LARGE = (
    *("US", "GB", "DE", "FR", "IT", "ES", "NL", "BE", "CH", "AT", "SE", "NO", "DK", "FI", "PL"),
    *("IE", "PT", "CZ", "GR", "HU", "RO", "AU", "NZ", "IN", "JP", "KR", "CN", "TW", "HK", "SG"),
    *("MY", "TH", "PH", "ID", "VN", "BR", "MX", "AR", "CL", "CO", "PE", "ZA", "NG", "EG", "KE"),
    *("IL", "TR", "AE", "SA", "PK", "BD", "RU", "UA"),
)


def large_regions() -> tuple[str, ...]:
    """The regions tried for national numbers that nothing but their layout tells."""
    return _LARGE
