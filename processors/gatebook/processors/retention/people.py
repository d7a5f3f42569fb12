"""Under which principals a subject under hold acts: findings name those, not the subject's tag.

They are read from the accesses that are there (a hold keeps them), and from the summaries, which
know them for longer. Where a service acts for a person, the principal is the service's, and what
is found out about it is not about that person alone: such findings are not held. A person who
proved who they are acts for themselves, whomever they name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from gatebook.processors.retention.elastic import Cluster, Dsl
from gatebook.processors.retention.holds import MAX_TERMS, People
from gatebook.processors.subjects.identity import PERSON_METHODS

SUBJECT = "gatebook.subject"
TENANT = "organization.id"
PRINCIPAL = "gatebook.principal"
ON_BEHALF = "gatebook.identity.on_behalf_of"
PAGE = 1_000
A_PERSONS: Dsl = {
    "bool": {
        "filter": [
            {"term": {"gatebook.identity.assurance": {"value": "verified"}}},
            {"terms": {"gatebook.identity.method": list(PERSON_METHODS)}},
            {"exists": {"field": "user.id"}},
        ]
    }
}
FOR_ANOTHER: Dsl = {"bool": {"filter": [{"exists": {"field": ON_BEHALF}}], "must_not": [A_PERSONS]}}


async def people_of(cluster: Cluster, tags: Iterable[str]) -> People:
    """Tenant and principal of these subjects, sorted; an empty text where there is no tenant.
    Raises Away."""
    wanted = sorted(tags)
    found: set[tuple[str, str]] = set()
    for first in range(0, len(wanted), MAX_TERMS):
        some: Dsl = {"terms": {SUBJECT: wanted[first : first + MAX_TERMS]}}
        own = {"bool": {"filter": [some], "must_not": [FOR_ANOTHER]}}
        for index in ("access", "summary"):
            async for pair in _pairs(cluster, f"{cluster.namespace}-{index}", own):
                found.add(pair)
    return tuple(sorted(found))


async def _pairs(cluster: Cluster, alias: str, query: Dsl) -> AsyncIterator[tuple[str, str]]:
    sources: list[Dsl] = [
        {"tenant": {"terms": {"field": TENANT, "missing_bucket": True}}},
        {"principal": {"terms": {"field": PRINCIPAL}}},
    ]
    composite: dict[str, Any] = {"size": PAGE, "sources": sources}
    body = {"size": 0, "query": query, "aggs": {"pairs": {"composite": composite}}}
    while True:
        answer = await cluster.ask("POST", f"/{alias}/_search", absent={}, json=body)
        if not answer:
            return  # nothing was ever indexed, or summed up
        pairs = answer["aggregations"]["pairs"]
        for bucket in pairs["buckets"]:
            yield bucket["key"]["tenant"] or "", bucket["key"]["principal"]
        if "after_key" not in pairs:
            return
        composite["after"] = pairs["after_key"]
