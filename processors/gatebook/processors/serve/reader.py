"""The one way of the service to documents: narrowed to the caller's tenants, masked for their
roles. No route reads an index in any other way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request

from gatebook.processors.search import histogram as histogram_of
from gatebook.processors.search.around import AROUND_BY, Around, around, related
from gatebook.processors.search.asking import TIME_FORMAT, BadRequest, Hit, ask, hit_of
from gatebook.processors.search.display import value_at
from gatebook.processors.search.facets import Facets
from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.paging import close_view, first_page, next_page
from gatebook.processors.search.question import (
    Question,
    Scope,
    ask_for,
    countable,
    moment,
    sort_fields,
    sort_order,
    stamp,
)
from gatebook.processors.search.service import Tail
from gatebook.processors.search.summed import Counts
from gatebook.processors.serve import lasting, models
from gatebook.processors.serve.access.caller import Caller, scope_filter
from gatebook.processors.serve.access.masking import (
    EVENT_KIND,
    NEVER_SHOWN,
    check_query,
    is_masked,
    masked,
    refuse_masked,
    visible_fields,
)
from gatebook.processors.serve.deps import Deps, deps_of
from gatebook.processors.serve.views import Views
from gatebook.processors.sinks.base import KINDS
from gatebook.processors.summaries.answer import Figures

NO_HITS: dict[str, Any] = {"hits": {"hits": [], "total": {"value": 0}}}
# An index of documents: {ns}-access-2026.11.23, with -p2 or -r1 after it, or -held-...
_KIND = re.compile(r"-(" + "|".join(KINDS) + r")-")
LAG_FRESH_SECONDS = 1.0
MAX_CITED = 100
NEWEST_FIRST = "@timestamp:desc,event.id:desc"
FACTS_A_PAGE = 5_000
FACTS_VIEW_SECONDS = 60.0


@dataclass
class Registry:
    """What one process keeps between requests: open views, and figures that are asked for often.
    All of it may be lost at any time."""

    deps: Deps
    views: Views = field(init=False)
    lag: dict[tuple[str, ...] | None, tuple[float, str | None]] = field(default_factory=dict)
    tails: dict[str, int] = field(default_factory=dict)
    exporting: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.views = Views(self.deps.settings.max_views_per_caller)


def registry_of(request: Request) -> Registry:
    """What this process keeps."""
    found: Registry = request.app.state.registry
    return found


def asked_range(since: str | None, until: str | None) -> dict[str, str]:
    """A range as it was asked for, as details of an act."""
    return {"since": since or "", "until": until or ""}


def range_of(question: Question) -> dict[str, str]:
    """The absolute range of a question, as details of an act; an open end has none."""
    return {"from": question.since or "", "to": question.until or ""}


def kind_of(index: str) -> str:
    """The kind of the documents of an index."""
    found = _KIND.search(index)
    return found[1] if found else "access"


class Reader:
    """What one caller may read. Every query is narrowed, every document is masked here."""

    def __init__(self, request: Request, caller: Caller) -> None:
        deps = deps_of(request)
        self.caller = caller
        self.registry = registry_of(request)
        self.connection = deps.connection
        self.namespace = deps.namespace
        self.now: datetime = deps.clock()
        self._settings = deps.settings
        narrowed = scope_filter(caller)
        self.filters: tuple[dict[str, Any], ...] = () if narrowed is None else (narrowed,)

    @property
    def scope(self) -> Scope:
        """The caller's filters and fields."""
        return Scope(self.filters, lambda kind: visible_fields(self.caller, kind))

    # -- questions

    def question(
        self,
        query: str,
        since: str | None = None,
        until: str | None = None,
        kind: str = "access",
    ) -> Question:
        """A question of the caller's. Raises QueryError, TimeError, BadRequest, Refused (403 with
        position, for a field that is masked)."""
        check_query(self.caller, query, kind)
        longest = timedelta(days=self._settings.max_range_days)
        return ask_for(query, since, until, kind, now=self.now, scope=self.scope, max_range=longest)

    def until(self, text: str) -> str:
        """The end of a range; where none is given, the coming full second: requests of one moment
        have one end, and an answer can say which."""
        return text or stamp(self.now.replace(microsecond=0) + timedelta(seconds=1))

    def own_question(self, query: str, kind: str = "access") -> Question:
        """A question of the service itself, such as a finding's own search: within the caller's
        tenants, but of all fields. Only counts of it may be shown."""
        return ask_for(query, kind=kind, now=self.now, scope=Scope(self.filters))

    def countable(self, kind: str, names: Iterable[str]) -> None:
        """Raises BadRequest and Refused for fields whose values the caller cannot count."""
        for name in names:
            refuse_masked(self.caller, name, kind=kind)
            countable(name, fields_of(kind))

    def order(self, sort: str, kind: str) -> list[dict[str, Any]]:
        """The sort order. Raises BadRequest, Refused."""
        refuse_masked(self.caller, *sort_fields(sort), kind=kind)
        return sort_order(sort, fields_of(kind))

    def known(self, kind: str, names: Sequence[str] | None) -> list[str] | None:
        """Fields to show, if each is one. Raises BadRequest."""
        fields: FieldList = fields_of(kind)
        for name in names or ():
            if fields.type_of(name) is None:
                close = " or ".join(fields.close_to(name)) or "a field of /fields"
                raise BadRequest(f"no field is named {name[:80]!a}", f"try {close}")
        return None if names is None else list(names)

    def is_masked(self, name: str, kind: str = "access") -> bool:
        """Whether the caller may not know a field of documents of a kind."""
        return is_masked(self.caller, name, kind)

    # -- documents

    def shown(self, hit: Hit, fields: Sequence[str] | None = None) -> models.Hit:
        """A document as the caller may see it."""
        source = masked(self.caller, hit.source)
        if fields is not None:
            source = _picked(source, fields)
        return models.Hit(index=hit.index, id=hit.id, kind=kind_of(hit.index), source=source)

    def document(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a bare document."""
        return masked(self.caller, source)

    async def by_id(self, event_id: str) -> list[Hit]:
        """Every document with this id, of whatever kind, and what cites it; unmasked."""
        if not event_id.isprintable():
            return []
        cited = {"term": {"gatebook.evidence": {"value": event_id}}}
        query = {
            "bool": {
                "filter": list(self.filters),
                "should": [{"ids": {"values": [event_id]}}, cited],
                "minimum_should_match": 1,
            }
        }
        names = ",".join(f"{self.namespace}-{kind}" for kind in KINDS)
        body = {"query": query, "size": MAX_CITED, "sort": [{"@timestamp": "asc"}]}
        found = await ask(
            self.connection,
            f"/{names}/_search",
            absent=NO_HITS,
            params={"ignore_unavailable": "true"},
            json=body,
        )
        return [hit_of(hit) for hit in found["hits"]["hits"]]

    async def documents(
        self, question: Question, size: int, order: str = "desc"
    ) -> tuple[int, list[Hit]]:
        """How many match, and the newest (or oldest) of them; unmasked."""
        body = {
            "query": question.dsl,
            "size": size,
            "sort": [{"@timestamp": {"order": order}}, {"event.id": {"order": order}}],
            "track_total_hits": True,
        }
        path = f"/{self.namespace}-{question.kind}/_search"
        found = await ask(self.connection, path, absent=NO_HITS, json=body)
        hits = found["hits"]
        return int(hits["total"]["value"]), [hit_of(hit) for hit in hits["hits"]]

    async def facts(
        self, question: Question, fields: Sequence[str], most: int
    ) -> tuple[int, list[Hit]]:
        """How many match, and these fields of the newest `most` of them, of one point in time;
        unmasked."""
        given: dict[str, Any] = {
            "keep_seconds": FACTS_VIEW_SECONDS,
            "source": {"includes": list(fields)},
        }
        order = sort_order(NEWEST_FIRST, fields_of(question.kind))
        size = min(FACTS_A_PAGE, most)
        page = await first_page(self.connection, self.namespace, question, order, size, **given)
        hits = list(page.hits)
        while page.place is not None and len(hits) < most:
            page = await next_page(self.connection, question, order, size, page.place, **given)
            hits += page.hits
        if page.place is not None:
            await close_view(self.connection, page.place.view)
        return page.total, hits[:most]

    # -- counts

    async def histogram(
        self, question: Question, buckets: int, split_by: str | None = None
    ) -> histogram_of.Histogram:
        """See Counts.histogram."""
        return await self._counts.histogram(question, buckets, split_by)

    async def facets(self, question: Question, fields: Sequence[str], size: int) -> Facets:
        """See Counts.facets."""
        return await self._counts.facets(question, fields, size)

    async def figures(self, question: Question, fields: Sequence[str], size: int) -> Figures | None:
        """See Counts.figures."""
        return await self._counts.figures(question, fields, size)

    @property
    def _counts(self) -> Counts:
        long_range = timedelta(days=self._settings.summaries_after_days)
        return Counts(
            self.connection,
            self.namespace,
            self.now,
            long_range,
            self.filters,
            tenants=self.caller.tenants,
        )

    async def aggregate(
        self, question: Question, aggregations: dict[str, Any], total: bool = False
    ) -> dict[str, Any]:
        """Aggregations of a question."""
        index = f"{self.namespace}-{question.kind}"
        return await histogram_of.aggregate(self.connection, index, question, aggregations, total)

    async def around(self, event: Hit, by: str | None, before: int, after: int) -> Around:
        """Neighbours of an access; unmasked."""
        asked = self.question("")
        return await around(self.connection, self.namespace, asked, event, by, before, after)

    async def related(self, source: Mapping[str, Any]) -> list[tuple[str, str, int]]:
        """How many accesses share the values of this one that the caller may know."""
        fields = tuple(name for name in AROUND_BY if not self.is_masked(name))
        return await related(self.connection, self.namespace, self.question(""), source, fields)

    def tail(self, query: str, kind: str, since: str) -> Tail:
        """What comes in, of the caller's; unmasked. Raises as `question` does."""
        self.question(query, kind=kind)
        return Tail(self.connection, self.namespace, query, kind, since, scope=self.scope)

    # -- how fresh, how whole

    async def lag(self) -> models.Lag | None:
        """How old the newest access is that a search finds; None where there is none."""
        newest = await self._newest_ingested()
        if newest is None:
            return None
        seconds = (self.now - moment(newest)).total_seconds()
        return models.Lag(newest_ingested=newest, seconds=max(0.0, round(seconds, 3)))

    async def _newest_ingested(self) -> str | None:
        tenants = self.caller.tenants
        key = None if tenants is None else tuple(sorted(tenants))
        at, known = self.registry.lag.get(key, (float("-inf"), None))
        if time.monotonic() - at < LAG_FRESH_SECONDS:
            return known
        body = {
            "size": 1,
            "query": Question("access", self.filters).dsl,
            "sort": [{"event.ingested": {"order": "desc", "format": TIME_FORMAT}}],
            "_source": False,
            "track_total_hits": False,
        }
        path = f"/{self.namespace}-access/_search"
        found = await ask(self.connection, path, absent=NO_HITS, json=body)
        hits = found["hits"]["hits"]
        newest = str(hits[0]["sort"][0]) if hits and hits[0]["sort"][0] is not None else None
        if len(self.registry.lag) > 1_000:  # one entry per set of tenants
            self.registry.lag.clear()
        self.registry.lag[key] = (time.monotonic(), newest)
        return newest

    async def detail(self, question: Question) -> models.Detail:
        """Whether all details of a range are there, or some are gone by policy: of the caller's
        tenants."""
        return await lasting.detail(
            self.connection,
            self.namespace,
            question.kind,
            question.since,
            question.until,
            self.caller.tenants,
        )

    async def together(self, *work: Any) -> Any:
        """Several questions at once."""
        return await asyncio.gather(*work)


def sources_wanted(fields: Sequence[str] | None) -> Any:
    """What of documents is read: ciphertext never, and always what says whether a document's
    reason is masked (see masked)."""
    if fields is None:
        return {"excludes": list(NEVER_SHOWN)}
    return {"includes": [*fields, EVENT_KIND], "excludes": list(NEVER_SHOWN)}


def _picked(source: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Only these fields, nested as they are in the document."""
    picked: dict[str, Any] = {}
    for name in fields:
        value = value_at(source, name)
        if value is None:
            continue
        *path, last = name.split(".")
        at = picked
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):  # a parent was picked whole before
                break
        else:
            at[last] = value
    return picked
