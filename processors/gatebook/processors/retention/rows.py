"""Indices of summaries as retention sees them: rows of hours by month, rows of days by year. Pure.

They go as a whole, once the last day in them is due.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from gatebook.processors.sinks.slots import IndexName
from gatebook.processors.summaries.rows import DAY, HOUR

SUMMARY_KINDS = (f"summary-{HOUR}", f"summary-{DAY}")
_SLOTS = {SUMMARY_KINDS[0]: r"\d{4}\.\d{2}", SUMMARY_KINDS[1]: r"\d{4}"}


def parse_rows(namespace: str, kind: str, name: str) -> IndexName | None:
    """What the name of an index of summaries says; None where it is not one of this kind. Its
    `day` is the last one of its month or year."""
    pattern = rf"{namespace}-{kind}-(held-)?({_SLOTS[kind]})(?:-r(\d{{1,6}}))?"
    found = re.fullmatch(pattern, name)
    if found is None:
        return None
    try:
        last = end_of(found[2]) - timedelta(days=1)
    except ValueError:
        return None  # no month, or none that a calendar has
    revision, is_held = int(found[3] or 0), bool(found[1])
    return IndexName(name, found[2], f"{last:%Y.%m.%d}", 1, revision, is_held)


def grain_of(kind: str) -> str:
    """`hour` or `day`, of a kind of SUMMARY_KINDS."""
    return kind.removeprefix("summary-")


def end_of(slot: str) -> datetime:
    """The moment a month `YYYY.MM` or a year `YYYY` is over. Raises ValueError."""
    year, _, month = slot.partition(".")
    if not month:
        return datetime(int(year) + 1, 1, 1, tzinfo=UTC)
    first = datetime(int(year), int(month), 1, tzinfo=UTC)
    return (first + timedelta(days=31)).replace(day=1)
