"""Which of retention's holds stand in the way of an erasure: those that cover what a person wrote.

A hold by tenant or time covers what is on its way and not indexed yet, too, and an erasure would
make that unreadable: so it bars everybody of its tenant, or everybody, while such events may still
come in. One by query or trace bars whom it matches documents of.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gatebook.processors.retention.elastic import Cluster, Dsl
from gatebook.processors.retention.holds import ACCESS, Hold, own_holds, query_of
from gatebook.processors.retention.rows import SUMMARY_KINDS
from gatebook.processors.retention.state import State
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.question import moment
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects import state as subjects
from gatebook.processors.subjects.documents import Documents, Person

# Events of a range that is over may lie in Kafka or in a producer's spool for so long.
LATE = timedelta(days=30)


async def barring(
    connection: Connection, namespace: str, person: Person
) -> tuple[subjects.Hold, ...]:
    """The holds that cover something of this person now, oldest first, as an erasure names them.
    Raises Away, StoreAway."""
    cluster = Cluster(connection, namespace)
    holds = [one for one in await own_holds(State(cluster)) if ACCESS in one.kinds]
    if not holds:
        return ()
    documents = Documents(connection, namespace, restored=True)
    await documents.refresh()
    tenants = {person.tenant} if person.tenant else {*await documents.tenants(person.query())}
    found = [
        one
        for one in holds
        if _covers_whole(one, tenants) or await _covers_some(cluster, documents, one, person)
    ]
    return tuple(subjects.Hold(id=h.id, reason=h.reason, by=h.by, at=h.at) for h in found)


def _covers_whole(hold: Hold, tenants: set[str]) -> bool:
    """Whether it covers whatever comes in of these tenants; none: it is not known of which."""
    if hold.query or hold.trace:
        return False
    is_over = bool(hold.until) and moment(hold.until) < datetime.now(UTC) - LATE
    return not is_over and (not hold.tenant or not tenants or hold.tenant in tenants)


async def _covers_some(cluster: Cluster, documents: Documents, hold: Hold, person: Person) -> bool:
    """Whether it covers documents of the person, or rows of summaries that name them. One whose
    query cannot be read any more is taken to cover them."""
    try:
        query = query_of(hold, ACCESS)
        if query is not None and await documents.count(_both(person.query(), query)):
            return True
        return any([await _covers_rows(cluster, hold, kind, person) for kind in SUMMARY_KINDS])
    except QueryError:
        return True


async def _covers_rows(cluster: Cluster, hold: Hold, kind: str, person: Person) -> bool:
    query = query_of(hold, kind)
    if query is None:
        return False
    tagged = {"term": {"gatebook.subject": {"value": person.tag}}}
    return bool(await cluster.count(f"{cluster.namespace}-{kind}-*", _both(tagged, query)))


def _both(one: Dsl, other: Dsl) -> Dsl:
    return {"bool": {"filter": [one, other]}}
