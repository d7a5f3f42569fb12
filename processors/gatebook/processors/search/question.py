"""A question: a query, a kind, a range of time and who asks, ready for Elasticsearch. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.processors.search.asking import TIME_FORMAT, BadRequest
from gatebook.processors.search.dsl import Dsl, compile_query
from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.query import parse, to_text
from gatebook.processors.search.times import parse_time
from gatebook.processors.sinks.base import KINDS
from gatebook.schemas.intents import INTENT

ALL_TIME = "all"
PHASE = "gatebook.phase"
SORTABLE_TYPES = ("keyword", "long", "double", "boolean", "ip", "date_nanos")
COUNTABLE_TYPES = ("keyword", "long", "double", "boolean", "ip", "flattened")


@dataclass(frozen=True, slots=True)
class Scope:
    """Who asks: filters that narrow every query, and the fields that a query may name and free
    text looks into. Checks that tell a masked field from an unknown one are the caller's."""

    filters: tuple[Dsl, ...] = ()
    fields: Callable[[str], FieldList] = fields_of


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Question:
    """`since` inclusive and `until` exclusive are absolute, in UTC; None: no bound.

    The query's filters are in `filters`; the range stands apart, so that what asks for another
    range (zero-filled buckets, neighbours of an event) can.
    """

    kind: str
    filters: tuple[Dsl, ...]
    since: str | None = None
    until: str | None = None
    text: str = field(default="", compare=False)
    scope: tuple[Dsl, ...] = field(default=(), compare=False)  # those of the filters: who asks

    @property
    def dsl(self) -> Dsl:
        """All of it as one filter: nothing is scored, and parts can be cached."""
        parts = [*self.filters, *_range(self.since, self.until)]
        return {"bool": {"filter": parts}} if parts else {"match_all": {}}

    def within(self, since: str | None, until: str | None) -> Question:
        """The same over another range."""
        return replace(self, since=since, until=until)

    def narrowed(self, *filters: Dsl) -> Question:
        """The same with more filters."""
        return replace(self, filters=(*self.filters, *filters))


def _range(since: str | None, until: str | None) -> list[Dsl]:
    bounds = {name: text for name, text in (("gte", since), ("lt", until)) if text}
    return [{"range": {"@timestamp": {**bounds, "format": TIME_FORMAT}}}] if bounds else []


def ask_for(
    query: str = "",
    since: str | None = None,
    until: str | None = None,
    kind: str = "access",
    *,
    now: datetime,
    scope: Scope = EVERYTHING,
    max_range: timedelta | None = None,
) -> Question:
    """A question from what a person wrote. Intents are left out of `access` unless the query
    names gatebook.phase: an access counts once, by its terminal event.

    Raises QueryError, TimeError, and BadRequest for an unknown kind or an empty or too long range.
    """
    fields = scope.fields(known_kind(kind))
    compiled = compile_query(query, fields, now)
    filters = [*scope.filters, *([] if compiled == {"match_all": {}} else [compiled])]
    if kind == "access" and PHASE not in query:
        filters.append({"bool": {"must_not": [{"term": {PHASE: {"value": INTENT}}}]}})
    first, last = bounds(since, until, now)
    _check_range(first, last, now, max_range)
    return Question(kind, tuple(filters), first, last, query, scope.filters)


def known_kind(kind: str) -> str:
    """The kind, if there is such a one. Raises BadRequest."""
    if kind not in KINDS:
        raise BadRequest(f"no kind {kind[:40]!a}", "name one of " + ", ".join(KINDS))
    return kind


def bounds(since: str | None, until: str | None, now: datetime) -> tuple[str | None, str | None]:
    """The range in UTC; None where there is no bound. Raises TimeError, and BadRequest where no
    time is in it."""
    first = parse_time(since, now) if since and since.strip() != ALL_TIME else None
    last = parse_time(until, now) if until else None
    if first and last and first.rstrip("Z") >= last.rstrip("Z"):
        raise BadRequest(
            f"the time range is empty: from {first} up to {last}",
            "give an end (until) that is later than the beginning (since)",
        )
    return first, last


def _check_range(
    since: str | None, until: str | None, now: datetime, longest: timedelta | None
) -> None:
    if longest is None or since is None:
        return
    end = moment(until) if until else now
    if end - moment(since) > longest:
        raise BadRequest(
            f"the time range is longer than {longest.days} days", "ask for a shorter one"
        )


def moment(text: str) -> datetime:
    """A time of ours, such as 2026-11-23T10:15:00.123456789Z, to the microsecond."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def stamp(at: datetime) -> str:
    """A moment as we write it."""
    text = at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z"


def normalized(query: str) -> str:
    """The query as we write it; it means the same. Raises QueryError."""
    return to_text(parse(query))


def sort_order(sort: str, fields: FieldList) -> list[Dsl]:
    """`a:asc,b:desc` as Elasticsearch wants it. Raises BadRequest."""
    return [_sort_part(part.strip(), fields) for part in sort.split(",")]


def sort_fields(sort: str) -> list[str]:
    """The fields that a sort order names."""
    return [part.strip().partition(":")[0] for part in sort.split(",")]


def is_sortable(name: str, fields: FieldList) -> bool:
    """Whether documents can be put in order of a field."""
    return fields.type_of(name) in SORTABLE_TYPES and fields.has_values(name)


def is_countable(name: str, fields: FieldList) -> bool:
    """Whether a field's values can be counted."""
    return fields.type_of(name) in COUNTABLE_TYPES and fields.has_values(name)


def _sort_part(part: str, fields: FieldList) -> Dsl:
    name, _, direction = part.partition(":")
    found = fields.type_of(name)
    if is_sortable(name, fields) and direction not in ("", "asc", "desc"):
        raise BadRequest(
            f"cannot sort {direction[:40]!a}", f"write {name}:asc (rising) or {name}:desc (falling)"
        )
    if not is_sortable(name, fields):
        close = " or ".join(fields.close_to(name[:256])) if found is None else "another field"
        raise BadRequest(
            f"cannot sort by {part[:80]!a}",
            f"write field:asc or field:desc; try {close or '@timestamp:desc'}",
        )
    options: dict[str, Any] = {"order": direction or "asc"}
    if found == "date_nanos":
        options["format"] = TIME_FORMAT
    return {name: options}


def countable(name: str, fields: FieldList) -> str:
    """The type of a field whose values can be counted. Raises BadRequest."""
    found = fields.type_of(name)
    if found is not None and is_countable(name, fields):
        return found
    if found is None:
        close = " or ".join(fields.close_to(name[:256])) or "a field of /fields"
        raise BadRequest(f"no field is named {name[:80]!a}", f"try {close}")
    if not fields.has_values(name):
        raise BadRequest(
            f"values of {name[:80]!a} are not kept for counting: they hardly repeat",
            "search for one of them, or take another keyword field",
        )
    raise BadRequest(
        f"values of {name[:80]!a} cannot be counted: it is a {found} field", "take a keyword field"
    )
