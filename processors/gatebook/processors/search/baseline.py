"""How the figure of a finding went before and after: counted from events, one point a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gatebook.processors.search.display import value_at
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.histogram import EPOCH, aggregate
from gatebook.processors.search.question import Question, moment, stamp
from gatebook.processors.sinks.connection import Connection

WINDOWS_BEFORE, WINDOWS_AFTER, MAX_POINTS = 24, 4, 120
SHORTEST = timedelta(seconds=1)
_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
_COUNTED = frozenset(
    {
        "accesses", "requests", "events", "acts", "answers", "calls", "blocks", "failures",
        "notices", "large requests", "failed accesses", "successful requests", "slow requests",
        "refused accesses", "prompts without an answer", "requests a minute",
        "failures a minute", "invalid requests", "empty answers", "denied requests",
        "blocked requests", "privileged acts",
    }
)  # fmt: skip
_DISTINCT = {
    "models": "gen_ai.request.model",
    "people": "user.id",
    "addresses": "source.ip",
    "paths": "url.path",
    "keys": "gatebook.identity.key_id",
    "versions": "service.version",
    "producers": "gatebook.producer_id",
    "different inputs": "gatebook.content_digest.input",
}


@dataclass(frozen=True, slots=True)
class Series:
    """Points of (start, figure) every `interval`; exact: the figure is that of the unit, else it
    is a count of accesses."""

    since: str
    until: str
    interval: timedelta
    points: list[tuple[str, float]]
    exact: bool


async def series(
    client: Connection,
    namespace: str,
    question: Question,
    finding: Mapping[str, Any],
    now: datetime,
) -> Series:
    """The figure of a finding in its own window, and in windows before and after it. The question
    is of the finding's own search. Raises SearchFailed, Unreachable."""
    since, until = window_of(finding)
    unit = str(value_at(finding, "gatebook.unit") or "")
    interval = _interval(finding, unit, until - since)
    first = since - interval * WINDOWS_BEFORE
    last = min(max(until, since + interval) + interval * WINDOWS_AFTER, max(now, until))
    if (last - first) // interval > MAX_POINTS:  # a long incident: its end, and what led to it
        last = first + interval * MAX_POINTS
    asked = question.within(stamp(first), stamp(last))
    end = until + timedelta(milliseconds=1)  # the window's last millisecond is of the window
    counted = {
        "before": _over_windows(unit, since, interval),
        "window": _within(unit, since, end),
        "after": _over_windows(unit, end, interval),
    }
    found = await aggregate(client, f"{namespace}-access", asked, counted)
    if until - since > interval:  # longer than what one figure is of: one point an interval
        points = _points(found, "before", unit, interval, first, last)
    else:  # the window itself is one point, of what the detector counted and no more
        own = _figure(found["window"], unit) if "window" in found else 0.0
        points = [
            *_points(found, "before", unit, interval, first, since),
            (stamp(since), own),
            *_points(found, "after", unit, interval, end, last),
        ]
    exact = unit in _COUNTED or unit in _DISTINCT or _is_tokens(unit) or _is_seconds(unit)
    return Series(stamp(since), stamp(until), interval, points, exact or _is_share(unit))


def _points(
    found: Mapping[str, Any],
    name: str,
    unit: str,
    interval: timedelta,
    first: datetime,
    last: datetime,
) -> list[tuple[str, float]]:
    """A point for each interval from `first` to before `last`; 0 where nothing was."""
    by_time = {
        EPOCH + timedelta(milliseconds=bucket["key"]): _figure(bucket, unit)
        for bucket in found.get(name, {}).get("buckets", [])
    }
    points, at = [], first
    while at < last:
        points.append((stamp(at), by_time.get(at, 0.0)))
        at += interval
    return points


def _within(unit: str, since: datetime, end: datetime) -> Dsl:
    """What is in a window, up to but not including `end`."""
    times = {"gte": stamp(since), "lt": stamp(end)}
    inner = _inner(unit)
    return {
        "filter": {"range": {"@timestamp": times}},
        **({"aggs": inner} if inner else {}),
    }


def window_of(finding: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The window of a finding, to the millisecond; of one that names none, the instant itself."""
    at = str(finding["@timestamp"])
    since = moment(str(value_at(finding, "event.start") or at))
    until = moment(str(value_at(finding, "event.end") or at))
    return _whole(min(since, until)), _whole(max(since, until))


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _interval(finding: Mapping[str, Any], unit: str, span: timedelta) -> timedelta:
    if unit.endswith("a minute"):
        return timedelta(minutes=1)
    if "an hour" in unit:
        return timedelta(hours=1)
    seconds = value_at(finding, "gatebook.window_seconds")
    length = timedelta(seconds=seconds) if isinstance(seconds, int | float) and seconds else span
    return max(SHORTEST, _whole(EPOCH + length) - EPOCH)


def _over_windows(unit: str, since: datetime, interval: timedelta) -> Dsl:
    """Buckets of which one begins at `since`."""
    ms = timedelta(milliseconds=1)
    histogram = {
        "field": "@timestamp",
        "fixed_interval": f"{interval // ms}ms",
        "offset": f"{(since - EPOCH) % interval // ms}ms",
        "min_doc_count": 1,
    }
    inner = _inner(unit)
    return {"date_histogram": histogram, **({"aggs": inner} if inner else {})}


def _inner(unit: str) -> Dsl:
    if _is_tokens(unit):
        names = _TOKENS[1:] if unit.endswith("out") else _TOKENS
        return {f"sum{n}": {"sum": {"field": name}} for n, name in enumerate(names)}
    if unit in _DISTINCT:
        return {"distinct": {"cardinality": {"field": _DISTINCT[unit]}}}
    if _is_seconds(unit):
        return {"average": {"avg": {"field": "event.duration"}}}
    if _is_share(unit):
        return {"failed": {"filter": {"term": {"event.outcome": {"value": "failure"}}}}}
    return {}


def _figure(bucket: Dsl, unit: str) -> float:
    if _is_tokens(unit):
        return float(sum(part["value"] for name, part in bucket.items() if name[:3] == "sum"))
    if unit in _DISTINCT:
        return float(bucket["distinct"]["value"])
    if _is_seconds(unit):
        return float((bucket["average"]["value"] or 0) / 1e9)
    if _is_share(unit):
        return float(bucket["failed"]["doc_count"] / max(1, bucket["doc_count"]))
    return float(bucket["doc_count"])


def _is_tokens(unit: str) -> bool:
    return unit.startswith("tokens")


def _is_seconds(unit: str) -> bool:
    return unit.startswith("seconds")


def _is_share(unit: str) -> bool:
    return unit == "of its requests failed"
