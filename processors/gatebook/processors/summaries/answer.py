"""Questions over long ranges, answered from summaries where they hold the answer, and saying so.

The query language is the same. A query that names what summaries do not keep (an address, a word
of an answer, a status) is answered by nobody here: every function returns None then, and the
caller asks the details. Hours that are not summed up yet, and the ends of a range that begin or
end within an hour, are counted from details; `source` says where the figures come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.query import And, Comparison, Everything, Node, Not, Or, parse
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries.reading import (
    INPUT,
    NOT_INTENT,
    ONE_DAY,
    ONE_HOUR,
    OUTPUT,
    READ,
    Counting,
    Dsl,
    ask,
    floor_day,
    floor_hour,
    hour_name,
    pages,
)
from gatebook.processors.summaries.rollup import Progress, covered
from gatebook.processors.summaries.rows import (
    BY_ALL,
    BY_PRINCIPAL,
    DAY,
    FIELDS,
    HOUR,
    OF_PERSON,
    Key,
    Principals,
    Row,
    read_document,
)
from gatebook.processors.summaries.store import SummaryStore
from gatebook.processors.summaries.template import alias

FAILURE = "failure"
SUMMARIES, DETAILS, BOTH = "summaries", "details", "both"
MAX_PARTS = 20
# How many values each index may name: what is rarer than those in every index may be missed.
VALUES_PER_INDEX = 10_000
HOUR_SECONDS, DAY_SECONDS = 3_600, 86_400
# What a query may name, a histogram be split by, and values be counted of. A subject is not among
# them: a service that acts for a person is counted, but not under that person.
DIMENSIONS: Mapping[str, str] = {name: part for part, name in FIELDS.items() if part != "subject"}
_NAMING_PERSONS = frozenset(FIELDS[part] for part in OF_PERSON)
_FIELDS = FieldList(dict.fromkeys(DIMENSIONS, "keyword"))
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Accesses from `at` on, for an interval; `parts` by value of the field it is split by,
    an empty text for those without one."""

    at: datetime
    count: int
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram:
    """`since` and `until` are what was counted: an end of the range moves to a full hour where the
    details of that hour have gone, and to a full day where rows of hours have gone. Buckets
    without accesses are left out."""

    since: datetime
    until: datetime
    interval_seconds: int
    total: int
    source: str
    buckets: list[Bucket]


@dataclass(frozen=True, slots=True)
class Values:
    """The most frequent values of a field. other: accesses with another value; missing: with
    none."""

    since: datetime
    until: datetime
    total: int
    source: str
    values: list[tuple[str, int]]
    other: int
    missing: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """The most frequent values of one field: value, accesses, tokens. other and missing as in
    `Values`. distinct: how many values there are; at least so many where not `exact`, and then
    values that are rare everywhere may be missed."""

    values: list[tuple[str, int, int]]
    other: int
    missing: int
    distinct: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted of a range, and of fields of it, by their names."""

    since: datetime
    until: datetime
    total: int
    input_tokens: int
    output_tokens: int
    source: str
    fields: dict[str, Ranked]


@dataclass(frozen=True, slots=True)
class Group:
    """What was counted of one group; `key` by the names it is grouped by. failures: accesses whose
    outcome is a failure, whatever their status."""

    key: dict[str, str]
    row: Row
    principals: int
    failures: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Groups in the order of their keys. covered_until: up to where summaries are."""

    since: datetime
    until: datetime
    source: str
    covered_until: datetime
    groups: list[Group]


async def histogram(
    client: Connection,
    namespace: str,
    query: str,
    since: datetime | None,
    until: datetime | None,
    interval_seconds: int,
    split_by: str | None = None,
    scope: Sequence[Dsl] = (),
) -> Histogram | None:
    """Accesses over time in [since, until). `interval_seconds` is whole hours, and buckets begin
    at multiples of it since 1970, in UTC. `scope`: filters on fields of DIMENSIONS (tenants).

    None where the query, the interval or `split_by` asks for what summaries do not keep, or where
    nothing was summed up yet. Raises QueryError, SearchFailed, Unreachable.
    """
    if interval_seconds % HOUR_SECONDS or not _is_kept(split_by):
        return None
    whole_days = interval_seconds % DAY_SECONDS == 0
    plan = await _plan(client, namespace, query, since, until, [split_by or ""], scope, whole_days)
    if plan is None:
        return None
    buckets: dict[int, _Counts] = {}
    for search in plan.searches(whole_days):
        aggregations = {"times": _over_time(interval_seconds, split_by, search.is_summary)}
        found = await search.aggregate(client, aggregations)
        for bucket in found["times"]["buckets"]:
            _add(buckets.setdefault(bucket["key"], _Counts()), bucket, search.is_summary)
    filled = [
        Bucket(datetime.fromtimestamp(at / 1000, UTC), counts.count, dict(counts.parts))
        for at, counts in sorted(buckets.items())
        if counts.count
    ]
    total = sum(bucket.count for bucket in filled)
    return Histogram(plan.since, plan.until, interval_seconds, total, plan.source, filled)


async def values(
    client: Connection,
    namespace: str,
    query: str,
    since: datetime | None,
    until: datetime | None,
    name: str,
    size: int = 10,
    scope: Sequence[Dsl] = (),
) -> Values | None:
    """The values of a field with most accesses. None, and raises, as `histogram`."""
    found = await figures(client, namespace, query, since, until, [name], size, scope)
    if found is None:
        return None
    one = found.fields[name]
    top = [(value, count) for value, count, _ in one.values]
    return Values(found.since, found.until, found.total, found.source, top, one.other, one.missing)


async def figures(
    client: Connection,
    namespace: str,
    query: str,
    since: datetime | None,
    until: datetime | None,
    fields: Sequence[str],
    size: int = 10,
    scope: Sequence[Dsl] = (),
) -> Figures | None:
    """Accesses and tokens of a range, and the values of some fields with most accesses. None, and
    raises, as `histogram`."""
    if not all(name in DIMENSIONS for name in fields):
        return None
    plan = await _plan(client, namespace, query, since, until, [], scope)
    if plan is None:
        return None
    whole, by_field = _Sums(), {name: _Tally() for name in fields}
    for number, (by, names) in enumerate(_by_rows(plan.by, fields)):
        for search in replace(plan, by=by).searches(whole_days=True):
            found = await search.aggregate(client, _figures(names, search.is_summary))
            if number == 0:
                whole.add({**found, "doc_count": found["total"]}, search.is_summary)
            for name in names:
                by_field[name].add(found.get(f"values.{name}"), search.is_summary)
    ranked = {name: tally.ranked(whole.events, size) for name, tally in by_field.items()}
    return Figures(
        plan.since, plan.until, whole.events, whole.input, whole.output, plan.source, ranked
    )


async def totals(
    client: Connection,
    namespace: str,
    query: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    group_by: Sequence[str] = (),
    scope: Sequence[Dsl] = (),
) -> Totals | None:
    """Counts, tokens, durations and principals, by group. group_by: `hour` or `day`, and fields of
    DIMENSIONS. None, and raises, as `histogram`."""
    times = [name for name in group_by if name in (HOUR, DAY)]
    fields = [name for name in group_by if name not in times]
    if not all(_is_kept(name) for name in fields):
        return None
    whole_days = HOUR not in times
    plan = await _plan(client, namespace, query, since, until, fields, scope, whole_days)
    if plan is None:
        return None
    groups = _Groups(fields, times)
    for search in plan.searches(whole_days):
        await search.collect(client, groups)
    return Totals(plan.since, plan.until, plan.source, plan.covered_until, groups.sorted())


# --- whether summaries can answer --------------------------------------------------------------


def is_answerable(query: str) -> bool:
    """Whether a query names only what summaries keep. Raises QueryError where it is wrong."""
    compile_query(query, fields_of("access"))
    return all(name in DIMENSIONS for name in _names(parse(query)))


def _is_kept(name: str | None) -> bool:
    return not name or name in DIMENSIONS


def _names(node: Node) -> Iterator[str]:
    """The fields a query names; free text is a field that nobody keeps."""
    match node:
        case Everything():
            return
        case Comparison(name):
            yield name
        case Not(part):
            yield from _names(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _names(part)
        case _:
            yield ""


# --- what is asked of whom ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Search:
    """One search: of rows, or of details."""

    index: str
    query: Dsl
    is_summary: bool

    async def aggregate(self, client: Connection, aggregations: Dsl) -> dict[str, Any]:
        """The aggregations, and `total`, how many documents matched."""
        body = {"size": 0, "track_total_hits": True, "query": self.query, "aggs": aggregations}
        found = await ask(client, "POST", f"/{self.index}/_search", absent={}, json=body)
        if not found:
            return {"times": {"buckets": []}, "parts": {"buckets": []}, "sum": _NONE, "total": 0}
        return {**found["aggregations"], "total": found["hits"]["total"]["value"]}

    async def collect(self, client: Connection, groups: _Groups) -> None:
        """Add every row, or every event, to its group."""
        if await ask(client, "GET", f"/_alias/{self.index}", absent={}) == {}:
            return
        if self.is_summary:
            async for hits in pages(client, self.index, {"query": self.query}):
                groups.add_documents(hit["_source"] for hit in hits)
            return
        fields = ["@timestamp", *READ]
        body = {"query": self.query, "_source": False, "docvalue_fields": fields}
        async for hits in pages(client, self.index, {**body, "stored_fields": "_none_"}):
            groups.add_events([hit["fields"] for hit in hits])


@dataclass(frozen=True, slots=True)
class _Plan:
    namespace: str
    since: datetime
    until: datetime
    covered_until: datetime
    summed: list[Span]
    rest: list[Span]
    undone_days: frozenset[datetime]
    query: Dsl
    detail_query: Dsl
    by: str
    hours_since: datetime

    @property
    def source(self) -> str:
        if not self.summed:
            return DETAILS
        return BOTH if self.rest else SUMMARIES

    def searches(self, whole_days: bool) -> Iterator[_Search]:
        """What has to be asked. whole_days: rows of days, where whole days are asked for."""
        if self.summed:
            spans = [
                _rows_in(g, s) for span in self.summed for g, s in self._grains(span, whole_days)
            ]
            filters = [{"term": {"summary.by": self.by}}, _any(spans), self.query]
            yield _Search(alias(self.namespace), {"bool": {"filter": filters}}, True)
        if self.rest:
            spans = [_times(span) for span in self.rest]
            query = {"bool": {"filter": [_any(spans), self.detail_query], "must_not": [NOT_INTENT]}}
            yield _Search(f"{self.namespace}-access", query, False)

    def _grains(self, span: Span, whole_days: bool) -> Iterator[tuple[str, Span]]:
        since, until = span
        if since < self.hours_since:  # whole days are asked for, and nothing else is left
            yield DAY, (since, min(until, self.hours_since))
            if until <= self.hours_since:
                return
            since = self.hours_since
            span = since, until
        first = floor_day(since) + (ONE_DAY if floor_day(since) < since else ONE_DAY * 0)
        last = floor_day(until)
        undone = sorted(day for day in self.undone_days if first <= day < last)
        if not whole_days or first >= last or undone:
            yield HOUR, span
            return
        yield DAY, (first, last)
        for edge in ((since, first), (last, until)):
            if edge[0] < edge[1]:
                yield HOUR, edge


async def _plan(
    client: Connection,
    namespace: str,
    query: str,
    since: datetime | None,
    until: datetime | None,
    named: Sequence[str],
    scope: Sequence[Dsl],
    whole_days: bool = True,
) -> _Plan | None:
    if not is_answerable(query):
        return None
    state = await covered(client, namespace)
    if state is None:
        return None
    first = since or state.since
    last = until or datetime.now(UTC)
    first, last = await _full_hours(SummaryStore(client, namespace), first, last)
    if whole_days:
        first, last = _full_days(state, first, last)
    else:
        state = replace(state, since=max(state.since, state.hours_since))
    summed, rest = _spans(state, first, last)
    people = _NAMING_PERSONS & {*named, *_names(parse(query))}
    return _Plan(
        namespace,
        first,
        last,
        state.until,
        summed,
        rest,
        state.undone_days,
        {"bool": {"filter": [*scope, compile_query(query, _FIELDS)]}},
        {"bool": {"filter": [*scope, compile_query(query, fields_of("access"))]}},
        BY_PRINCIPAL if people else BY_ALL,
        state.hours_since,
    )


async def _full_hours(
    store: SummaryStore, since: datetime, until: datetime
) -> tuple[datetime, datetime]:
    """The range, its ends moved to full hours where details of these hours have gone: a part of
    such an hour cannot be told."""
    names = [f"{HOUR}.{hour_name(at)}" for at in (since, until)]
    notes = await store.get(names)
    gone = [bool(n in notes and notes[n].source.get("carried_events")) for n in names]
    first = floor_hour(since) if gone[0] else since
    last = floor_hour(until) + ONE_HOUR if gone[1] and floor_hour(until) < until else until
    return first, last


def _full_days(state: Progress, since: datetime, until: datetime) -> Span:
    """The range, its ends moved to full days where only days are left."""
    if state.since < since < state.hours_since:
        since = floor_day(since)
    if state.since < until < state.hours_since and floor_day(until) < until:
        until = floor_day(until) + ONE_DAY
    return since, until


def _spans(state: Progress, since: datetime, until: datetime) -> tuple[list[Span], list[Span]]:
    """What summaries hold of a range, and the rest."""
    first = floor_hour(max(since, state.since))
    first = first if first >= max(since, state.since) else first + ONE_HOUR
    last = floor_hour(min(until, state.until))
    if first >= last:
        return [], [(since, until)]
    undone = sorted(at for at in state.undone if first <= at < last)
    cuts = [first, *(t for at in undone for t in (at, at + ONE_HOUR)), last]
    summed = [span for span in zip(cuts[::2], cuts[1::2], strict=True) if span[0] < span[1]]
    rest = [(since, first), *((at, at + ONE_HOUR) for at in undone), (last, until)]
    return summed, [span for span in rest if span[0] < span[1]]


def _any(parts: list[Dsl]) -> Dsl:
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def _times(span: Span) -> Dsl:
    since, until = (at.replace(tzinfo=None).isoformat() + "Z" for at in span)
    return {"range": {"@timestamp": {"gte": since, "lt": until}}}


def _rows_in(grain: str, span: Span) -> Dsl:
    return {"bool": {"filter": [{"term": {"summary.grain": grain}}, _times(span)]}}


# --- counts by bucket and value ----------------------------------------------------------------

_SUM: Dsl = {"sum": {"field": "summary.events"}}
_NONE = {"value": 0}


@dataclass(slots=True)
class _Counts:
    count: int = 0
    parts: Counter[str] = field(default_factory=Counter)


def _over_time(interval_seconds: int, split_by: str | None, is_summary: bool) -> Dsl:
    interval = f"{interval_seconds}s"
    times: Dsl = {
        "date_histogram": {"field": "@timestamp", "fixed_interval": interval, "min_doc_count": 1}
    }
    inner: Dsl = {"sum": _SUM} if is_summary else {}
    if split_by:
        inner["parts"] = _parts(split_by, is_summary, MAX_PARTS)
    return {**times, "aggs": inner} if inner else times


def _parts(name: str, is_summary: bool, size: int) -> Dsl:
    terms: Dsl = {"terms": {"field": name, "size": size, "missing": ""}}
    if is_summary:
        terms["terms"]["order"] = {"sum": "desc"}
        terms["aggs"] = {"sum": _SUM}
    return terms


def _add(counts: _Counts, found: Mapping[str, Any], is_summary: bool) -> None:
    def number(bucket: Mapping[str, Any]) -> int:
        return round(bucket["sum"]["value"]) if is_summary else int(bucket["doc_count"])

    counts.count += number(found)
    for part in found.get("parts", {}).get("buckets", []):
        counts.parts[part["key"]] += number(part)


# --- figures by value ---------------------------------------------------------------------------


def _by_rows(by: str, fields: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Which rows tell which fields: only those that name persons need the many rows by
    principal."""
    people = [name for name in fields if name in _NAMING_PERSONS]
    others = [name for name in fields if name not in _NAMING_PERSONS]
    if by == BY_PRINCIPAL or not people:
        return [(by, [*others, *people])]
    return [(by, others), (BY_PRINCIPAL, people)] if others else [(BY_PRINCIPAL, people)]


def _sums(is_summary: bool) -> Dsl:
    if not is_summary:
        return {"input": {"sum": {"field": INPUT}}, "output": {"sum": {"field": OUTPUT}}}
    tokens = {n: {"sum": {"field": f"summary.{n}_tokens"}} for n in ("input", "output")}
    return {"sum": _SUM, **tokens}


def _figures(fields: Sequence[str], is_summary: bool) -> Dsl:
    aggregations = _sums(is_summary)
    for name in fields:
        values = _parts(name, is_summary, VALUES_PER_INDEX)
        aggregations[f"values.{name}"] = {**values, "aggs": _sums(is_summary)}
    return aggregations


@dataclass(slots=True)
class _Sums:
    events: int = 0
    input: int = 0
    output: int = 0

    def add(self, bucket: Mapping[str, Any], is_summary: bool) -> None:
        """Add what one search says."""
        self.events += round(bucket["sum"]["value"]) if is_summary else int(bucket["doc_count"])
        self.input += round(bucket.get("input", _NONE)["value"])
        self.output += round(bucket.get("output", _NONE)["value"])


@dataclass(slots=True)
class _Tally:
    """The values of one field."""

    sums: dict[str, _Sums] = field(default_factory=dict)
    exact: bool = True

    def add(self, found: Mapping[str, Any] | None, is_summary: bool) -> None:
        """Add what one search says; None: there was no index."""
        if found is None:
            return
        self.exact &= found["sum_other_doc_count"] == 0
        for bucket in found["buckets"]:
            self.sums.setdefault(bucket["key"], _Sums()).add(bucket, is_summary)

    def ranked(self, total: int, size: int) -> Ranked:
        """The first of them by accesses, of `total`."""
        named = {value: sums for value, sums in self.sums.items() if value and sums.events}
        missing = self.sums[""].events if "" in self.sums else 0
        order = sorted(named.items(), key=lambda item: (-item[1].events, item[0]))
        top = [(value, one.events, one.input + one.output) for value, one in order[:size]]
        other = max(0, total - missing - sum(count for _, count, _ in top))
        return Ranked(top, other, missing, len(named), self.exact)


# --- groups with sketches ----------------------------------------------------------------------


# `2026-11-23T10` and `2026-11-23`, of a time in a document.
_TIME_CHARACTERS = {HOUR: 13, DAY: 10}


class _Groups:
    """Rows merged by group."""

    def __init__(self, fields: Sequence[str], times: Sequence[str]) -> None:
        self._fields = fields
        self._parts = [DIMENSIONS[name] for name in fields]
        self._times = times
        self._rows: dict[tuple[str, ...], Row] = {}
        self._principals: dict[tuple[str, ...], Principals] = {}
        self._failures: Counter[tuple[str, ...]] = Counter()

    def add_documents(self, documents: Iterator[Mapping[str, Any]]) -> None:
        """Add rows of summaries."""
        for document in documents:
            key, row = read_document(document)
            group = self._group(document["@timestamp"], key)
            self._merge(group, key, row)
            sketch = document["summary"].get("principals")
            if sketch:
                self._principals[group].add(sketch)
            else:
                self._principals[group].add_one(key.principal)

    def add_events(self, events: Sequence[Mapping[str, Sequence[Any]]]) -> None:
        """Add details."""
        by_time: dict[str, list[Mapping[str, Sequence[Any]]]] = {}
        for event in events:
            by_time.setdefault(str(event["@timestamp"][0])[:13], []).append(event)
        for time, some in by_time.items():
            counting = Counting()
            counting.add(some)
            for key, row in counting.rows.items():
                group = self._group(time, key)
                self._merge(group, key, row)
                self._principals[group].add_one(key.principal)

    def _group(self, time: str, key: Key) -> tuple[str, ...]:
        times = (time[: _TIME_CHARACTERS[name]] for name in self._times)
        return (*times, *(getattr(key, part) for part in self._parts))

    def _merge(self, group: tuple[str, ...], key: Key, row: Row) -> None:
        if group not in self._rows:
            self._rows[group], self._principals[group] = Row(), Principals()
        self._rows[group].merge(row)
        if key.outcome == FAILURE:
            self._failures[group] += row.events

    def sorted(self) -> list[Group]:
        """The groups, in the order of their keys."""
        names = [*self._times, *self._fields]
        return [
            Group(
                dict(zip(names, key, strict=True)),
                row,
                self._principals[key].estimate(),
                self._failures[key],
            )
            for key, row in sorted(self._rows.items(), key=lambda item: item[0])
        ]
