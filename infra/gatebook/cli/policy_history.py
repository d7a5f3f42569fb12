"""The accesses of the index, grouped by what a capture policy looks at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatebook.processors.sinks.connection import Connection
    from gatebook.producers.policy.compare import Group

PAGE_GROUPS = 1_000
SIZES = {"asked": "http.request.body.bytes", "said": "http.response.body.bytes"}


async def groups(
    connection: Connection, namespace: str, since: str, until: str = ""
) -> AsyncIterator[Group]:
    """Every group since then. A namespace without an index has none. Raises SearchFailed."""
    from gatebook.producers.policy.compare import group_of

    body = _request(since, until)
    while True:
        found = await _ask(connection, namespace, body)
        page = found.get("aggregations", {}).get("groups", {})
        for bucket in page.get("buckets", ()):
            size_bytes = sum(int(bucket[name]["value"] or 0) for name in SIZES)
            (example,) = (hit["_id"] for hit in bucket["example"]["hits"]["hits"])
            yield group_of(bucket["key"], bucket["doc_count"], size_bytes, example)
        if len(page.get("buckets", ())) < PAGE_GROUPS:
            return
        body["aggs"]["groups"]["composite"]["after"] = page["after_key"]


def _request(since: str, until: str) -> dict[str, Any]:
    """Accesses once each: no intents, and no notices of the policy itself."""
    from gatebook.processors.search.times import parse_time
    from gatebook.producers.policy.compare import SOURCES
    from gatebook.producers.policy.notices import CATEGORY
    from gatebook.schemas.intents import INTENT

    now = datetime.now(UTC)
    bounds = {name: parse_time(text, now) for name, text in (("gte", since), ("lt", until)) if text}
    others = [{"term": {"gatebook.phase": INTENT}}, {"term": {"event.category": CATEGORY}}]
    sources = [{n: {"terms": {"field": f, "missing_bucket": True}}} for n, f in SOURCES.items()]
    inner: dict[str, Any] = {name: {"sum": {"field": field}} for name, field in SIZES.items()}
    inner["example"] = {"top_hits": {"size": 1, "_source": False}}
    return {
        "size": 0,
        "query": {"bool": {"filter": [{"range": {"@timestamp": bounds}}], "must_not": others}},
        "aggs": {"groups": {"composite": {"size": PAGE_GROUPS, "sources": sources}, "aggs": inner}},
    }


async def _ask(connection: Connection, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    from gatebook.processors.search.service import SearchFailed

    answer = await connection.request(
        "POST", f"/{namespace}-access/_search", json=body, params={"ignore_unavailable": "true"}
    )
    found = answer.body if isinstance(answer.body, dict) else {}
    if answer.status == 404 and answer.error_type == "index_not_found_exception":
        return {}
    if answer.status != 200 or found.get("_shards", {}).get("failed"):
        label = answer.error_type or f"status {answer.status}"
        raise SearchFailed(f"Elasticsearch could not count ({label})", "try again, or see its log")
    return found
