"""Histograms over long ranges, from summaries: a few documents an hour instead of every access."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.histogram import (
    Bucket,
    Histogram,
    Source,
    filled,
    first_time,
    interval_for,
)
from gatebook.processors.search.question import Question, moment, stamp
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries import answer
from gatebook.processors.summaries.rollup import covered

HOUR = timedelta(hours=1)


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
    first = moment(question.since) if question.since else None
    if first is None and (first := await _beginning(client, namespace, question)) is None:
        return None
    last = moment(question.until) if question.until else datetime.now(UTC)
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
        Bucket(at, by_time[at].count, {v: n for v, n in by_time[at].parts.items() if v})
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


async def _beginning(client: Connection, namespace: str, question: Question) -> datetime | None:
    """Since when there are summaries, or details before them; None without summaries."""
    known = await covered(client, namespace)
    if known is None:
        return None
    earliest = await first_time(client, f"{namespace}-access", question)
    return min(known.since, moment(earliest)) if earliest else known.since


def _whole_hours(interval: timedelta) -> timedelta:
    return max(HOUR, -(-interval // HOUR) * HOUR)
