"""Comparing summaries with details: every hour is summed up anew, and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries import reading
from gatebook.processors.summaries.reading import (
    ONE_DAY,
    ONE_HOUR,
    floor_day,
    floor_hour,
    hour_name,
    iso,
)
from gatebook.processors.summaries.rollup import (
    Details,
    Progress,
    covered,
    erased_tags,
    gone_since,
    without_erased,
)
from gatebook.processors.summaries.rows import (
    BY_ALL,
    COUNTS,
    DAY,
    HOUR,
    Key,
    Row,
    Rows,
    merged,
    over_all,
)
from gatebook.processors.summaries.store import Noted, SummaryStore, events_in, unpack_rows

MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """An hour or a day whose summary is not what it should be. `what` names counts, no people."""

    grain: str
    at: str
    what: str


@dataclass
class Checked:
    """What was compared. carried: events whose details have gone, of which the sum alone is left;
    what was kept of them is compared, the events themselves cannot be."""

    hours: int = 0
    days: int = 0
    events: int = 0
    carried: int = 0
    differences: list[Difference] = field(default_factory=list)
    # Hours in the range that no run has summed up, or that one is at: the next run does. They
    # are neither compared nor counted.
    waiting: list[str] = field(default_factory=list)
    covered: Progress | None = None


async def check(
    client: Connection, namespace: str, since: datetime | None = None, until: datetime | None = None
) -> Checked:
    """Compare every hour and whole day in the range that is summed up. Events that came into such
    an hour since the last run are a difference, too; hours that have events and were never summed
    up are named apart. Raises SearchFailed, Unreachable."""
    state = await covered(client, namespace)
    if state is None:
        return Checked()
    least = max(state.since, state.hours_since)  # of days without hours nothing is left to count
    first = floor_hour(max(since or least, least))
    last = floor_hour(min(until or state.until, state.until))
    checking = _Checking(SummaryStore(client, namespace), state)
    await checking.prepare()
    at = first
    while at < last:
        end = min(floor_day(at) + ONE_DAY, last)
        await checking.part_of_day(at, end)
        at = end
    return checking.found


class _Checking:
    def __init__(self, store: SummaryStore, state: Progress) -> None:
        self._store = store
        self._erased: Mapping[str, str] = {}
        self._details = Details({})
        self._going: set[str] = set()
        self.found = Checked(covered=state)

    async def prepare(self) -> None:
        """See what details there are, as of now."""
        client, namespace = self._store.client, self._store.namespace
        marks = await reading.marks(client, namespace)
        sources = [await reading.source_of(client, index, marks[index]) for index in marks]
        self._details = Details({source.index: source for source in sources})
        self._going = await gone_since(self._store, marks)
        self._erased = await erased_tags(self._store)
        await self._store.refresh()

    async def part_of_day(self, since: datetime, until: datetime) -> None:
        """Compare some hours of one day; the day, too, where it is a whole one."""
        stored = await self._store.read(HOUR, since, until)
        over = await self._store.read(HOUR, since, until, by=BY_ALL)
        names = self._names(since, until)
        notes = await self._store.get(f"{HOUR}.{name}" for name in names)
        at = since
        while at < until:
            note = notes.get(f"{HOUR}.{hour_name(at)}")
            if self._is_waiting(hour_name(at), note, iso(at) in stored):
                self.found.waiting.append(iso(at))
                at += ONE_HOUR
                continue
            await self._hour(at, stored.get(iso(at), {}), over.get(iso(at), {}))
            at += ONE_HOUR
        if until - since == ONE_DAY:
            await self._day(since, merged(stored.values()))

    def _names(self, since: datetime, until: datetime) -> list[str]:
        hours = int((until - since) / ONE_HOUR)
        return [hour_name(since + number * ONE_HOUR) for number in range(hours)]

    def _is_waiting(self, name: str, note: Noted | None, has_rows: bool) -> bool:
        """Whether an hour is for the next run to sum up. One that was summed up and lost its
        note is not: its rows are compared."""
        if note is not None:
            return not note.source["is_done"]
        return not has_rows and self._details.tally(name).count > 0

    async def _hour(self, at: datetime, stored: Rows, over: Rows) -> None:
        name = hour_name(at)
        carried = await self._carried(name)
        read = await reading.rows_of(self._store.client, self._details.indices(name), at)
        wanted = without_erased(merged([carried, read]), self._erased, at)
        self._compare(HOUR, at, stored, over, wanted)
        self.found.hours += 1
        self.found.events += events_in(wanted)
        self.found.carried += events_in(carried)

    async def _carried(self, name: str) -> Rows:
        """What is carried of an hour, also where details went since the last run: what was kept
        of them stands beside until a run takes it up, and holds what was carried before."""
        going, carried = f"going.{name}", f"carried.{name}"
        found = await self._store.get([going, carried] if name in self._going else [carried])
        note = found.get(going) or found.get(carried)
        return unpack_rows(note.source["rows"]) if note else {}

    async def _day(self, day: datetime, wanted: Rows) -> None:
        end = day + timedelta(days=1)
        stored = (await self._store.read(DAY, day, end)).get(iso(day), {})
        over = (await self._store.read(DAY, day, end, by=BY_ALL)).get(iso(day), {})
        self._compare(DAY, day, stored, over, wanted)
        self.found.days += 1

    def _compare(self, grain: str, at: datetime, stored: Rows, over: Rows, wanted: Rows) -> None:
        whats = [_difference(stored, wanted), _difference(over, over_all(wanted)[0])]
        for label, what in zip(("", "over all principals: "), whats, strict=True):
            if what:
                self.found.differences.append(Difference(grain, iso(at), label + what))


def _difference(stored: Mapping[Key, Row], wanted: Mapping[Key, Row]) -> str:
    """What differs, in words; empty where nothing does."""
    if stored == wanted:
        return ""
    have, want = _counts(stored), _counts(wanted)
    counts = [f"{name} {have[name]} instead of {want[name]}" for name in COUNTS]
    told = [text for text, name in zip(counts, COUNTS, strict=True) if have[name] != want[name]]
    alike = sum(stored.get(key) == row for key, row in wanted.items())
    return "; ".join(told) or f"{len(wanted) - alike} of {len(wanted)} rows differ"


def _counts(rows: Mapping[Key, Row]) -> dict[str, int]:
    total = Row()
    for row in rows.values():
        total.merge(row)
    return total.counts()
