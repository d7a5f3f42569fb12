"""Counts over long ranges, from summaries: a few documents an hour instead of every access; and
the one rule by which the service and the command line take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

from gatebook.processors.retention.missing import gaps
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.facets import Facet, Facets
from gatebook.processors.search.facets import facets as count_values
from gatebook.processors.search.histogram import (
    Bucket,
    Histogram,
    Source,
    filled,
    first_time,
    interval_for,
)
from gatebook.processors.search.histogram import histogram as count_over_time
from gatebook.processors.search.question import Question, moment, stamp
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries import answer
from gatebook.processors.summaries.rollup import covered

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one who asks, at a moment: by summaries where the range is longer than
    `long_range`, or reaches to where details are gone, and summaries can answer; else by the
    details that are there. What was counted stands in `source`. filters: those of who asks.
    tenants: theirs, of whom details may be gone; None: all. is_summed False: by details alone.
    Every method raises SearchFailed, Unreachable."""

    client: Connection
    namespace: str
    now: datetime
    long_range: timedelta
    filters: Sequence[Dsl] = ()
    is_summed: bool = True
    tenants: frozenset[str] | None = None

    async def histogram(
        self, question: Question, buckets: int, split_by: str | None = None
    ) -> Histogram:
        """Counts over time. Raises BadRequest, too."""
        found = None
        if await self._asks_summaries(question):
            found = await from_summaries(
                self.client, self.namespace, question, buckets, split_by, self.filters
            )
        return found or await count_over_time(
            self.client, self.namespace, question, buckets, split_by, now=self.now
        )

    async def facets(self, question: Question, fields: Sequence[str], size: int) -> Facets:
        """Facets; the fields were checked before. The total and the fields that summaries keep are
        of summaries where a histogram would be; the others are of the details that are there."""
        given = (self.client, self.namespace, question)
        found = None
        if await self._asks_summaries(question):
            found = await facets_from_summaries(*given, fields, size, self.filters)
        if found is None:
            return await count_values(*given, fields, size)
        left = [name for name in fields if name not in found.facets]
        if not left:
            return found
        details = await count_values(*given, left, size)
        known = {**details.facets, **found.facets}
        return replace(found, facets={name: known[name] for name in fields})

    async def figures(
        self, question: Question, fields: Sequence[str], size: int
    ) -> answer.Figures | None:
        """Accesses, tokens and values of fields by summaries, where a histogram would be of them;
        None: the details have to be counted. The fields were checked before."""
        if not await self._asks_summaries(question):
            return None
        return await figures_from_summaries(
            self.client, self.namespace, question, fields, size, self.filters
        )

    async def _asks_summaries(self, question: Question) -> bool:
        """Whether summaries are asked first."""
        if not self.is_summed or question.kind != "access":
            return False
        if question.since is None:
            return True
        until = moment(question.until) if question.until else self.now
        if until - moment(question.since) > self.long_range:
            return True
        given = (question.kind, question.since, question.until)
        return bool(await gaps(self.client, self.namespace, *given, self.tenants))


async def from_summaries(
    client: Connection,
    namespace: str,
    question: Question,
    buckets: int,
    split_by: str | None,
    filters: Sequence[Dsl] = (),
) -> Histogram | None:
    """A histogram, or None where summaries cannot tell: nothing is summed up yet, or the query or
    the split asks for what they do not keep. Summaries keep hours, so no interval is shorter.
    `filters`: those of who asks. Raises SearchFailed, Unreachable."""
    span = await _span(client, namespace, question)
    if span is None:
        return None
    first, last = span
    interval = _whole_hours(interval_for(first, last, buckets))
    found = await answer.histogram(
        client,
        namespace,
        question.text,
        first,
        last,
        interval // timedelta(seconds=1),
        split_by,
        list(filters),
    )
    if found is None:
        return None
    by_time = {bucket.at: bucket for bucket in found.buckets}
    rows = [
        Bucket(at, by_time[at].count, {v: n for v, n in by_time[at].parts.items() if v and n})
        if at in by_time
        else Bucket(at, 0)
        for at in filled(found.since, found.until, interval)
    ]
    return Histogram(
        stamp(found.since),
        stamp(found.until),
        interval,
        found.total,
        rows,
        cast(Source, found.source),
    )


async def figures_from_summaries(
    client: Connection,
    namespace: str,
    question: Question,
    fields: Sequence[str],
    size: int,
    filters: Sequence[Dsl] = (),
) -> answer.Figures | None:
    """Accesses, tokens and the values of fields with most accesses; None as `from_summaries`, and
    where one of the fields is not kept. Raises SearchFailed, Unreachable."""
    span = await _span(client, namespace, question)
    if span is None:
        return None
    return await answer.figures(
        client, namespace, question.text, *span, fields, size, list(filters)
    )


async def facets_from_summaries(
    client: Connection,
    namespace: str,
    question: Question,
    fields: Sequence[str],
    size: int,
    filters: Sequence[Dsl] = (),
) -> Facets | None:
    """The total, and facets of those of the fields that summaries keep; None as `from_summaries`.
    Raises SearchFailed, Unreachable."""
    kept = [name for name in dict.fromkeys(fields) if name in answer.DIMENSIONS]
    found = await figures_from_summaries(client, namespace, question, kept, size, filters)
    if found is None:
        return None
    source = cast(Source, found.source)
    facets = {name: _facet(ranked, source) for name, ranked in found.fields.items()}
    return Facets(found.total, facets, source, stamp(found.since), stamp(found.until))


def _facet(found: answer.Ranked, source: Source) -> Facet:
    values = [(value, count) for value, count, _ in found.values]
    return Facet(list(values), found.other, found.missing, found.distinct, found.exact, source)


async def _span(
    client: Connection, namespace: str, question: Question
) -> tuple[datetime, datetime] | None:
    """The range of a question; None where it has no beginning and there are no summaries."""
    first = moment(question.since) if question.since else None
    first = first or await _beginning(client, namespace, question)
    last = moment(question.until) if question.until else datetime.now(UTC)
    return None if first is None else (first, last)


async def _beginning(client: Connection, namespace: str, question: Question) -> datetime | None:
    """Since when there are summaries, or details before them; None without summaries."""
    known = await covered(client, namespace)
    if known is None:
        return None
    earliest = await first_time(client, f"{namespace}-access", question)
    return min(known.since, moment(earliest)) if earliest else known.since


def _whole_hours(interval: timedelta) -> timedelta:
    return max(HOUR, -(-interval // HOUR) * HOUR)
