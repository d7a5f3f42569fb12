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
        window: timedelta = timedelta(seconds=10),
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

    def behind(self, now: datetime) -> timedelta:
        """How old the newest document is that was given; nothing where none was."""
        return now - moment(self._newest) if self._newest else timedelta()

    def skip_to(self, now: datetime) -> tuple[str, str]:
        """Give up what came in before `now`, and go on with what comes then. The range, in
        event.ingested, of what is left out."""
        skipped_from, self._floor = self._newest or self._floor, stamp(now)
        self._newest, self._shown = "", {}
        return skipped_from, self._floor

    async def poll(self, limit: int | None = None) -> list[Hit]:
        """What came in since the last poll, oldest first; with a limit, about so many at most,
        and the next poll goes on there. Raises SearchFailed, Unreachable."""
        start = self._start()
        fresh: list[Hit] = []
        after: list[Any] | None = None
        while True:
            hits = await self._page(start, after)
            for hit in hits:
                if limit is not None and len(fresh) >= limit:
                    break
                if self._is_new(hit):
                    fresh.append(hit_of(hit))
            if len(hits) < PAGE_DOCUMENTS or (limit is not None and len(fresh) >= limit):
                break
            after = hits[-1]["sort"]
        self._shown = {key: stamp for key, stamp in self._shown.items() if stamp >= start}
        return fresh

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
        newest = datetime.fromisoformat(self._newest[:19] + "+00:00")
        behind = min(newest, self._clock()) - self._window
        return max(self._floor, behind.replace(tzinfo=None).isoformat(timespec="seconds") + "Z")

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

    def _is_new(self, hit: dict[str, Any]) -> bool:
        key = hit["_index"], hit["_id"]
        if key in self._shown:
            return False
        self._shown[key] = str(hit["sort"][0])
        self._newest = max(self._newest, self._shown[key])
        return True
