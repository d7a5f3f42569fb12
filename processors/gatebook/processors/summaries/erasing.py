"""Taking an erased person out of summaries: the counts stay, whose they were does not.

Where the person stood there is `[ERASED_...]` from then on, the same for all of one person, so
that principals are still counted right. It holds for hours that began before the erasure, also
when they are summed up again: which persons, by their tags, is kept with the state.

Rows of documents from before there were tags are not found by a tag; nor does a row name a person
whom a service acted for, so nothing of those has to go.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries.reading import Dsl, hour_of, iso
from gatebook.processors.summaries.rollup import (
    Rollup,
    carried_note,
    erased_name,
    erased_tags,
    without_erased,
)
from gatebook.processors.summaries.rows import DAY, HOUR
from gatebook.processors.summaries.store import SummaryStore, unpack_rows
from gatebook.processors.summaries.template import state_index

WAIT_SECONDS = 300.0


async def erase(client: Connection, namespace: str, tag: str, before_ns: int) -> dict[str, Any]:
    """Take a subject out of every row of an hour or day that began before `before_ns`. May be
    done again. What was overwritten may stay on disk until `indices` are purged.

    Returns how many rows stand for the person without a name now, counted from what is there in
    the end, and the indices that were written to. Raises Overtaken, Fatal, SearchFailed,
    Unreachable.
    """
    store = SummaryStore(client, namespace)
    before = datetime.fromtimestamp(before_ns / 1_000_000_000, UTC)
    async with store.lease(WAIT_SECONDS) as lease:
        # Noted first: from here on no run writes the name again, whatever it read before.
        await _note(store, tag, before)
        await _rewrite_carried(store, tag)
        rows = await _rows(store, tag, before)
        hours, days = (
            {hour_of(at[:13]) for g, at, _ in rows if g == grain} for grain in (HOUR, DAY)
        )
        if rows:
            await Rollup(store, lease).again(sorted(hours), sorted(days))
        indices = {state_index(namespace), *(index for _, _, index in rows)}
        return {"summary_rows": await _hidden(store, tag), "summary_indices": sorted(indices)}


async def _hidden(store: SummaryStore, tag: str) -> int:
    await store.refresh()
    query: Dsl = {"term": {"gatebook.principal": {"value": erased_name(tag)}}}
    return sum([len(hits) async for hits in store.hits(query)])


async def _note(store: SummaryStore, tag: str, before: datetime) -> None:
    known = (await erased_tags(store)).get(tag, "")
    note = {"type": "erased", "tag": tag, "before": max(known, iso(before))}
    await store.put(f"erased.{tag}", note)


async def _rewrite_carried(store: SummaryStore, tag: str) -> None:
    erased = await erased_tags(store)
    holding: Dsl = {"term": {"tag": tag}}
    for kind in ("carried", "going"):
        for note in await store.find(kind, holding):
            at = datetime.fromisoformat(note.source["at"].replace("Z", "+00:00"))
            rows = without_erased(unpack_rows(note.source["rows"]), erased, at)
            await store.put(note.id, carried_note(kind, at, rows), note)


async def _rows(store: SummaryStore, tag: str, before: datetime) -> list[tuple[str, str, str]]:
    """Grain, time and index of every row that names the subject."""
    await store.refresh()
    times: Dsl = {"range": {"@timestamp": {"lt": iso(before)}}}
    query: Dsl = {"bool": {"filter": [{"term": {"gatebook.subject": {"value": tag}}}, times]}}
    return [
        (hit["_source"]["summary"]["grain"], hit["_source"]["@timestamp"], hit["_index"])
        async for hits in store.hits(query)
        for hit in hits
    ]
