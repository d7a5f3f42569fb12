"""Summing up: whole hours from details, whole days from hours.

An hour is summed up anew whenever its details say another number of events, or a later
event.ingested, than when it was last done: so events that come in late are counted, and nothing
rests on clocks. A summary is at all times `carried + details`, where carried is what stood in
details that went (see keeping). Every step may be done twice; whoever runs next goes on where
another one died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects.layers import ERASED_NAME
from gatebook.processors.summaries import reading
from gatebook.processors.summaries.reading import (
    ONE_DAY,
    ONE_HOUR,
    Source,
    Tally,
    floor_day,
    floor_hour,
    hour_name,
    hour_of,
    iso,
)
from gatebook.processors.summaries.rows import (
    BY_PRINCIPAL,
    DAY,
    HOUR,
    Row,
    Rows,
    difference,
    merged,
)
from gatebook.processors.summaries.store import (
    Lease,
    Noted,
    SummaryStore,
    events_in,
    pack_rows,
    unpack_rows,
)

DEFAULT_SETTLE_SECONDS = 120.0
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
# While one waits for Elasticsearch, another one is added up.
HOURS_AT_ONCE = 3
DAYS_AT_ONCE = 2
Told = Callable[[str], None]


@dataclass
class Report:
    """What a run did. `covered_until`: every hour before it is summed up."""

    hours: int = 0
    days: int = 0
    events: int = 0
    rows: int = 0
    seconds: float = 0.0
    covered_since: datetime | None = None
    covered_until: datetime | None = None
    # Hours of which details had gone without `freeze`: what was summed up of them is carried on.
    went_unannounced: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Floors:
    """Since when rows of hours and of days are kept, at the beginning of a day. What is older than
    an hour's rows is not summed up any more; its day stays as it is. `day` is never later."""

    hour: datetime = EARLIEST
    day: datetime = EARLIEST


@dataclass(frozen=True, slots=True)
class Details:
    """The details as they are now: indices, and how many events each hour has in them."""

    sources: Mapping[str, Source]

    def tally(self, name: str) -> Tally:
        """Of one hour, over all indices."""
        return sum((s.hours[name] for s in self.sources.values() if name in s.hours), Tally())

    def indices(self, name: str) -> list[str]:
        """Those that hold events of an hour."""
        return sorted(i for i, source in self.sources.items() if name in source.hours)

    def hours(self) -> set[str]:
        """All hours that have events."""
        return {name for source in self.sources.values() for name in source.hours}


class Rollup:
    """Runs under one lease."""

    def __init__(self, store: SummaryStore, lease: Lease, told: Told = lambda line: None) -> None:
        self._store = store
        self._client = store.client
        self._lease = lease
        self._told = told
        self._erased: dict[str, str] = {}
        self._floors = Floors()
        self.report = Report()

    async def run(
        self,
        until: datetime,
        since: datetime | None = None,
        *,
        force: bool = False,
    ) -> Report:
        """Bring every hour in [since, until) up to date; `until` is the beginning of an hour.
        force: also those that seem to be."""
        began = time.monotonic()
        await self._prepare()
        details, changed = await self._look(force)
        first = max(floor_hour(since or EARLIEST), self._floors.hour)
        wanted = {name for name in changed if hour_of(name) >= first}
        done = await self._hours({n for n in wanted if hour_of(n) < until}, details, force)
        await self._days(done, until, force)
        if self.report.rows:
            await self._store.refresh()
        if since is None:
            # If we die before this, hours are compared again, and found to be done.
            await self._note(details, changed, until)
        self.report.seconds = time.monotonic() - began
        return self.report

    async def again(self, hours: Sequence[datetime], days: Sequence[datetime]) -> None:
        """Sum up these hours and days anew, whether anything changed or not."""
        await self._prepare()
        details, _ = await self._look(False)
        edge = self._floors.hour
        names = [hour_name(at) for at in hours if at >= edge]
        notes = await self._store.get(_hour_id(name) for name in names)
        await at_once(HOURS_AT_ONCE, (self.hour(n, details, notes.get(_hour_id(n))) for n in names))
        await self._store.refresh()
        await at_once(DAYS_AT_ONCE, (self.day(day) for day in days if day >= edge))
        for grain, times in ((HOUR, hours), (DAY, days)):
            for at in times:
                if at < edge:
                    await self._hide(grain, at)

    async def _prepare(self) -> None:
        self._erased = await erased_tags(self._store)
        self._floors = await floors(self._store)

    async def _hide(self, grain: str, at: datetime) -> None:
        """Take the erased out of rows of which there is nothing left to sum them up from."""
        await self._lease.renew()
        end = at + (ONE_HOUR if grain == HOUR else ONE_DAY)
        stored = (await self._store.read(grain, at, end)).get(iso(at), {})
        name = _hour_id(hour_name(at)) if grain == HOUR else f"{DAY}.{at:%Y-%m-%d}"
        note = (await self._store.get([name])).get(name)
        before = note.source if note else {**_blank(grain, at), "revision": 0, "is_done": True}
        revision = 1 + before["revision"]
        # If we die here, the rows still name the person: the erasure finds them again.
        await self._store.put(name, {**before, "revision": revision}, note)
        rows = self.without_erased(stored, at)
        await self._store.write(grain, at, rows, revision, False, only=BY_PRINCIPAL)

    async def forget(self, grain: str, until: datetime) -> None:
        """Sum up nothing of before `until` any more; what was carried of these hours goes."""
        before = await floors(self._store)
        after = replace(before, **{grain: max(getattr(before, grain), until)})
        note = {"type": "kept", "hour": iso(after.hour), "day": iso(after.day)}
        await self._store.put("kept", note)
        # If we die here, nobody reads what was carried; whoever forgets next deletes it.
        older = {"range": {"at": {"lt": iso(after.hour)}}}
        for kind in ("carried", "going"):
            await self._store.forget(one.id for one in await self._store.find(kind, older))

    # -- what has changed ---------------------------------------------------------------------

    async def _look(self, everything: bool) -> tuple[Details, set[str]]:
        """The details, and the hours whose indices were written to, came or went."""
        store = self._store
        now = await reading.marks(self._client, store.namespace)
        await self._promote(now)
        before = {n.source["index"]: _source(n.source) for n in await store.find("source")}
        sources: dict[str, Source] = {}
        changed: set[str] = set()
        for index, mark in now.items():
            known = before.get(index)
            if known is not None and known.mark == mark:
                sources[index] = known
                continue
            sources[index] = await reading.source_of(self._client, index, mark)
            changed |= _differing(known, sources[index])
        for index in before.keys() - now.keys():
            changed |= set(before[index].hours)
        open_ones = await store.find(HOUR, {"term": {"is_done": False}})
        changed |= {hour_name(_at(n)) for n in open_ones}
        details = Details(sources)
        return details, details.hours() if everything else changed

    async def _note(self, details: Details, changed: set[str], until: datetime) -> None:
        """Keep what was seen of each index whose hours are all done, and how far we are."""
        pending = {name for name in changed if hour_of(name) >= until}
        for index, source in details.sources.items():
            if not pending & source.hours.keys():
                await self._store.put(f"source.{index}", _source_note(source))
        known = {n.source["index"]: n.id for n in await self._store.find("source")}
        await self._store.forget(i for n, i in known.items() if n not in details.sources)
        since = await self._since(details, until)
        self.report.covered_since, self.report.covered_until = since, until
        note = {"type": "progress", "since": iso(since), "until": iso(until)}
        await self._store.put("progress", {**note, "run_at": iso(datetime.now(UTC))})

    async def _since(self, details: Details, until: datetime) -> datetime:
        before = await progress(self._store)
        first = min((hour_of(name) for name in details.hours()), default=until)
        return max(min(first, before.since if before else until, until), self._floors.day)

    # -- hours --------------------------------------------------------------------------------

    async def _hours(self, names: set[str], details: Details, force: bool) -> set[str]:
        notes = await self._store.get(_hour_id(name) for name in sorted(names))
        wanted = [
            name
            for name in sorted(names)
            if force or not _is_current(notes.get(_hour_id(name)), details.tally(name))
        ]
        await at_once(
            HOURS_AT_ONCE, (self.hour(name, details, notes.get(_hour_id(name))) for name in wanted)
        )
        return set(wanted)

    async def hour(self, name: str, details: Details, note: Noted | None) -> None:
        """Sum up one hour, whatever was there."""
        await self._lease.renew()
        tally = details.tally(name)
        if note is not None and note.source["is_done"] and tally.count < note.source["count"]:
            await self._carry_unannounced(name, details, note)
        revision = 1 + (note.source["revision"] if note else 0)
        begun = {**(note.source if note else _blank(HOUR, hour_of(name))), "is_done": False}
        # If we die from here on, the hour is not done: the next run sums it up again.
        note = await self._store.put(_hour_id(name), {**begun, "revision": revision}, note)
        carried = await self._carried(name)
        found = await self._read(name, details)
        rows = self.without_erased(merged([carried, found]), hour_of(name))
        fresh = revision == 1
        count = await self._store.write(HOUR, hour_of(name), rows, revision, fresh)
        done = {
            **note.source,
            "is_done": True,
            "count": tally.count,
            "newest": tally.newest,
            "events": events_in(rows),
            "carried_events": events_in(carried),
        }
        await self._store.put(_hour_id(name), done, note)
        self.report.hours += 1
        self.report.events += events_in(rows)
        self.report.rows += count
        self._told(f"hour {name}: {done['events']} events in {len(rows)} rows")

    async def _read(self, name: str, details: Details, ingested_until: str = "") -> Rows:
        """The hour's events. Where an index took the place of another meanwhile, it is for the
        next run to say which."""
        return await reading.rows_of(
            self._client, details.indices(name), hour_of(name), ingested_until
        )

    async def _carried(self, name: str) -> Rows:
        found = await self._store.get([_carried_id(name)])
        return {
            k: r for note in found.values() for k, r in unpack_rows(note.source["rows"]).items()
        }

    async def _carry_unannounced(self, name: str, details: Details, note: Noted) -> None:
        """Details went and nobody told us: what was summed up of them stays. Events that came in
        since are not in that sum, so they are left aside here, and counted with the rest."""
        at = hour_of(name)
        await self._store.refresh()
        stored = (await self._store.read(HOUR, at, at + ONE_HOUR)).get(iso(at), {})
        left = await self._read(name, details, note.source["newest"])
        gone = difference(stored, self.without_erased(left, at))
        # If we die here, the hour's note still has the count of before, and the stored rows are
        # the same: the next run carries the same.
        await self._store.put(_carried_id(name), carried_note("carried", at, gone))
        self.report.went_unannounced.append(name)

    def without_erased(self, rows: Rows, at: datetime) -> Rows:
        """Rows in which nobody is named who was erased after this hour began."""
        return without_erased(rows, self._erased, at)

    # -- days ---------------------------------------------------------------------------------

    async def _days(self, hours: set[str], until: datetime, force: bool) -> None:
        touched = {floor_day(hour_of(name)) for name in hours}
        open_ones = await self._store.find(DAY, {"term": {"is_done": False}})
        touched |= {_at(note) for note in open_ones}
        before = await progress(self._store)
        if before is not None and floor_day(before.until) < floor_day(until):
            touched.add(floor_day(before.until))  # it was not over when its hours were summed up
        over = sorted(d for d in touched if d >= self._floors.hour and d + ONE_DAY <= until)
        if over:
            await self._store.refresh()
        await at_once(DAYS_AT_ONCE, (self.day(day) for day in over))

    async def day(self, day: datetime) -> None:
        """Sum up the hours of one day."""
        await self._lease.renew()
        name = f"{DAY}.{day:%Y-%m-%d}"
        note = (await self._store.get([name])).get(name)
        revision = 1 + (note.source["revision"] if note else 0)
        begun = {**(note.source if note else _blank(DAY, day)), "is_done": False}
        # If we die from here on, the day is not done: the next run sums it up again.
        note = await self._store.put(name, {**begun, "revision": revision}, note)
        hours = await self._store.read(HOUR, day, day + ONE_DAY)
        rows = merged(hours.values())
        await self._store.write(DAY, day, rows, revision, revision == 1)
        done = {**note.source, "is_done": True, "events": events_in(rows)}
        await self._store.put(name, done, note)
        self.report.days += 1
        self._told(f"day {day:%Y-%m-%d}: {done['events']} events")

    # -- details that go (see keeping) --------------------------------------------------------

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        """See keeping.freeze."""
        await self._prepare()
        now = await reading.marks(self._client, self._store.namespace)
        await self._promote(now)
        before = await self._sources(now | dict.fromkeys(leaving, ""))
        kept = {i: s for i, s in before.items() if i not in leaving}
        after = kept | await self._sources(dict.fromkeys(coming, ""))
        every = {name for index in leaving for name in before[index].hours}
        names = {name for name in every if hour_of(name) >= self._floors.hour}
        # Events that came in since `ensure` stand in no sum yet, and nobody counts them later.
        done = await self._hours(names, Details(before), False)
        await self._days(done, max(map(hour_of, names), default=EARLIEST) + ONE_DAY, False)
        hours: dict[str, Any] = {}
        for name in sorted(names):
            await self._lease.renew()
            hours[name] = await self._going(name, Details(before), Details(after))
        note = {"type": "freeze", "leaving": list(leaving), "hours": hours}
        # Written last: if we die before it, what was kept beside counts for nothing, and whoever
        # takes the details away calls again.
        await self._store.put(f"freeze.{'+'.join(sorted(leaving))}", note)

    async def _sources(self, indices: Mapping[str, str]) -> dict[str, Source]:
        return {i: await reading.source_of(self._client, i, m) for i, m in indices.items()}

    async def _going(self, name: str, before: Details, after: Details) -> dict[str, Any]:
        """Keep beside what an hour will carry; the tally it will have."""
        at, tally = hour_of(name), after.tally(name)
        gone = difference(await self._read(name, before), await self._read(name, after))
        carried = merged([await self._carried(name), self.without_erased(gone, at)])
        await self._store.put(_going_id(name), carried_note("going", at, carried))
        return {"count": tally.count, "newest": tally.newest}

    async def _promote(self, now: Mapping[str, str]) -> None:
        """Carry what was kept beside, where the details have gone by now."""
        for note in await _freezes_of_gone(self._store, now):
            await self._promote_one(note)

    async def _promote_one(self, freeze: Noted) -> None:
        # If we die within, the next run does it again, to the same effect: nothing is summed up
        # before the note of the freeze is gone.
        for name, tally in freeze.source["hours"].items():
            found = await self._store.get([_going_id(name), _hour_id(name)])
            if _going_id(name) in found and hour_of(name) >= self._floors.hour:
                carried = {**found[_going_id(name)].source, "type": "carried"}
                await self._store.put(_carried_id(name), carried)
            if (hour := found.get(_hour_id(name))) is not None:
                await self._store.put(hour.id, {**hour.source, **tally}, hour)
        await self._store.forget([freeze.id])
        await self._store.forget(_going_id(name) for name in freeze.source["hours"])


async def at_once(limit: int, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it, so many at once; the first error stops the rest and is raised."""
    slots = asyncio.Semaphore(limit)

    async def one(item: Coroutine[Any, Any, None]) -> None:
        try:
            async with slots:
                await item
        finally:
            item.close()

    tasks = [asyncio.ensure_future(one(item)) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- the state as others read it ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """Summaries stand for [since, until), but for hours that are being written. hours_since: before
    it only whole days are left."""

    since: datetime
    until: datetime
    run_at: datetime
    undone: frozenset[datetime] = frozenset()
    undone_days: frozenset[datetime] = frozenset()
    hours_since: datetime = EARLIEST


async def progress(store: SummaryStore) -> Progress | None:
    """How far summaries are, as of the last run; None where none ever ran."""
    note = (await store.get(["progress"])).get("progress")
    if note is None:
        return None
    since, until, run_at = (_time(note.source[n]) for n in ("since", "until", "run_at"))
    kept = await floors(store)
    since = max(since, kept.day)
    if since < kept.hour:
        since = floor_day(since)  # there are no events of before, and no hours any more
    return Progress(since, until, run_at, hours_since=max(since, kept.hour))


async def floors(store: SummaryStore) -> Floors:
    """Since when rows are kept."""
    note = (await store.get(["kept"])).get("kept")
    return Floors(*(_time(note.source[n]) for n in (HOUR, DAY))) if note else Floors()


async def covered(client: Connection, namespace: str) -> Progress | None:
    """The same, with the hours and days in it that cannot be trusted at this moment."""
    store = SummaryStore(client, namespace)
    found = await progress(store)
    if found is None:
        return None
    edge = found.hours_since
    undone = [
        {at for n in await store.find(kind, NOT_DONE) if (at := _at(n)) >= first}
        for kind, first in ((HOUR, edge), (DAY, floor_day(edge)))
    ]
    return replace(found, undone=frozenset(undone[0]), undone_days=frozenset(undone[1]))


NOT_DONE = {"term": {"is_done": False}}


async def _freezes_of_gone(store: SummaryStore, now: Mapping[str, str]) -> list[Noted]:
    """Of what was kept beside, that of which the details have gone. now: indices there are."""
    found = await store.find("freeze")
    return [note for note in found if not now.keys() & set(note.source["leaving"])]


async def gone_since(store: SummaryStore, now: Mapping[str, str]) -> set[str]:
    """Hours of which details went since the last run, with what they said kept beside."""
    return {name for note in await _freezes_of_gone(store, now) for name in note.source["hours"]}


async def erased_tags(store: SummaryStore) -> dict[str, str]:
    """Subjects that were erased, and until when (as it stands in @timestamp of an hour)."""
    return {n.source["tag"]: n.source["before"] for n in await store.find("erased")}


def without_erased(rows: Rows, erased: Mapping[str, str], at: datetime) -> Rows:
    """Rows in which an erased person is `[ERASED_...]`: one and the same, and nobody."""
    if not erased:
        return rows
    moment = iso(at)
    hidden: Rows = {}
    for key, row in rows.items():
        if moment < erased.get(key.subject, ""):
            key = key._replace(principal=erased_name(key.subject), user="", subject="")
        if key not in hidden:
            hidden[key] = Row()
        hidden[key].merge(row)
    return hidden


def erased_name(tag: str) -> str:
    """What takes the place of an erased principal, as in the documents of that person."""
    return f"{ERASED_NAME}{tag[:16]}]"


def carried_note(kind: str, at: datetime, rows: Rows) -> dict[str, Any]:
    """The state's document of rows that are carried; by `tag` it is found for an erasure."""
    tags = sorted({key.subject for key in rows if key.subject})
    return {"type": kind, "at": iso(at), "tag": tags, "rows": pack_rows(rows)}


def _hour_id(name: str) -> str:
    return f"{HOUR}.{name}"


def _carried_id(name: str) -> str:
    return f"carried.{name}"


def _going_id(name: str) -> str:
    return f"going.{name}"


def _blank(kind: str, at: datetime) -> dict[str, Any]:
    return {"type": kind, "at": iso(at), "count": 0, "newest": "", "events": 0}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _at(note: Noted) -> datetime:
    return _time(note.source["at"])


def _is_current(note: Noted | None, tally: Tally) -> bool:
    if note is None:
        return tally.count == 0
    seen = note.source
    return bool(seen["is_done"]) and (seen["count"], seen["newest"]) == (tally.count, tally.newest)


def _source(note: Mapping[str, Any]) -> Source:
    hours = {name: Tally(*tally) for name, tally in note["hours"].items()}
    return Source(note["index"], note["mark"], hours)


def _source_note(source: Source) -> dict[str, Any]:
    hours = {name: [tally.count, tally.newest] for name, tally in source.hours.items()}
    return {"type": "source", "index": source.index, "mark": source.mark, "hours": hours}


def _differing(before: Source | None, now: Source) -> set[str]:
    known: Mapping[str, Tally] = before.hours if before else {}
    return {n for n in known.keys() | now.hours.keys() if known.get(n) != now.hours.get(n)}


def settled(now: datetime, settle_seconds: float = DEFAULT_SETTLE_SECONDS) -> datetime:
    """Up to where hours are summed up at this moment: those that ended so long ago."""
    return floor_hour(now - timedelta(seconds=settle_seconds))
