"""Legal holds of retention's own: by tenant, trace, query or time; and those on subjects.

While a hold stands, what it covers is neither deleted nor stripped nor thinned. It holds against a
run under way, too: a run looks again right before it swaps or deletes anything, and `put` returns
only when no run is in between.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from gatebook.processors.retention.elastic import Away, Dsl
from gatebook.processors.retention.rows import SUMMARY_KINDS
from gatebook.processors.retention.state import HOLD, ITEM, State
from gatebook.processors.search.asking import SearchFailed, ask
from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.times import parse_time
from gatebook.processors.sinks.connection import Connection, Unreachable
from gatebook.processors.summaries.rows import FIELDS
from gatebook.schemas.errors import GatebookError

ACCESS, FINDING = "access", "finding"
MAX_TERMS = 10_000
SUMMARY_FIELDS = FieldList({n: "keyword" for p, n in FIELDS.items() if p != "subject"})
QUIET_POLLS = 600
QUIET_POLL_SECONDS = 0.1
People = tuple[tuple[str, str], ...]
# Rows of summaries are held by what holds accesses, as far as they have its fields.
SUMMARY_ROUNDING = {"summary-hour": "||/h", "summary-day": "||/d"}


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One hold. It covers documents of `kinds` that match all that is given. Times in `query` that
    are relative are so to `at`: what it covers does not become less by itself."""

    id: str
    reason: str
    by: str
    at: str
    kinds: tuple[str, ...] = ("access", "finding")
    tenant: str = ""
    trace: str = ""
    query: str = ""
    since: str = ""
    until: str = ""


class NoSuchHold(GatebookError):
    """There is no hold with this id."""

    exit_code = 1
    event_reason = "not_found"
    next_step = "`gatebook retention holds` shows the ids"


class HoldRefused(GatebookError):
    """The hold covers nothing that can be told."""

    exit_code = 2
    next_step = "give --tenant, --trace, --query, --since or --until"


class HoldTaken(GatebookError):
    """Another hold stands under this id."""

    exit_code = 1
    next_step = "give another --hold-id, or none; `gatebook retention holds` shows what stands"

    def __init__(self, standing: Hold) -> None:
        super().__init__(
            f"hold {standing.id!a} by {standing.by!a} since {standing.at} covers something else: "
            "what you named is not held"
        )


def query_of(hold: Hold, kind: str) -> Dsl | None:
    """What a hold covers of a kind; None where it does not reach that kind. Raises QueryError."""
    if (ACCESS if kind in SUMMARY_KINDS else kind) not in hold.kinds:
        return None
    fields = SUMMARY_FIELDS if kind in SUMMARY_KINDS else fields_of(kind)
    wanted: list[Dsl] = []
    for value, field in ((hold.tenant, "organization.id"), (hold.trace, "trace.id")):
        if value and fields.type_of(field) is None:
            return None
        if value:
            wanted.append({"term": {field: {"value": value}}})
    if hold.query:
        try:
            wanted.append(_compiled(hold, fields))
        except QueryError:
            if kind in SUMMARY_KINDS:
                return None  # it asks for what rows do not have
            raise
    bounds = {name: text for name, text in (("gte", hold.since), ("lt", hold.until)) if text}
    if "gte" in bounds:  # a row begins with its hour or day
        bounds["gte"] += SUMMARY_ROUNDING.get(kind, "")
    if bounds:
        wanted.append({"range": {"@timestamp": bounds}})
    return {"bool": {"filter": wanted}}


def _compiled(hold: Hold, fields: FieldList) -> Dsl:
    """The hold's query as of the moment it was placed. Raises QueryError."""
    try:
        at = datetime.fromisoformat(hold.at)
    except ValueError:  # no command of ours wrote that
        return compile_query(hold.query, fields)
    return compile_query(hold.query, fields, at)


def checked(hold: Hold) -> Hold:
    """The hold with its times as absolute ones. Raises HoldRefused, QueryError, TimeError."""
    if not any((hold.tenant, hold.trace, hold.query, hold.since, hold.until)):
        raise HoldRefused("a hold on everything would be a mistake")
    times = {n: parse_time(t, _now()) for n in ("since", "until") if (t := getattr(hold, n))}
    found = msgspec.structs.replace(hold, **times)
    if all(query_of(found, kind) is None for kind in found.kinds):
        raise HoldRefused("none of these kinds has such a field")
    return found


def _scope(hold: Hold) -> dict[str, Dsl | None]:
    """What a hold covers, by kind, to compare; who put it and why is not part of it, and when only
    where its query has relative times."""
    return {kind: query_of(hold, kind) for kind in hold.kinds}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Holds:
    """All holds at one moment. `subjects`: tags of subjects under hold; `people`: tenants and
    principals of those, by which findings about them are known."""

    own: tuple[Hold, ...] = ()
    subjects: tuple[str, ...] = ()
    people: People = ()

    @property
    def digest(self) -> str:
        """The same while the holds are the same."""
        data = orjson.dumps([msgspec.to_builtins(self.own), self.subjects, self.people])
        return hashlib.sha256(data).hexdigest()

    def query(self, kind: str) -> Dsl:
        """Documents of a kind that are held; matches none where none are."""
        should = [found for hold in self.own if (found := query_of(hold, kind)) is not None]
        if kind == FINDING:
            should += _about(self.people)
        if kind == ACCESS or kind in SUMMARY_KINDS:
            tags = list(self.subjects)
            should += [
                {"terms": {"gatebook.subject": tags[i : i + MAX_TERMS]}}
                for i in range(0, len(tags), MAX_TERMS)
            ]
        if not should:
            return {"match_none": {}}
        return {"bool": {"should": should, "minimum_should_match": 1}}

    def told(self) -> list[dict[str, Any]]:
        """As a plan and a certificate say it: without what was searched for."""
        own = [{"id": h.id, "by": h.by, "at": h.at, "kinds": list(h.kinds)} for h in self.own]
        return [*own, *({"subject": tag} for tag in self.subjects)]


def _about(people: People) -> list[Dsl]:
    """Findings about these; one that names no tenant may be about any."""
    by_tenant: dict[str, list[str]] = {}
    for tenant, principal in people:
        by_tenant.setdefault(tenant, []).append(principal)
    nobody: Dsl = {"bool": {"must_not": [{"exists": {"field": "organization.id"}}]}}
    found: list[Dsl] = []
    for tenant, names in by_tenant.items():
        its = [nobody, {"term": {"organization.id": {"value": tenant}}}] if tenant else [nobody]
        where: Dsl = {"bool": {"should": its, "minimum_should_match": 1}}
        for first in range(0, len(names), MAX_TERMS):
            some: Dsl = {"terms": {"gatebook.principal": names[first : first + MAX_TERMS]}}
            found.append({"bool": {"filter": [some, where]}})
    return found


def named(hold: Hold) -> dict[str, str]:
    """What a hold is on, as the act of putting it is recorded; empty where it says nothing."""
    names = ("tenant", "trace", "query", "since", "until")
    return {"kinds": ",".join(hold.kinds), **{name: getattr(hold, name) for name in names}}


async def own_holds(state: State) -> tuple[Hold, ...]:
    """Retention's own holds, oldest first."""
    found = [msgspec.convert(one.source["hold"], Hold) for one in await state.find(HOLD)]
    return tuple(sorted(found, key=lambda hold: (hold.at, hold.id)))


def all_holds(own: Sequence[Hold], subjects: Mapping[str, Any], people: People = ()) -> Holds:
    """Retention's own holds and those on subjects (as subjects.holds.held_subjects gives them),
    with what people.people_of says of them."""
    return Holds(tuple(own), tuple(sorted(subjects)), people)


async def put(state: State, hold: Hold) -> None:
    """Put a hold; the same one under the same id again changes nothing. From the return on nothing
    that it covers is deleted or stripped. Raises HoldTaken where another one stands under its id;
    Away where a run stays in between for too long."""
    while not await state.create(
        f"hold.{hold.id}", {"type": HOLD, "hold": msgspec.to_builtins(hold)}
    ):
        if await refuse_taken(state, hold):
            break  # it stands; else it was released in between, and is put anew
    for _ in range(QUIET_POLLS):
        # A run notes `swap` on its item, then looks at the holds; we have put ours, then look at
        # the items: one of the two sees the other.
        items = await state.find(ITEM, done=False)
        if not any(item.source["step"] == "swap" for item in items):
            return
        await asyncio.sleep(QUIET_POLL_SECONDS)
    raise Away("the hold stands, but a run is in the midst of a swap that it does not end")


async def refuse_taken(state: State, hold: Hold) -> bool:
    """Whether this hold stands already. Raises HoldTaken where another one does under its id."""
    found = await state.get(f"hold.{hold.id}")
    if found is None:
        return False
    standing = msgspec.convert(found.source["hold"], Hold)
    if _scope(standing) != _scope(hold):
        raise HoldTaken(standing)
    return True


async def covered(connection: Connection, namespace: str, hold: Hold) -> int | None:
    """How many documents in the index a hold covers now; None where that cannot be told. More may
    come, and archives are not looked into."""
    found = 0
    try:
        for kind in hold.kinds:
            if (query := query_of(hold, kind)) is None:
                continue
            alias = f"/{namespace}-{kind}"
            await ask(connection, f"{alias}/_refresh", absent={})
            counted = await ask(connection, f"{alias}/_count", absent={}, json={"query": query})
            found += counted.get("count", 0)
    except (SearchFailed, Unreachable):
        return None
    return found


async def release(state: State, hold_id: str) -> None:
    """End a hold; what it held goes with the next run. Raises NoSuchHold."""
    if await state.get(f"hold.{hold_id}") is None:
        raise NoSuchHold(f"no hold {hold_id!a}")
    await state.delete(f"hold.{hold_id}")
