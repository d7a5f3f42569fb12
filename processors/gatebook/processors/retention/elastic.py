"""What retention asks of Elasticsearch, by core APIs alone. Every call may raise Away, Fatal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gatebook.processors.retention.rows import SUMMARY_KINDS, parse_rows
from gatebook.processors.sinks.codec import CODEC, has_best_compression
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.sinks.gates import retention_index
from gatebook.processors.sinks.slots import GROUP_FIELDS, Group, IndexName, parse_index
from gatebook.schemas.errors import Fatal, GatebookError

Dsl = dict[str, Any]
KEEP_ALIVE = "5m"
PAGE_DOCUMENTS = 500
WRITE_BYTES = 4 * 1024 * 1024
MERGE_POLL_SECONDS = 0.2
MERGE_POLLS = 18_000  # an hour; an index that is not merged by then is only slower
PAGE_GROUPS = 1_000
TRANSIENT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SNAPSHOT_POLL_SECONDS = 0.5
WRITE_BLOCK = "index.blocks.write"


class Away(GatebookError):
    """Elasticsearch gave no usable answer. It may have been carried out: the same run, started
    again, finds out."""

    exit_code = 3
    next_step = "see that Elasticsearch runs and is green, then run the same command again"


@dataclass(frozen=True, slots=True)
class Found:
    """One stored document."""

    id: str
    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index as it is. documents and bytes: of its primaries."""

    name: IndexName
    documents: int
    bytes: int
    segments: int
    codec: str
    is_blocked: bool


class Cluster:
    """Typed requests to one cluster. Belongs to one event loop."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # -- looking ------------------------------------------------------------------------------

    async def indices(self, kind: str) -> list[IndexState]:
        """The dated indices of a kind, or those of summaries, oldest day first; aliases do not
        count."""
        pattern = f"{self.namespace}-{kind}-*"
        settings = await self.ask("GET", f"/{pattern}/_settings", params={"flat_settings": "true"})
        parse = parse_rows if kind in SUMMARY_KINDS else parse_index
        names = [name for one in settings if (name := parse(self.namespace, kind, one))]
        if not names:
            return []
        # Counts are those of what searches find: what came in last has to be found, too.
        await self.ask("POST", f"/{pattern}/_refresh")
        stats = await self.ask("GET", f"/{pattern}/_stats/docs,store,segments")
        found = [
            _state(name, stats["indices"].get(name.name, {}), settings[name.name]["settings"])
            for name in names
        ]
        return sorted(found, key=lambda one: (one.name.day, one.name.part, one.name.name))

    async def exists(self, index: str) -> bool:
        """Whether there is a concrete index of this name; an alias does not count."""
        found = await self.ask("GET", f"/{index}/_alias", absent={})
        return index in found

    async def count(self, index: str, query: Dsl) -> int:
        """Documents that match."""
        found = await self.ask("POST", f"/{index}/_count", json={"query": query})
        return int(found["count"])

    async def groups(self, index: str, query: Dsl) -> dict[Group, int]:
        """How many documents of each group match."""
        sources = [
            {name: {"terms": {"field": field, "missing_bucket": True}}}
            for name, field in GROUP_FIELDS
        ]
        composite: Dsl = {"size": PAGE_GROUPS, "sources": sources}
        body = {"size": 0, "query": query, "aggs": {"groups": {"composite": composite}}}
        counts: dict[Group, int] = {}
        while True:
            answer = await self.ask("POST", f"/{index}/_search", json=body)
            found = answer["aggregations"]["groups"]
            for bucket in found["buckets"]:
                group = tuple(bucket["key"][name] or "" for name, _ in GROUP_FIELDS)
                counts[group] = counts.get(group, 0) + bucket["doc_count"]
            if "after_key" not in found:
                return counts
            composite["after"] = found["after_key"]

    async def scan(
        self, index: str, query: Dsl, source: bool | Sequence[str] = True
    ) -> AsyncIterator[list[Found]]:
        """Pages of documents that match, as of one moment; in no order."""
        path, params = f"/{index}/_pit", {"keep_alive": KEEP_ALIVE}
        pit = str((await self.ask("POST", path, params=params))["id"])
        body: Dsl = {
            "query": query,
            "size": PAGE_DOCUMENTS,
            "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
            "sort": [{"_shard_doc": "asc"}],
            "track_total_hits": False,
            "_source": source if isinstance(source, bool) else list(source),
        }
        try:
            while True:
                hits = (await self.ask("POST", "/_search", json=body))["hits"]["hits"]
                if hits:
                    yield [Found(hit["_id"], hit["_source"]) for hit in hits]
                if len(hits) < PAGE_DOCUMENTS:
                    return
                body["search_after"] = hits[-1]["sort"]
        finally:
            # If we die here, the server drops the view by itself after KEEP_ALIVE.
            await self._quietly("DELETE", "/_pit", json={"id": pit})

    async def newest(self, index: str) -> str:
        """The latest @timestamp in an index, as ISO 8601; "" where it is empty."""
        body: Dsl = {"size": 1, "sort": [{"@timestamp": "desc"}], "_source": ["@timestamp"]}
        hits = (await self.ask("POST", f"/{index}/_search", json=body))["hits"]["hits"]
        return str(hits[0]["_source"]["@timestamp"]) if hits else ""

    async def disk(self) -> tuple[int, int]:
        """Bytes used and bytes there are, of the data node that is fullest."""
        found = await self.ask("GET", "/_nodes/stats/fs")
        nodes = [node["fs"]["total"] for node in found["nodes"].values() if "fs" in node]
        totals = [(one["total_in_bytes"], one["available_in_bytes"]) for one in nodes]
        total, available = min(totals, key=lambda pair: pair[1] / max(1, pair[0]))
        return total - available, total

    # -- changing -----------------------------------------------------------------------------

    async def refresh(self, index: str) -> None:
        """Returns when searches find all that was written."""
        await self.ask("POST", f"/{index}/_refresh")

    async def block(self, index: str) -> None:
        """Returns when no write is under way and none is let in. Sinks wait meanwhile."""
        await self.ask("PUT", f"/{index}/_block/write")

    async def unblock(self, index: str) -> None:
        """Let writes in again; nothing where the index is gone."""
        await self.ask("PUT", f"/{index}/_settings", absent={}, json={WRITE_BLOCK: None})

    async def create(self, index: str, like: str, codec: str = "") -> None:
        """An index with the template's fields, behind no alias, with the shards of `like`."""
        before = await self.ask("GET", f"/{like}/_settings", params={"flat_settings": "true"})
        settings = before[next(iter(before))]["settings"]
        wanted: dict[str, Any] = {"index.number_of_shards": settings["index.number_of_shards"]}
        wanted["index.number_of_replicas"] = settings["index.number_of_replicas"]
        if codec:
            wanted[CODEC] = codec
        mappings = (await self.ask("GET", f"/{like}/_mapping"))[next(iter(before))]["mappings"]
        await self.ask("PUT", f"/{index}", json={"settings": wanted, "mappings": mappings})
        # If we die here, an empty index is behind the alias: nobody sees a difference.
        made = (await self.ask("GET", f"/{index}/_alias"))[index]["aliases"]
        if made:
            actions = [{"remove": {"index": index, "alias": alias}} for alias in made]
            await self.ask("POST", "/_aliases", json={"actions": actions})

    async def delete(self, index: str) -> None:
        """Delete a concrete index; nothing where there is none."""
        await self.ask("DELETE", f"/{index}", absent={}, params={"ignore_unavailable": "true"})

    async def write(self, index: str, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Put documents under their ids; they survive a crash of the store."""
        lines: list[bytes] = []
        size = 0
        for document_id, source in documents:
            body = orjson.dumps(source, option=orjson.OPT_SORT_KEYS)
            lines += (orjson.dumps({"index": {"_id": document_id}}), body)
            size += len(body)
            if size >= WRITE_BYTES:
                await self._bulk(index, lines)
                lines, size = [], 0
        if lines:
            await self._bulk(index, lines)

    async def _bulk(self, index: str, parts: Sequence[bytes]) -> None:
        lines = b"\n".join((*parts, b""))
        for wait_seconds in (*TRANSIENT_WAITS_SECONDS, None):
            answer = await self.ask("POST", f"/{index}/_bulk", ndjson=lines)
            refused = [i["index"] for i in answer["items"] if i["index"]["status"] >= 300]
            if not refused:
                return
            if wait_seconds is None or refused[0]["status"] not in (429, 503):
                kind = refused[0].get("error", {}).get("type", refused[0]["status"])
                raise Away(f"{len(refused)} documents were not taken ({kind})")
            await asyncio.sleep(wait_seconds)

    async def swap(self, leaving: str, coming: str, aliases: Sequence[str], ticket: str) -> None:
        """In one step: the ticket is given back, `leaving` is deleted, `coming` (where there is
        one) stands behind these aliases. A search sees all of the one or all of the other. Raises
        Away, and nothing is changed, where somebody cancelled the ticket meanwhile."""
        add = [{"add": {"index": coming, "alias": alias}} for alias in aliases if coming]
        given = {"index": retention_index(self.namespace), "alias": ticket, "must_exist": True}
        actions = [{"remove": given}, {"remove_index": {"index": leaving}}, *add]
        await self.ask("POST", "/_aliases", json={"actions": actions})

    async def new_ticket(self) -> str:
        """The right to swap, and nobody else has it from here on. It is an alias of the state's
        index: whoever takes it away is sure that no swap is carried out any more."""
        await self.cancel_tickets()
        ticket = f"{self.namespace}-retention-ticket-{uuid.uuid4().hex}"
        add = {"add": {"index": retention_index(self.namespace), "alias": ticket}}
        await self.ask("POST", "/_aliases", json={"actions": [add]})
        return ticket

    async def cancel_tickets(self) -> None:
        """From here on no swap is carried out that was prepared before."""
        index = retention_index(self.namespace)
        found = await self.ask("GET", f"/{index}/_alias", absent={})
        aliases = found.get(index, {}).get("aliases", {})
        actions = [{"remove": {"index": index, "alias": one}} for one in aliases]
        # One that was given back meanwhile is gone, too.
        if actions:
            await self.ask("POST", "/_aliases", absent={}, json={"actions": actions})

    async def merge(self, index: str) -> None:
        """Returns when an index is one segment, however long that takes."""
        params = {"max_num_segments": "1", "wait_for_completion": "false"}
        await self.ask("POST", f"/{index}/_forcemerge", params=params)
        for _ in range(MERGE_POLLS):
            await self.refresh(index)
            found = await self.ask("GET", f"/{index}/_stats/segments")
            primaries = found["_all"]["primaries"]
            if primaries["segments"]["count"] <= found["_shards"]["total"]:
                break
            await asyncio.sleep(MERGE_POLL_SECONDS)
        await self.ask("POST", f"/{index}/_flush", params={"force": "true"})

    async def is_blocked(self, index: str) -> bool:
        """Whether no write is let in."""
        path, params = f"/{index}/_settings", {"flat_settings": "true"}
        found = await self.ask("GET", path, params=params)
        return bool(found[index]["settings"].get(WRITE_BLOCK) == "true")

    async def has_best_compression(self) -> bool:
        """Whether indices can have that codec here; see sinks.codec. False where none answers."""
        try:
            return await has_best_compression(self.connection, self.namespace)
        except Unreachable:
            return False

    # -- snapshots ----------------------------------------------------------------------------

    async def snapshot(self, repository: str, name: str, index: str) -> dict[str, Any]:
        """Returns when a snapshot of one index is complete; the one there is of this name, where
        it is complete. One that failed is deleted and taken anew."""
        path = f"/_snapshot/{repository}/{name}"
        while True:
            found = (await self.ask("GET", path, absent={})).get("snapshots", [])
            state = found[0]["state"] if found else ""
            if state == "SUCCESS":
                told = found[0]
                return {"repository": repository, "snapshot": name, "indices": told["indices"]}
            if state in ("FAILED", "PARTIAL", "INCOMPATIBLE"):
                await self.ask("DELETE", path)
            elif not state:
                body = {"indices": index, "include_global_state": False, "partial": False}
                await self.ask("PUT", path, json=body)
            await asyncio.sleep(SNAPSHOT_POLL_SECONDS)

    async def check_repository(self, repository: str) -> None:
        """Raises Fatal where there is no such repository."""
        if not await self.ask("GET", f"/_snapshot/{repository}", absent={}):
            raise Fatal(
                f"there is no snapshot repository {repository!a}",
                f"register it: PUT /_snapshot/{repository}; nothing is deleted before",
            )

    async def in_snapshots(self, repository: str) -> set[str]:
        """Indices that complete snapshots of a repository hold."""
        found = await self.ask("GET", f"/_snapshot/{repository}/_all", absent={})
        done = [one for one in found.get("snapshots", []) if one["state"] == "SUCCESS"]
        return {index for one in done for index in one["indices"]}

    # -- asking -------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, *, absent: Any = None, **given: Any) -> Any:
        """The JSON of a good answer; `absent` where there is no such thing. Tries a few times
        where shards are not ready. A shard that failed makes the whole answer bad."""
        for wait_seconds in (*TRANSIENT_WAITS_SECONDS, None):
            try:
                answer = await self.connection.request(method, path, **given)
            except Unreachable as error:
                where = self.connection.address
                raise Away(f"Elasticsearch does not answer at {where} ({error})") from None
            if wait_seconds is None or not answer.is_transient:
                break
            await asyncio.sleep(wait_seconds)
        if absent is not None and answer.status == 404:
            return absent
        return good(answer)

    async def _quietly(self, method: str, path: str, **given: Any) -> None:
        try:
            await self.connection.request(method, path, **given)
        except Unreachable:
            return


def good(answer: Answer) -> Any:
    """The body of an answer that says all went well. Raises Away, Fatal."""
    if answer.status in (200, 201) and not answer.is_transient:
        return answer.body
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        raise Fatal(
            "Elasticsearch refuses our credentials",
            "check GATEBOOK_ELASTICSEARCH_API_KEY and its privileges (manage, read, write on the "
            "namespace's indices, create_snapshot)",
        )
    raise Away(answer.error_type or f"status {answer.status}")


def _state(name: IndexName, stats: Mapping[str, Any], settings: Mapping[str, str]) -> IndexState:
    primaries = stats.get("primaries", {})
    return IndexState(
        name,
        int(primaries.get("docs", {}).get("count", 0)),
        int(primaries.get("store", {}).get("size_in_bytes", 0)),
        int(primaries.get("segments", {}).get("count", 0)),
        str(settings.get(CODEC, "default")),
        settings.get(WRITE_BLOCK) == "true",
    )
