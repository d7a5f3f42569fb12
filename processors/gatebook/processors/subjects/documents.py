"""A subject's documents in the dated indices: all of them, as of one moment, and stripped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.subjects.elastic import PURGE_POLL_SECONDS, PURGE_POLLS, expunged
from gatebook.processors.subjects.store import StoreAway
from gatebook.schemas.errors import Fatal

PAGE_DOCUMENTS = 500
KEEP_ALIVE = "2m"
KIND = "access"
MAX_TENANTS = 1_000
TRANSIENT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
Dsl = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Person:
    """How a subject is found. `user_ids` are the forms the id has in documents of before there
    were tags: plain, and masked by the redactor."""

    tag: str
    tenant: str = ""
    user_ids: tuple[str, ...] = ()

    def query(self) -> Dsl:
        """Documents by tag, and untagged ones by user id within the tenant."""
        tagged: Dsl = {"term": {"gatebook.subject": {"value": self.tag}}}
        if not self.user_ids:
            return tagged
        untagged: Dsl = {
            "bool": {
                "filter": [{"terms": {"user.id": list(self.user_ids)}}],
                "must_not": [{"exists": {"field": "gatebook.subject"}}],
            }
        }
        tenant: Dsl = {"term": {"organization.id": {"value": self.tenant}}}
        nobody: Dsl = {"exists": {"field": "organization.id"}}
        where, what = ("filter", tenant) if self.tenant else ("must_not", nobody)
        untagged["bool"].setdefault(where, []).append(what)
        return {"bool": {"should": [tagged, untagged], "minimum_should_match": 1}}


@dataclass(frozen=True, slots=True)
class Found:
    """One stored document. `version` tells whether it has changed since."""

    index: str
    id: str
    source: dict[str, Any]
    version: tuple[int, int]


@dataclass
class Rewritten:
    """What one bulk request did."""

    done: int = 0
    conflicts: int = 0
    refused: list[str] = field(default_factory=list)


class Documents:
    """Reads and rewrites access documents of one namespace. Every call may raise StoreAway.
    `restored`: those that came back from archives as well; a document may then be there twice."""

    def __init__(self, connection: Connection, namespace: str, restored: bool = False) -> None:
        self._connection = connection
        self._alias = f"{namespace}-{KIND}"
        self._given: dict[str, str] = {}
        if restored:
            self._alias += f",{namespace}-restored-{KIND}"
            self._given = {"ignore_unavailable": "true"}  # most have never restored anything

    async def refresh(self) -> None:
        """Returns when a scan finds all that was indexed before."""
        await self._ask("POST", f"/{self._alias}/_refresh", absent={}, params=self._given)

    async def scan(self, query: Dsl, source: bool | Sequence[str] = True) -> AsyncIterator[Found]:
        """Documents that match, over all dated indices, as of one moment."""
        given = {"keep_alive": KEEP_ALIVE, **self._given}
        opened = await self._ask("POST", f"/{self._alias}/_pit", absent={}, params=given)
        if not opened:
            return  # nothing was ever indexed
        try:
            async for hit in self._pages(str(opened["id"]), query, source):
                yield hit
        finally:
            # If we die here, the server drops the view by itself after KEEP_ALIVE.
            await self._close(str(opened["id"]))

    async def count(self, query: Dsl) -> int:
        """How many documents match. Returns 0 where nothing was ever indexed."""
        path, body = f"/{self._alias}/_count", {"query": query}
        answer = await self._ask("POST", path, absent={}, params=self._given, json=body)
        return int(answer.get("count", 0))

    async def tenants(self, query: Dsl | None = None) -> list[str]:
        """Tenants of the documents that match, of all without a query; an empty text stands for
        none. At most MAX_TENANTS, those with most documents."""
        terms = {"field": "organization.id", "missing": "", "size": MAX_TENANTS}
        body: Dsl = {"size": 0, "aggs": {"tenants": {"terms": terms}}}
        if query is not None:
            body["query"] = query
        path = f"/{self._alias}/_search"
        answer = await self._ask("POST", path, absent={}, params=self._given, json=body)
        found = answer.get("aggregations", {}).get("tenants", {}).get("buckets", [])
        return [str(bucket["key"]) for bucket in found]

    async def _pages(
        self, pit: str, query: Dsl, source: bool | Sequence[str]
    ) -> AsyncIterator[Found]:
        body: Dsl = {
            "query": query,
            "size": PAGE_DOCUMENTS,
            "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
            "sort": [{"@timestamp": "asc"}, {"event.id": "asc"}],
            "seq_no_primary_term": True,
            "_source": source if isinstance(source, bool) else list(source),
        }
        while True:
            hits = (await self._ask("POST", "/_search", json=body))["hits"]["hits"]
            for hit in hits:
                version = (hit["_seq_no"], hit["_primary_term"])
                yield Found(hit["_index"], hit["_id"], hit["_source"], version)
            if len(hits) < PAGE_DOCUMENTS:
                return
            body["search_after"] = hits[-1]["sort"]

    async def _close(self, pit: str) -> None:
        try:
            await self._connection.request("DELETE", "/_pit", json={"id": pit})
        except Unreachable:
            return  # it ends by itself

    async def rewrite(self, changed: Sequence[tuple[Found, Mapping[str, Any]]]) -> Rewritten:
        """Put these sources in place of documents that have not changed since they were read."""
        if not changed:
            return Rewritten()
        lines = b"".join(_lines(found, source) for found, source in changed)
        answer = await self._ask("POST", "/_bulk", ndjson=lines)
        outcome = Rewritten()
        for item in answer["items"]:
            result = item["index"]
            if result["status"] in (200, 201):
                outcome.done += 1
            elif result["status"] == 409:
                outcome.conflicts += 1
            else:
                kind = str(result.get("error", {}).get("type", result["status"]))
                outcome.refused.append(f"{result['_index']}: {kind}")
        return outcome

    async def expunge(self, indices: Sequence[str]) -> None:
        """Returns when what was overwritten in these indices is out of their segments, which
        costs a merge of each. Says nothing of snapshots. Raises StoreAway where it stays."""
        setting = "index.merge.policy.expunge_deletes_allowed"
        left = await self._there(indices)
        for index in left:
            await self._ask("PUT", f"/{index}/_settings", absent={}, json={setting: 0})
        try:
            for _ in range(PURGE_POLLS):
                left = [index for index in left if not await expunged(self._ask, index)]
                if not left:
                    return
                await asyncio.sleep(PURGE_POLL_SECONDS)
                left = await self._there(left)
            raise StoreAway(f"overwritten documents are still in segments of {left[0]}")
        finally:
            # If we die before this, the index merges a little more eagerly from now on.
            for index in await self._there(indices):
                await self._ask("PUT", f"/{index}/_settings", absent={}, json={setting: None})

    async def _there(self, indices: Sequence[str]) -> list[str]:
        """Those that are not gone: retention may have rewritten one meanwhile, and what it wrote
        never held what was overwritten."""
        found = []
        for index in indices:
            if await self._ask("GET", f"/{index}/_alias", absent={}):
                found.append(index)
        return found

    async def snapshots(self) -> list[dict[str, Any]]:
        """Every snapshot in every repository: repository, name, indices, time in ms."""
        repositories = await self._ask("GET", "/_snapshot")
        listed = []
        for name in repositories:
            answer = await self._ask("GET", f"/_snapshot/{name}/_all")
            listed += [
                {
                    "repository": name,
                    "snapshot": found["snapshot"],
                    "indices": found.get("indices", []),
                    "taken_ms": found.get("start_time_in_millis", 0),
                }
                for found in answer.get("snapshots", [])
            ]
        return listed

    async def _ask(self, method: str, path: str, *, absent: Any = None, **given: Any) -> Any:
        """The JSON of a good answer; `absent` where there is no such index. Tries a few times
        where shards are not ready."""
        for wait_seconds in (*TRANSIENT_WAITS_SECONDS, None):
            try:
                answer = await self._connection.request(method, path, **given)
            except Unreachable as error:
                raise StoreAway(str(error)) from None
            if wait_seconds is None or not answer.is_transient:
                break
            await asyncio.sleep(wait_seconds)
        if absent is not None and answer.status == 404:
            return absent
        return _good(answer)


def _lines(found: Found, source: Mapping[str, Any]) -> bytes:
    action = {
        "_index": found.index,
        "_id": found.id,
        "if_seq_no": found.version[0],
        "if_primary_term": found.version[1],
    }
    body = orjson.dumps(source, option=orjson.OPT_SORT_KEYS)
    return orjson.dumps({"index": action}) + b"\n" + body + b"\n"


def _good(answer: Answer) -> dict[str, Any]:
    if answer.status == 200 and isinstance(answer.body, dict) and not answer.is_transient:
        return answer.body
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        raise Fatal(
            "Elasticsearch refuses our credentials",
            "check GATEBOOK_ELASTICSEARCH_API_KEY and its privileges on the access indices",
        )
    raise StoreAway(answer.error_type or f"status {answer.status}")
