"""Counts over time: buckets without gaps, of a length that people read easily."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from gatebook.processors.search.asking import TIME_FORMAT, ask
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.question import Question, countable, moment, stamp
from gatebook.processors.search.spelling import spelled_out
from gatebook.processors.sinks.connection import Connection

Source = Literal["details", "summaries", "both"]
MAX_PARTS = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
# Lengths of buckets in milliseconds, least first. Beyond, whole numbers of the last one.
NICE_MS = (
    *(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(n * _SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 4, 6, 12)),
    *(n * _DAY for n in (1, 2, 7, 14, 28)),
)
NO_BUCKETS: Dsl = {"aggregations": {}, "hits": {"total": {"value": 0}}}


@dataclass(frozen=True, slots=True)
class Bucket:
    """One interval: its start, how many, and how many per value of the split."""

    at: datetime
    count: int
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Buckets in order, without gaps. `since` and `until` are the range that was counted; the
    first and the last bucket may reach beyond it. `source`: details, summaries or both."""

    since: str
    until: str
    interval: timedelta
    total: int
    buckets: list[Bucket]
    source: Source = "details"


def interval_for(since: datetime, until: datetime, buckets: int) -> timedelta:
    """The shortest nice length of which at most `buckets` cover the range, wherever they begin."""
    span_ms = max(1, -(-(until - since) // timedelta(milliseconds=1)))
    index = bisect_left(NICE_MS, -(-span_ms // max(1, buckets)))
    for length in NICE_MS[index:]:
        if _covering(since, until, length) <= buckets:
            return timedelta(milliseconds=length)
    last = NICE_MS[-1]
    times = -(-span_ms // (last * max(1, buckets)))
    while _covering(since, until, last * times) > buckets and times < span_ms:
        times += 1
        if buckets == 1:  # one bucket from 1970 on covers everything
            times = -(-int((until - EPOCH).total_seconds() * 1000) // last)
            break
    return timedelta(milliseconds=last * times)


def _covering(since: datetime, until: datetime, length_ms: int) -> int:
    length = timedelta(milliseconds=length_ms)
    first, last = floor(since, length), floor(until - timedelta(microseconds=1), length)
    return (last - first) // length + 1


def floor(at: datetime, interval: timedelta) -> datetime:
    """The start of the bucket that holds a moment: a multiple of the interval since 1970."""
    return EPOCH + (at - EPOCH) // interval * interval


def filled(since: datetime, until: datetime, interval: timedelta) -> list[datetime]:
    """The starts of all buckets of a range."""
    starts, at = [], floor(since, interval)
    while at < until:
        starts.append(at)
        at += interval
    return starts


async def histogram(
    client: Connection,
    namespace: str,
    question: Question,
    buckets: int,
    split_by: str | None = None,
    *,
    now: datetime,
    interval: timedelta | None = None,
) -> Histogram:
    """Counts of documents over the question's range; an open range begins at the first match and
    ends now. Bounds are absolute and buckets are aligned, so that an index whose whole day is
    within the range is counted once and then remembered by Elasticsearch.

    The parts are of the MAX_PARTS most frequent values; what is not in them has other values, or
    none. Raises BadRequest, SearchFailed, Unreachable.
    """
    index = f"{namespace}-{question.kind}"
    since, until = await _closed(client, index, question, now)
    length = interval or interval_for(moment(since), moment(until), buckets)
    starts = filled(moment(since), moment(until), length)
    asked = await spelled_out(client, question.within(since, until), index)
    # One request: each one costs every index the reading of the query.
    aggregations = _aggregations(length, split_by)
    found = await aggregate(client, index, asked, aggregations)
    whole, split = times_of(found.get("over_time")), _parts_of(found.get("parts"))
    rows = [
        Bucket(at, whole.get(at, 0), {v: c[at] for v, c in split.items() if c.get(at)})
        for at in starts
    ]
    return Histogram(since, until, length, sum(b.count for b in rows), rows)


async def _closed(
    client: Connection, index: str, question: Question, now: datetime
) -> tuple[str, str]:
    until = question.until or stamp(_next_second(now))
    if question.since:
        return question.since, until
    first = await first_time(client, index, question)
    since = min(first, until) if first else until
    if since == until:
        since = stamp(moment(until) - timedelta(seconds=1))
    return since, until


def _next_second(now: datetime) -> datetime:
    return now.replace(microsecond=0) + timedelta(seconds=1)


async def first_time(client: Connection, index: str, question: Question) -> str | None:
    """The time of the first match; None where there is none."""
    body = {
        "size": 1,
        "query": question.dsl,
        "sort": [{"@timestamp": {"order": "asc", "format": TIME_FORMAT}}],
        "_source": False,
        "track_total_hits": False,
    }
    found = await ask(client, f"/{index}/_search", absent={"hits": {"hits": []}}, json=body)
    hits = found["hits"]["hits"]
    return str(hits[0]["sort"][0]) if hits else None


def over_time(interval: timedelta) -> Dsl:
    """The aggregation of a histogram; empty buckets are filled in here, not there."""
    length = f"{interval // timedelta(milliseconds=1)}ms"
    return {"date_histogram": {"field": "@timestamp", "fixed_interval": length, "min_doc_count": 1}}


def _aggregations(interval: timedelta, split_by: str | None) -> Dsl:
    whole = {"over_time": over_time(interval)}
    if split_by is None:
        return whole
    terms = {"terms": {"field": split_by, "size": MAX_PARTS, "shard_size": 10 * MAX_PARTS}}
    return {**whole, "parts": {**terms, "aggs": whole}}


def _parts_of(aggregation: Dsl | None) -> dict[str, dict[datetime, int]]:
    """Value of the split to its counts by bucket start."""
    values = (aggregation or {}).get("buckets", [])
    return {label(value): times_of(value["over_time"]) for value in values}


def check_split(question: Question, fields: Any, split_by: str | None) -> None:
    """Raises BadRequest where a field cannot be split by."""
    if split_by is not None:
        countable(split_by, fields)


def label(bucket: Dsl) -> str:
    """The value of a bucket as text: true rather than 1."""
    return str(bucket.get("key_as_string", bucket["key"]))


def times_of(aggregation: Dsl | None) -> dict[datetime, int]:
    """Bucket start to count."""
    rows = (aggregation or {}).get("buckets", [])
    return {EPOCH + timedelta(milliseconds=row["key"]): row["doc_count"] for row in rows}


async def aggregate(
    client: Connection, index: str, question: Question, aggregations: Dsl, total: bool = False
) -> dict[str, Any]:
    """The aggregations of a question by name; with `total`, the count of matches as `total`.
    No hits come with it, so that shards may remember the answer. {} where there is no index."""
    body = {
        "size": 0,
        "query": question.dsl,
        "track_total_hits": total,
        **({"aggs": aggregations} if aggregations else {}),
    }
    found = await ask(client, f"/{index}/_search", absent=NO_BUCKETS, json=body)
    result = dict(found.get("aggregations", {}))
    return {**result, "total": int(found["hits"]["total"]["value"])} if total else result
