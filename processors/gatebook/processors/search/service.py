"""Searching the indices: one consistent view over all pages, and following what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.processors.search.asking import (
    TIME_FORMAT,
    BadRequest,
    Hit,
    SearchFailed,
    ask,
    hit_of,
)
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.question import (
    EVERYTHING,
    Scope,
    ask_for,
    known_kind,
    moment,
    sort_order,
    stamp,
)
from gatebook.processors.search.spelling import spelled_out
from gatebook.processors.search.times import parse_time
from gatebook.processors.sinks.base import KINDS
from gatebook.processors.sinks.connection import Connection, Unreachable

__all__ = [
    "TIME_FORMAT",
    "BadRequest",
    "Hit",
    "Page",
    "SearchFailed",
    "Tail",
    "existing",
    "find",
    "refresh",
    "search",
    "sort_order",
]

PAGE_DOCUMENTS = 1_000
KEEP_ALIVE = "2m"
WINDOW = timedelta(seconds=10)
# A tail that nothing matches has reached what came in so long ago: no worker's clock is further
# behind ours, and a resumed tail finds nothing there that was given already.
QUIET = timedelta(minutes=5)
NO_HITS: Dsl = {"hits": {"hits": []}}


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits in order. `total` counts all matches, on every page the same."""

    total: int
    hits: list[Hit] = field(default_factory=list)


async def search(
    client: Connection,
    namespace: str,
    query: str = "",
    since: str | None = None,
    until: str | None = None,
    size: int | None = 100,
    sort: str = "@timestamp:desc",
    kind: str = "access",
    now: datetime | None = None,
) -> AsyncIterator[Page]:
    """Pages of documents that match, at least one page, all of one point in time: what is indexed
    while we read neither appears nor shifts anything.

    Intents are left out unless the query names gatebook.phase.
    since is inclusive, until exclusive (see times.parse_time). size None means all.
    sort: `field:asc` or `field:desc`, several with commas. A namespace without an index of this
    kind has no matches. Raises QueryError, TimeError, BadRequest, SearchFailed, Unreachable.
    """
    question = ask_for(query, since, until, kind, now=now or _utc_now())
    order = sort_order(sort, fields_of(kind))
    pit = await _open(client, f"{namespace}-{kind}")
    if pit is None:
        yield Page(0)
        return
    try:
        question = await spelled_out(client, question, view=pit)
        async for page in _pages(client, pit, {"query": question.dsl, "sort": order}, size):
            yield page
    finally:
        # If we die here, the server drops the view by itself after KEEP_ALIVE.
        await _close(client, pit)


async def _open(client: Connection, alias: str) -> str | None:
    """A point in time over an alias; None where there is no such alias yet."""
    found = await ask(client, f"/{alias}/_pit", params={"keep_alive": KEEP_ALIVE})
    return None if found is None else str(found["id"])


async def _close(client: Connection, pit: str) -> None:
    try:
        await client.request("DELETE", "/_pit", json={"id": pit})
    except Unreachable:
        return  # it ends by itself


async def _pages(client: Connection, pit: str, body: Dsl, size: int | None) -> AsyncIterator[Page]:
    total: int | None = None
    after: list[Any] | None = None
    left = size
    while True:
        count = PAGE_DOCUMENTS if left is None else min(PAGE_DOCUMENTS, left)
        request = {
            **body,
            "size": count,
            "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
            "track_total_hits": total is None,
        }
        if after is not None:
            request["search_after"] = after
        found = await ask(client, "/_search", json=request)
        hits = found["hits"]["hits"]
        if total is None:
            total = int(found["hits"]["total"]["value"])
        yield Page(total, [hit_of(hit) for hit in hits])
        left = None if left is None else left - len(hits)
        if len(hits) < count or left == 0:
            return
        after = hits[-1]["sort"]


async def refresh(client: Connection, namespace: str, kind: str = "access") -> None:
    """Returns when searches find all that was indexed before. Raises SearchFailed, Unreachable."""
    await ask(client, f"/{namespace}-{kind}/_refresh", absent=NO_HITS)


async def existing(client: Connection, namespace: str, ids: Sequence[str]) -> frozenset[str]:
    """Which of these ids access documents have, at most PAGE_DOCUMENTS of them at once."""
    if not ids:
        return frozenset()
    body = {"query": {"ids": {"values": list(ids)}}, "size": len(ids), "_source": False}
    found = await ask(client, f"/{namespace}-access/_search", absent=NO_HITS, json=body)
    return frozenset(hit["_id"] for hit in found["hits"]["hits"])


async def find(client: Connection, namespace: str, event_id: str) -> list[Hit]:
    """Every document with this id, of whatever kind, and the findings that cite it as evidence,
    oldest first."""
    if not event_id.isprintable():  # no id of ours; and JSON has no room for a lone surrogate
        return []
    names = ",".join(f"{namespace}-{kind}" for kind in KINDS)
    cited = {"term": {"gatebook.evidence": {"value": event_id}}}
    query = {"bool": {"should": [{"ids": {"values": [event_id]}}, cited]}}
    found = await ask(
        client,
        f"/{names}/_search",
        absent=NO_HITS,
        params={"ignore_unavailable": "true"},
        json={"query": query, "size": PAGE_DOCUMENTS, "sort": [{"@timestamp": "asc"}]},
    )
    return [hit_of(hit) for hit in found["hits"]["hits"]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _to_second(at: datetime) -> str:
    """The full second that a moment is in."""
    return stamp(at.replace(microsecond=0))


class Tail:
    """Documents as they come in, in the order of event.ingested.

    Documents become visible out of order: workers stamp event.ingested, then index. So each poll
    looks `window` back behind what it has seen, and drops the ids it has shown. A document that
    takes longer than `window` from stamp to search (a sink that waits for a full disk) is not
    shown; `search` finds it.
    """

    def __init__(
        self,
        client: Connection,
        namespace: str,
        query: str = "",
        kind: str = "access",
        since: str = "now",
        window: timedelta = WINDOW,
        clock: Callable[[], datetime] = _utc_now,
        scope: Scope = EVERYTHING,
    ) -> None:
        """Raises QueryError, TimeError, BadRequest."""
        self._client = client
        self._index = f"{namespace}-{known_kind(kind)}"
        self._query = ask_for(query, kind=kind, now=clock(), scope=scope).dsl
        self._window = window
        self._clock = clock
        self._floor = parse_time(since, clock())
        self._newest = ""
        self._shown: dict[tuple[str, str], str] = {}  # index and id to event.ingested
        self._polled_at = clock()
        self._left_at = ""  # where the last poll left the rest to the next one, if it did

    def resume(self, place: datetime) -> None:
        """Go on where another tail was (see `place`). What it gave within `window` before is given
        again: which of it was, only whoever took it knows."""
        self._newest = self._left_at = stamp(place)
        self._floor = stamp(place - self._window)

    def place(self, hit: Hit | None = None) -> str:
        """From where another tail misses nothing of what this one did not give: after all that it
        gave, or after one hit of its last poll. A time of event.ingested, to the second."""
        reached = moment(hit.source["event"]["ingested"] if hit else self._reached())
        if hit is None and not self._left_at:
            reached = max(reached, self._polled_at - QUIET)
        return _to_second(min(reached, self._polled_at))

    def _reached(self) -> str:
        return self._left_at or self._newest or self._floor

    def behind(self, now: datetime) -> timedelta:
        """How old the newest document is that was given; nothing where none was."""
        return now - moment(self._reached()) if self._newest else timedelta()

    def skip_to(self, now: datetime) -> tuple[str, str]:
        """Give up what came in before `now`, and go on with what comes then. The range, in
        event.ingested, of what is left out."""
        skipped_from, self._floor = self._reached(), stamp(now)
        self._newest, self._left_at, self._shown, self._polled_at = "", "", {}, now
        return skipped_from, self._floor

    async def poll(self, limit: int | None = None) -> list[Hit]:
        """What came in since the last poll, oldest first; with a limit, about so many at most,
        and the next poll goes on there. Raises SearchFailed, Unreachable."""
        start, began_at = self._start(), self._clock()
        fresh: dict[tuple[str, str], dict[str, Any]] = {}
        is_cut, after = False, None
        while not is_cut:
            hits = await self._page(start, after)
            for hit in hits:
                key = hit["_index"], hit["_id"]
                if is_cut := limit is not None and len(fresh) >= limit:
                    break
                if key not in self._shown:
                    fresh[key] = hit
            if len(hits) < PAGE_DOCUMENTS:
                break
            after = hits[-1]["sort"]
        # Had a page failed, nothing of the pages before it would count as shown.
        self._take(fresh, start, began_at, is_cut)
        return [hit_of(hit) for hit in fresh.values()]

    def _take(
        self,
        fresh: dict[tuple[str, str], dict[str, Any]],
        start: str,
        began_at: datetime,
        is_cut: bool,
    ) -> None:
        """Note what a poll gives, and forget what the next one does not come upon."""
        stamps = {key: str(hit["sort"][0]) for key, hit in fresh.items()}
        self._newest = max(self._newest, *stamps.values(), "")
        self._polled_at, self._left_at = began_at, list(stamps.values())[-1] if is_cut else ""
        since = start.rstrip("Z")  # so it is before all times with more digits
        known = self._shown | stamps
        self._shown = {key: stamp for key, stamp in known.items() if stamp >= since}

    async def follow(self, interval_seconds: float = 1.0) -> AsyncIterator[Hit]:
        """Hits without end; waits `interval_seconds` between polls."""
        while True:
            for hit in await self.poll():
                yield hit
            await asyncio.sleep(interval_seconds)

    def _start(self) -> str:
        """Where to look from. A worker whose clock is ahead must not hide the others, so what was
        seen counts only up to our own now."""
        if not self._newest:
            return self._floor
        behind = min(moment(self._newest), self._clock()) - self._window
        return max(self._floor, _to_second(behind))

    async def _page(self, start: str, after: list[Any] | None) -> list[dict[str, Any]]:
        request: Dsl = {
            "size": PAGE_DOCUMENTS,
            "query": {
                "bool": {"filter": [{"range": {"event.ingested": {"gte": start}}}, self._query]}
            },
            "sort": [
                {"event.ingested": {"order": "asc", "format": TIME_FORMAT}},
                {"event.id": "asc"},
            ],
            "track_total_hits": False,
        }
        if after is not None:
            request["search_after"] = after
        found = await ask(self._client, f"/{self._index}/_search", absent=NO_HITS, json=request)
        return list(found["hits"]["hits"])
