"""Documents out of the index, in order of time and id, all of one moment, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gatebook.processors.archive.manifest import Manifest, Wanted
from gatebook.processors.search.dsl import Dsl, compile_query
from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.question import moment
from gatebook.processors.search.service import TIME_FORMAT, SearchFailed
from gatebook.processors.sinks.connection import Connection, Unreachable

KEEP_ALIVE = "5m"
FIRST_PAGE_DOCUMENTS = 100
MAX_PAGE_DOCUMENTS = 1_000
PAGE_BYTES = 8 * 1024 * 1024
TRANSIENT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
SORT: list[Dsl] = [
    {"@timestamp": {"order": "asc", "format": TIME_FORMAT}},
    {"event.id": {"order": "asc"}},
]


@dataclass(frozen=True, slots=True)
class Stored:
    """One document of the index."""

    id: str
    source: dict[str, Any]


def query_of(wanted: Wanted | Manifest, since: str = "") -> Dsl:
    """What matches: intents, too, unlike in a search, for an archive is all there is. Relative
    times in the query are absolute: each page and each run asks the same. Raises QueryError."""
    bounds = {"gte": since or wanted.since, "lt": wanted.until}
    bounds = {name: text for name, text in bounds.items() if text}
    now = moment(wanted.relative_to) if wanted.relative_to else None
    compiled = compile_query(wanted.query, fields_of(wanted.kind), now)
    within: list[Dsl] = [{"range": {"@timestamp": bounds}}] if bounds else []
    return {"bool": {"filter": [*within, compiled]}}


class View:
    """What was in the index at one moment."""

    def __init__(self, connection: Connection, pit: str) -> None:
        self._connection = connection
        self.pit = pit

    async def count(self, query: Dsl) -> int:
        """How many documents match."""
        body = {"query": query, "size": 0, "track_total_hits": True}
        return int((await self._search(body))["hits"]["total"]["value"])

    async def documents(self, query: Dsl) -> AsyncGenerator[Stored, None]:
        """All that match, in order. A page is about PAGE_BYTES, so memory is bounded."""
        size = FIRST_PAGE_DOCUMENTS
        body: Dsl = {"query": query, "sort": SORT, "track_total_hits": False}
        while True:
            found = await self._search({**body, "size": size})
            hits = found["hits"]["hits"]
            for hit in hits:
                yield Stored(hit["_id"], hit["_source"])
            if len(hits) < size:
                return
            body["search_after"] = hits[-1]["sort"]
            size = next_size(size, sum(_weight(hit["_source"]) for hit in hits))

    async def _search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        view = {"id": self.pit, "keep_alive": KEEP_ALIVE}
        return await ask(self._connection, "/_search", {**body, "pit": view})


def _weight(source: Mapping[str, Any]) -> int:
    """Bytes of a document, roughly: only its long texts count for much."""
    total = 0
    for value in source.values():
        if isinstance(value, Mapping):
            total += _weight(value)
        else:
            total += 24 + (len(value) if isinstance(value, str) else 8)
    return total


def next_size(size: int, page_bytes: int) -> int:
    """How many documents the next page has, by what the last one weighed."""
    fitting = max(1, size * PAGE_BYTES // max(page_bytes, 1))
    return min(fitting, 4 * size, MAX_PAGE_DOCUMENTS)


@asynccontextmanager
async def view_of(connection: Connection, alias: str) -> AsyncIterator[View | None]:
    """A view of an alias, after a refresh; None where there is no such alias yet."""
    await ask(connection, f"/{alias}/_refresh", absent={})
    opened = await ask(connection, f"/{alias}/_pit", absent={}, params={"keep_alive": KEEP_ALIVE})
    if not opened:
        yield None
        return
    view = View(connection, str(opened["id"]))
    try:
        yield view
    finally:
        # If we die here, the server drops the view by itself after KEEP_ALIVE.
        with suppress(Unreachable):
            await connection.request("DELETE", "/_pit", json={"id": view.pit})


async def ask(
    connection: Connection,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    absent: dict[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON of a whole answer; `absent` where there is no such index. A passing refusal is
    tried again; a shard that did not answer is an error, for documents would be left out.
    Raises SearchFailed, Unreachable."""
    for wait_seconds in (*TRANSIENT_WAITS_SECONDS, None):
        answer = await connection.request("POST", path, params=params, json=body)
        if wait_seconds is None or not answer.is_transient:
            break
        await asyncio.sleep(wait_seconds)
    if answer.status == 404 and absent is not None:
        return absent
    whole = isinstance(answer.body, dict) and not answer.body.get("timed_out")
    if answer.status == 200 and whole and not answer.is_transient:
        return dict(answer.body)
    raise SearchFailed(
        f"Elasticsearch did not give all documents ({answer.error_type or answer.status})",
        "see its log, then run the same command again: it goes on from here",
    )
