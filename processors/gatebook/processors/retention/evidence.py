"""Which events findings cite: those are spared when a day is thinned out.

Findings are asked, not events: of low-value traffic there are many events, and few findings of
after its day. Whatever finding a search still finds counts; once it goes, what it cited goes the
way of the others with the next run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

from gatebook.processors.retention.elastic import Cluster, Dsl
from gatebook.processors.retention.policy import Due
from gatebook.processors.sinks.slots import GROUP_FIELDS, INTENT_SUFFIX, Group, group_of, is_sampled

FINDING = "finding"
EVIDENCE = "gatebook.evidence"
PAGE_CITED = 1_000
# A finding says when it was made, by the clock of who made it.
SLACK = timedelta(days=1)
NEEDED = ("event.id", "trace.id", *(path for _, path in GROUP_FIELDS))


class Cited:
    """Events of one index that findings cite, and that no hold keeps."""

    def __init__(self, groups: dict[str, Group], sampled: dict[str, dict[str, Any]]) -> None:
        self._groups = groups
        self._sources = sampled
        self.ids = frozenset(groups)

    def spared(self, due: Callable[[Group], Due], label: Callable[[Group], str]) -> Counter[str]:
        """How many of them stay because they are cited, by what thins out the others."""
        found: Counter[str] = Counter()
        for document_id, group in self._groups.items():
            keep_one_in = due(group).keep_one_in
            if keep_one_in > 1 and not is_sampled(self._sources[document_id], keep_one_in):
                found[label(group)] += 1
        return found


NONE_CITED = Cited({}, {})


async def cited_in(cluster: Cluster, index: str, day: str, free: Dsl) -> Cited:
    """Events in an index of a day `YYYY.MM.DD` that findings cite, out of those that `free`
    matches. Of an access that has an intent both count. Raises Away."""
    groups: dict[str, Group] = {}
    sources: dict[str, dict[str, Any]] = {}
    async for names in _evidence(cluster, day):
        wanted = {one.removesuffix(INTENT_SUFFIX) for one in names}
        ids = [*wanted, *(one + INTENT_SUFFIX for one in wanted)]
        query = {"bool": {"filter": [{"ids": {"values": ids}}, free]}}
        async for page in cluster.scan(index, query, NEEDED):
            for one in page:
                groups[one.id], sources[one.id] = group_of(one.source), one.source
    return Cited(groups, sources)


async def _evidence(cluster: Cluster, day: str) -> AsyncIterator[list[str]]:
    """Ids that findings cite of this day or a later one."""
    alias = f"{cluster.namespace}-{FINDING}"
    await cluster.ask("POST", f"/{alias}/_refresh", absent={})
    since = (datetime.strptime(day, "%Y.%m.%d") - SLACK).isoformat() + "Z"
    composite: Dsl = {
        "size": PAGE_CITED,
        "sources": [{"id": {"terms": {"field": EVIDENCE}}}],
    }
    body: Dsl = {
        "size": 0,
        "query": {"range": {"@timestamp": {"gte": since}}},
        "aggs": {"cited": {"composite": composite}},
    }
    while True:
        found = await cluster.ask("POST", f"/{alias}/_search", absent={}, json=body)
        if not found:
            return  # there never was a finding
        cited = found["aggregations"]["cited"]
        if cited["buckets"]:
            yield [bucket["key"]["id"] for bucket in cited["buckets"]]
        if "after_key" not in cited:
            return
        composite["after"] = cited["after_key"]
