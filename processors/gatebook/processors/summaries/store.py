"""Where summaries stand: rows in dated indices, and beside them how far they are.

One run works at a time, by a lease. What is written carries a revision that only grows besides:
whoever stood still for longer than its lease is refused by Elasticsearch where it would overwrite
a later row, and ends. (A row that it alone knew of would stay; `check` finds it.)
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from gatebook.processors.search.service import SearchFailed
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries.reading import Dsl, ask, iso, pages
from gatebook.processors.summaries.rows import (
    BY_PRINCIPAL,
    Key,
    Row,
    Rows,
    documents,
    measures,
    read_document,
    read_row,
)
from gatebook.processors.summaries.template import alias, index_of, state_body, state_index
from gatebook.schemas.errors import Fatal, GatebookError

MAX_BULK_BYTES = 4 * 1024 * 1024
LEASE_SECONDS = 120.0
LEASE_POLL_SECONDS = 0.5
MAX_GET = 1_000


class Overtaken(GatebookError):
    """Somebody else works on summaries, or has since we began."""

    next_step = "let it end; then run the same again"


@dataclass(frozen=True, slots=True)
class Noted:
    """A document of the state as it was read."""

    id: str
    source: dict[str, Any]
    version: tuple[int, int]


class SummaryStore:
    """Rows and state of one namespace. Belongs to one event loop. lease_seconds: whoever dies in
    a run keeps others from it so long."""

    def __init__(
        self, client: Connection, namespace: str, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.lease_seconds = lease_seconds
        self._state = state_index(namespace)
        self._made: set[str] = set()

    # -- the state ----------------------------------------------------------------------------

    async def get(self, ids: Iterable[str]) -> dict[str, Noted]:
        """Those of the documents that are there."""
        wanted = list(ids)
        found: dict[str, Noted] = {}
        for first in range(0, len(wanted), MAX_GET):
            part = wanted[first : first + MAX_GET]
            body = {"ids": part}
            answer = await ask(
                self.client, "POST", f"/{self._state}/_mget", absent={"docs": []}, json=body
            )
            for one in answer["docs"]:
                if one.get("found"):
                    version = (one["_seq_no"], one["_primary_term"])
                    found[one["_id"]] = Noted(one["_id"], one["_source"], version)
        return found

    async def find(self, kind: str, *more: Dsl) -> list[Noted]:
        """All documents of a kind, as they stand now."""
        await ask(self.client, "POST", f"/{self._state}/_refresh", absent={})
        if await ask(self.client, "GET", f"/{self._state}/_alias", absent={}) == {}:
            return []
        query = {"bool": {"filter": [{"term": {"type": kind}}, *more]}}
        body = {"query": query, "seq_no_primary_term": True}
        found: list[Noted] = []
        async for hits in pages(self.client, self._state, body):
            found += [
                Noted(h["_id"], h["_source"], (h["_seq_no"], h["_primary_term"])) for h in hits
            ]
        return found

    async def put(
        self, document_id: str, source: Mapping[str, Any], before: Noted | None = None
    ) -> Noted:
        """Write a document; one that was read before, only where it is still the same. Raises
        Overtaken where it is not."""
        await self._make_state()
        params = {}
        if before is not None:
            params = {
                "if_seq_no": str(before.version[0]),
                "if_primary_term": str(before.version[1]),
            }
        answer = await self.client.request(
            "PUT", f"/{self._state}/_doc/{document_id}", params=params, json=source
        )
        if answer.status == 409:
            raise Overtaken("somebody else changed the state of summaries")
        if answer.status not in (200, 201):
            raise SearchFailed(
                f"the state of summaries cannot be written ({answer.error_type or answer.status})",
                "see Elasticsearch's log, then try again",
            )
        version = (answer.body["_seq_no"], answer.body["_primary_term"])
        return Noted(document_id, dict(source), version)

    async def forget(self, ids: Iterable[str]) -> None:
        """Delete documents of the state; those that are not there are gone already."""
        for document_id in ids:
            await ask(self.client, "DELETE", f"/{self._state}/_doc/{document_id}", absent={})

    async def _make_state(self) -> None:
        if self._state not in self._made:
            await self._make(self._state, state_body())

    async def _make(self, index: str, body: Mapping[str, Any]) -> None:
        answer = await self.client.request("PUT", f"/{index}", json=body)
        exists = answer.error_type == "resource_already_exists_exception"
        if answer.error_type == "invalid_index_name_exception":
            # An alias, where retention left of it what is held.
            exists = bool(await ask(self.client, "GET", f"/{index}/_alias", absent={}))
        if answer.status != 200 and not exists:
            raise SearchFailed(
                f"the index {index} cannot be made ({answer.error_type or answer.status})",
                "see Elasticsearch's log, and the privileges of our credentials",
            )
        self._made.add(index)

    # -- one at a time ------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, wait_seconds: float = 0.0) -> AsyncIterator[Lease]:
        """Hold the right to write summaries. Raises Overtaken where somebody else has it and does
        not end in time. Whoever dies with it is waited out."""
        held = Lease(self)
        until = time.monotonic() + wait_seconds
        while not await held.take():
            if time.monotonic() >= until:
                raise Overtaken("another run works on summaries")
            await asyncio.sleep(LEASE_POLL_SECONDS)
        try:
            yield held
        finally:
            await held.release()

    # -- rows ---------------------------------------------------------------------------------

    async def write(
        self,
        grain: str,
        at: datetime,
        rows: Rows,
        revision: int,
        fresh: bool,
        only: str = "",
    ) -> int:
        """Make these the rows of an hour or day; the number of documents. `fresh`: there were
        none before. `only`: leave those alone that are not by this (`summary.by`). If we die
        half-way, its note says that it is not done, and it is done again.
        """
        index = index_of(self.namespace, grain, at)
        if index not in self._made:
            await self._require_template()
            await self._make(index, {})
        every = documents(grain, at, rows)
        found = {i: one for i, one in every.items() if only in ("", one["summary"]["by"])}
        stale = [] if fresh else await self._others(index, grain, at, found, only)
        wanted = {"version": revision, "version_type": "external_gte"}
        lines = [
            orjson.dumps({"index": {"_index": index, "_id": i, **wanted}})
            + b"\n"
            + orjson.dumps(document)
            for i, document in found.items()
        ]
        lines += [orjson.dumps({"delete": {"_index": index, "_id": i, **wanted}}) for i in stale]
        for part in _parts(lines):
            await self._bulk(part)
        return len(found)

    async def _others(
        self, index: str, grain: str, at: datetime, kept: Mapping[str, Any], only: str
    ) -> list[str]:
        """Ids of rows of before that are not among these."""
        await ask(self.client, "POST", f"/{index}/_refresh")
        more = [{"term": {"summary.by": only}}] if only else []
        body = {"query": _bucket(grain, at, *more), "_source": False}
        return [
            hit["_id"]
            async for hits in pages(self.client, index, body)
            for hit in hits
            if hit["_id"] not in kept
        ]

    async def _bulk(self, lines: Sequence[bytes]) -> None:
        body = b"\n".join(lines) + b"\n"
        params = {"filter_path": "errors,items.*.status,items.*.error.type"}
        answer = await ask(self.client, "POST", "/_bulk", params=params, ndjson=body)
        if not answer["errors"]:
            return
        results = [next(iter(item.values())) for item in answer["items"]]
        bad = [r for r in results if r["status"] not in (200, 201, 404)]
        if any(r["status"] == 409 for r in bad):
            raise Overtaken("a later run wrote the same rows")
        if bad:
            label = bad[0].get("error", {}).get("type", bad[0]["status"])
            raise SearchFailed(
                f"rows of a summary were not taken ({label})", "see Elasticsearch's log"
            )

    async def _require_template(self) -> None:
        name = alias(self.namespace)
        if not await ask(self.client, "GET", f"/_index_template/{name}", absent={}):
            raise Fatal(f"the index template {name} is not installed", "run `gatebook setup`")

    async def refresh(self) -> None:
        """Returns when a search finds every row that was written."""
        await ask(self.client, "POST", f"/{alias(self.namespace)}/_refresh", absent={})

    async def read(
        self, grain: str, since: datetime, until: datetime, *more: Dsl, by: str = BY_PRINCIPAL
    ) -> dict[str, Rows]:
        """Rows by the hour or day they are of (as it stands in @timestamp), in [since, until).
        Refresh first to see what was just written."""
        found: dict[str, Rows] = {}
        query = _range(grain, since, until, by, *more)
        async for hits in self.hits(query):
            for hit in hits:
                key, row = read_document(hit["_source"])
                found.setdefault(hit["_source"]["@timestamp"], {})[key] = row
        return found

    async def hits(self, query: Dsl) -> AsyncIterator[list[dict[str, Any]]]:
        """Documents of summaries that match; none where there never were any."""
        name = alias(self.namespace)
        if await ask(self.client, "GET", f"/_alias/{name}", absent={}) == {}:
            return
        async for hits in pages(self.client, name, {"query": query}):
            yield hits


def _bucket(grain: str, at: datetime, *more: Dsl) -> Dsl:
    filters = [{"term": {"summary.grain": grain}}, {"term": {"@timestamp": iso(at)}}, *more]
    return {"bool": {"filter": filters}}


def _range(grain: str, since: datetime, until: datetime, by: str, *more: Dsl) -> Dsl:
    times = {"range": {"@timestamp": {"gte": iso(since), "lt": iso(until)}}}
    terms = [{"term": {"summary.grain": grain}}, {"term": {"summary.by": by}}]
    return {"bool": {"filter": [times, *terms, *more]}}


def _parts(lines: Sequence[bytes]) -> Iterable[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > MAX_BULK_BYTES:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


# --- rows that are carried ---------------------------------------------------------------------


def pack_rows(rows: Rows) -> list[list[Any]]:
    """Rows as they stand in a document of the state."""
    return [[list(key), measures(row)] for key, row in sorted(rows.items())]


def unpack_rows(found: Iterable[Sequence[Any]]) -> Rows:
    """What `pack_rows` gave."""
    return {Key(*key): read_row(row) for key, row in found}


def events_in(rows: Mapping[Key, Row]) -> int:
    """How many events were counted."""
    return sum(row.events for row in rows.values())


class Lease:
    """The right to write summaries, while it is held and renewed."""

    def __init__(self, store: SummaryStore) -> None:
        self._store = store
        self._owner = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._noted: Noted | None = None
        self._renewed = 0.0
        self._renewing = asyncio.Lock()

    async def take(self) -> bool:
        """Whether it is ours now."""
        found = (await self._store.get(["lease"])).get("lease")
        now_ms = int(time.time() * 1000)
        if found is not None and found.source["until_ms"] > now_ms:
            return False
        try:
            if found is None:
                await self._store.put("lease", {"type": "lease", "owner": "", "until_ms": 0})
                found = (await self._store.get(["lease"]))["lease"]
            self._noted = await self._store.put("lease", self._source(), found)
        except Overtaken:
            return False
        self._renewed = time.monotonic()
        return True

    def _source(self) -> dict[str, Any]:
        until_ms = int((time.time() + self._store.lease_seconds) * 1000)
        return {"type": "lease", "owner": self._owner, "until_ms": until_ms}

    async def renew(self) -> None:
        """Call between steps. Raises Overtaken where it was lost."""
        async with self._renewing:  # several steps run side by side
            if time.monotonic() - self._renewed > self._store.lease_seconds / 4:
                self._noted = await self._store.put("lease", self._source(), self._noted)
                self._renewed = time.monotonic()

    async def release(self) -> None:
        """Let others begin at once."""
        try:
            source = {"type": "lease", "owner": "", "until_ms": 0}
            await self._store.put("lease", source, self._noted)
        except GatebookError:
            return  # it is somebody else's, or ends by itself
