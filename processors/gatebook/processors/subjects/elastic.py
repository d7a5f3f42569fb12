"""The store in Elasticsearch: two small indices, to be left out of snapshots.

Keys stand in an index of their own, in which documents are created and deleted, and replaced only
when the wrapping key changes: so it can be seen that what was deleted is off the disk. A snapshot
of `*,-{namespace}-subject-*` has neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.subjects.state import KEY, is_key_id
from gatebook.processors.subjects.store import StoreAway, Stored
from gatebook.schemas.errors import Fatal

INDEX_BODY: dict[str, Any] = {
    "settings": {
        "index": {
            "number_of_shards": 1,
            "auto_expand_replicas": "0-1",
            "hidden": True,
            # Otherwise a few deleted keys would stay in segments that are mostly alive.
            "merge.policy.expunge_deletes_allowed": 0,
        }
    },
    "mappings": {
        "dynamic": False,
        "_meta": {"gatebook": "exclude this index from snapshots"},
        "properties": {
            "type": {"type": "keyword"},
            "tag": {"type": "keyword"},
            "held": {"type": "boolean"},
            "done": {"type": "boolean"},
        },
    },
}
MAX_FOUND = 10_000
PAGE_DOCUMENTS = 1_000
KEEP_ALIVE = "2m"
PURGE_POLL_SECONDS = 1.0
# The server keeps what was deleted for replicas that are away, and asks them every 30 seconds.
PURGE_POLLS = 120


def keys_index(namespace: str) -> str:
    """Name of the index of keys."""
    return f"{namespace}-subject-keys"


def state_index(namespace: str) -> str:
    """Name of the index of states, holds and jobs."""
    return f"{namespace}-subject-state"


class ElasticStore:
    """A SubjectStore. Belongs to one event loop. Closes the connection only if told so."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._keys = keys_index(namespace)
        self._state = state_index(namespace)
        self._made = False

    def _index(self, document_id: str) -> str:
        return self._keys if is_key_id(document_id) else self._state

    async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        wanted = [{"_index": self._index(i), "_id": i} for i in ids]
        if not wanted:
            return {}
        answer = await self._ask("POST", "/_mget", json={"docs": wanted})
        if any("error" in found for found in answer["docs"]):
            self._made = False  # an index was taken away since; the next try makes it again
            raise StoreAway("an index of subjects is gone")
        return {
            found["_id"]: Stored(
                found["_id"], found["_source"], (found["_seq_no"], found["_primary_term"])
            )
            for found in answer["docs"]
            if found.get("found")
        }

    async def create(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
        if not documents:
            return set()
        lines = b"".join(
            orjson.dumps({"create": {"_index": self._index(i), "_id": i}})
            + b"\n"
            + orjson.dumps(source)
            + b"\n"
            for i, source in documents.items()
        )
        answer = await self._ask("POST", "/_bulk", ndjson=lines)
        results = [item["create"] for item in answer["items"]]
        if any(found["status"] not in (201, 409) for found in results):
            raise StoreAway("a document was not taken")
        return {found["_id"] for found in results if found["status"] == 201}

    async def replace(self, document: Stored, source: Mapping[str, Any]) -> bool:
        sequence, term = document.version
        params = {"if_seq_no": str(sequence), "if_primary_term": str(term), "refresh": "true"}
        path = f"/{self._index(document.id)}/_doc/{document.id}"
        answer = await self._ask("PUT", path, params=params, json=source, good=(409,))
        return answer.get("status") != 409

    async def rewrite(self, changed: Sequence[tuple[Stored, Mapping[str, Any]]]) -> set[str]:
        if not changed:
            return set()
        lines = b"".join(self._line(found, source) for found, source in changed)
        answer = await self._ask("POST", "/_bulk", ndjson=lines)
        results = [item["index"] for item in answer["items"]]
        if any(found["status"] not in (200, 409) for found in results):
            raise StoreAway("a document was not taken")
        return {found["_id"] for found in results if found["status"] == 200}

    def _line(self, found: Stored, source: Mapping[str, Any]) -> bytes:
        """Takes effect only where the document is still the one that was read: one that was
        deleted since stays so."""
        action = {
            "_index": self._index(found.id),
            "_id": found.id,
            "if_seq_no": found.version[0],
            "if_primary_term": found.version[1],
        }
        return orjson.dumps({"index": action}) + b"\n" + orjson.dumps(source) + b"\n"

    async def delete(self, ids: Iterable[str]) -> None:
        for document_id in ids:
            path = f"/{self._index(document_id)}/_doc/{document_id}"
            await self._ask("DELETE", path, params={"refresh": "true"}, good=(404,))

    async def purge(self) -> None:
        for _ in range(PURGE_POLLS):
            if await expunged(self._ask, self._keys):
                return
            await asyncio.sleep(PURGE_POLL_SECONDS)
        raise StoreAway("deleted keys are still in the segments of their index")

    async def find(self, kind: str, **equal: Any) -> list[Stored]:
        index = self._keys if kind == KEY else self._state
        await self._ask("POST", f"/{index}/_refresh")
        terms = [{"term": {name: value}} for name, value in {"type": kind, **equal}.items()]
        body = {
            "query": {"bool": {"filter": terms}},
            "size": MAX_FOUND,
            "seq_no_primary_term": True,
        }
        answer = await self._ask("POST", f"/{index}/_search", json=body)
        if answer["_shards"]["failed"]:
            raise StoreAway("a shard did not answer")
        return [_stored(hit) for hit in answer["hits"]["hits"]]

    async def pages(self, kind: str) -> AsyncIterator[list[Stored]]:
        index = self._keys if kind == KEY else self._state
        await self._ask("POST", f"/{index}/_refresh")
        opened = await self._ask("POST", f"/{index}/_pit", params={"keep_alive": KEEP_ALIVE})
        body: dict[str, Any] = {
            "query": {"term": {"type": kind}},
            "size": PAGE_DOCUMENTS,
            "pit": {"id": opened["id"], "keep_alive": KEEP_ALIVE},
            "sort": [{"tag": "asc"}],
            "seq_no_primary_term": True,
        }
        try:
            while True:
                answer = await self._ask("POST", "/_search", json=body)
                if answer["_shards"]["failed"]:
                    raise StoreAway("a shard did not answer")
                hits = answer["hits"]["hits"]
                if not hits:
                    return
                yield [_stored(hit) for hit in hits]
                body["search_after"] = hits[-1]["sort"]
        finally:
            # If we die here, the server drops the view by itself after KEEP_ALIVE.
            with suppress(Unreachable):
                await self._connection.request("DELETE", "/_pit", json={"id": opened["id"]})

    async def close(self) -> None:
        await self._connection.close()

    async def _ask(
        self, method: str, path: str, *, good: tuple[int, ...] = (), **given: Any
    ) -> dict[str, Any]:
        """The JSON of an answer with 200 or 201, or with a status of `good`, which stands in it
        as `status` then."""
        try:
            if not self._made:
                await self._make_indices()
            answer = await self._connection.request(method, path, **given)
        except Unreachable as error:
            raise StoreAway(str(error)) from None
        if answer.status in (200, 201) and isinstance(answer.body, dict):
            return answer.body
        if answer.error_type == "index_not_found_exception":
            self._made = False
            raise StoreAway("an index of subjects is gone")
        if answer.status in good:
            return {**(answer.body or {}), "status": answer.status}
        raise _trouble(answer)

    async def _make_indices(self) -> None:
        for index in (self._keys, self._state):
            answer = await self._connection.request("PUT", f"/{index}", json=INDEX_BODY)
            exists = answer.error_type == "resource_already_exists_exception"
            if answer.status != 200 and not exists:
                raise _trouble(answer)
        self._made = True


def _stored(hit: Mapping[str, Any]) -> Stored:
    return Stored(hit["_id"], hit["_source"], (hit["_seq_no"], hit["_primary_term"]))


async def expunged(ask: Callable[..., Awaitable[Any]], index: str) -> bool:
    """Merge away what was deleted in an index; whether nothing of it is left in its segments."""
    await ask("POST", f"/{index}/_forcemerge", params={"only_expunge_deletes": "true"})
    await ask("POST", f"/{index}/_flush", params={"force": "true"})
    await ask("POST", f"/{index}/_refresh")
    answer = await ask("GET", f"/{index}/_stats/docs")
    return not answer["_all"]["total"]["docs"].get("deleted", 0)


def _trouble(answer: Answer) -> Exception:
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        return Fatal(
            "Elasticsearch refuses our credentials for the index of subjects' keys",
            "check GATEBOOK_ELASTICSEARCH_API_KEY (all of intake, index and operators need it)",
        )
    return StoreAway(answer.error_type or f"status {answer.status}")
