"""What the service keeps: tokens, sessions, saved searches. One small index, `{ns}-console-state`.

Read by id each time it is asked, which Elasticsearch answers from its log, not from what was
refreshed: what was revoked a moment ago, by whatever process, is revoked. There is no copy here
that could be older, so while Elasticsearch is away nobody is let in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.schemas.errors import Fatal, GatebookError

INDEX_BODY: dict[str, Any] = {
    "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}},
    "mappings": {
        "dynamic": False,
        "properties": {
            "type": {"type": "keyword"},
            "name": {"type": "keyword"},
            "owner": {"type": "keyword"},
            "short_id": {"type": "keyword"},
            "created_at": {"type": "double"},
            "expires_at": {"type": "double"},
        },
    },
}
MAX_FOUND = 10_000


class StateAway(GatebookError):
    """The state cannot be read or written now. Whatever depends on it is refused."""

    exit_code = 3
    next_step = "see that Elasticsearch runs (`gatebook doctor`), then try again"


@dataclass(frozen=True, slots=True)
class Kept:
    """One document, and the version by which a change of it can be refused."""

    id: str
    source: dict[str, Any]
    version: tuple[int, int]


def console_state_index(namespace: str) -> str:
    """Name of the index."""
    return f"{namespace}-console-state"


class ConsoleState:
    """The documents of the index. Raises StateAway, and Fatal for credentials that are refused."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._index = console_state_index(namespace)

    async def get(self, document_id: str) -> Kept | None:
        """A document as it is now; None where there is none, or no index yet."""
        answer = await self._request("GET", f"/{self._index}/_doc/{document_id}")
        if answer.status == 404:
            return None
        body = _good(answer)
        return Kept(document_id, body["_source"], (body["_seq_no"], body["_primary_term"]))

    async def create(self, document_id: str, source: Mapping[str, Any]) -> bool:
        """Write a new document; False where its id is taken."""
        await self._make_index()
        answer = await self._request(
            "PUT",
            f"/{self._index}/_create/{document_id}",
            params={"refresh": "true"},
            json=dict(source),
        )
        if answer.status == 409:
            return False
        _good(answer)
        return True

    async def replace(self, kept: Kept, source: Mapping[str, Any], refresh: bool = True) -> bool:
        """Write a document anew; False where somebody else changed or deleted it meanwhile."""
        sequence, term = kept.version
        params = {"if_seq_no": str(sequence), "if_primary_term": str(term)}
        if refresh:
            params["refresh"] = "true"
        path = f"/{self._index}/_doc/{kept.id}"
        answer = await self._request("PUT", path, params=params, json=dict(source))
        if answer.status == 409:
            return False
        _good(answer)
        return True

    async def delete(self, document_id: str) -> None:
        """Delete a document, if it is there."""
        path = f"/{self._index}/_doc/{document_id}"
        answer = await self._request("DELETE", path, params={"refresh": "true"})
        if answer.status != 404:
            _good(answer)

    async def find(self, kind: str, **equal: Any) -> list[Kept]:
        """All documents of a type, newest first."""
        await self._make_index()
        _good(await self._request("POST", f"/{self._index}/_refresh"))
        terms = [{"term": {name: value}} for name, value in {"type": kind, **equal}.items()]
        return await self._search({"bool": {"filter": terms}})

    async def expired(self, kind: str, before: float) -> list[Kept]:
        """Documents of a type whose expires_at is over."""
        await self._make_index()
        over = {"range": {"expires_at": {"lt": before}}}
        return await self._search({"bool": {"filter": [{"term": {"type": kind}}, over]}})

    async def _search(self, query: dict[str, Any]) -> list[Kept]:
        body = {
            "query": query,
            "size": MAX_FOUND,
            "seq_no_primary_term": True,
            "sort": [{"created_at": {"order": "desc", "missing": "_last"}}],
        }
        found = _good(await self._request("POST", f"/{self._index}/_search", json=body))
        if found["_shards"]["failed"]:
            raise StateAway("a shard did not answer")
        return [
            Kept(hit["_id"], hit["_source"], (hit["_seq_no"], hit["_primary_term"]))
            for hit in found["hits"]["hits"]
        ]

    async def _make_index(self) -> None:
        """Each time: the index may have been taken away since."""
        answer = await self._request("PUT", f"/{self._index}", json=INDEX_BODY)
        if answer.error_type != "resource_already_exists_exception":
            _good(answer)

    async def _request(self, method: str, path: str, **given: Any) -> Answer:
        try:
            return await self._connection.request(method, path, **given)
        except Unreachable as error:
            raise StateAway(f"Elasticsearch does not answer ({error})") from None


def _good(answer: Answer) -> dict[str, Any]:
    if answer.status in (200, 201) and isinstance(answer.body, dict):
        return answer.body
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        raise Fatal(
            "Elasticsearch refuses our credentials for the console's state",
            "check GATEBOOK_ELASTICSEARCH_API_KEY",
        )
    raise StateAway(f"Elasticsearch refuses it ({answer.error_type or answer.status})")
