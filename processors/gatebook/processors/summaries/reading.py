"""Reading details: which hours hold how many events, and the rows of one hour.

Only the fields that are counted are read, from doc values: the same values that aggregations see,
whatever else a document holds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.processors.search.service import SearchFailed
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.subjects.identity import is_a_persons
from gatebook.processors.summaries.rows import FIELDS, Key, Row, Rows
from gatebook.schemas.intents import INTENT

Dsl = dict[str, Any]
ONE_HOUR = timedelta(hours=1)
ONE_DAY = timedelta(days=1)
PAGE_DOCUMENTS = 10_000
KEEP_ALIVE = "2m"
TRANSIENT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
NANOSECONDS = 1_000_000_000
# An access counts once, by its terminal event.
NOT_INTENT: Dsl = {"term": {"gatebook.phase": {"value": INTENT}}}
ON_BEHALF = "gatebook.identity.on_behalf_of"
METHOD = "gatebook.identity.method"
ASSURANCE = "gatebook.identity.assurance"
STATUS = "http.response.status_code"
INPUT = "gen_ai.usage.input_tokens"
OUTPUT = "gen_ai.usage.output_tokens"
DURATION = "event.duration"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
IDENTITY = (ON_BEHALF, METHOD, ASSURANCE)
READ = (*FIELDS.values(), *IDENTITY, STATUS, INPUT, OUTPUT, DURATION, FIRST_CHUNK)


async def ask(
    client: Connection, method: str, path: str, *, absent: Any = None, **given: Any
) -> Any:
    """The JSON of a good answer; `absent`, where given, for a 404. A passing refusal is tried
    again; an answer without all shards is no answer. Raises SearchFailed, Unreachable."""
    answer = await client.request(method, path, **given)
    for wait_seconds in TRANSIENT_WAITS_SECONDS:
        if not answer.is_transient:
            break
        await asyncio.sleep(wait_seconds)
        answer = await client.request(method, path, **given)
    if absent is not None and answer.status == 404:
        return absent
    return _good(answer)


def _good(answer: Answer) -> Any:
    found = answer.body
    if answer.status in (200, 201) and isinstance(found, dict):
        if not answer.is_transient and not found.get("timed_out"):
            return found
        raise SearchFailed(
            "some shards did not answer: counts would not be complete",
            "wait until the cluster is green, then try again",
        )
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        raise SearchFailed(
            "Elasticsearch refuses our credentials", "check GATEBOOK_ELASTICSEARCH_API_KEY"
        )
    label = answer.error_type or f"status {answer.status}"
    raise SearchFailed(
        f"Elasticsearch did not do what summaries need ({label})",
        "try again; if it lasts, see its log",
    )


# --- indices of details ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one hour: how many events, and the latest event.ingested among them."""

    count: int = 0
    newest: str = ""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, max(self.newest, other.newest))


@dataclass(frozen=True, slots=True)
class Source:
    """One index of details: what tells that it was not written to since, and its hours."""

    index: str
    mark: str
    hours: Mapping[str, Tally]


async def marks(client: Connection, namespace: str) -> dict[str, str]:
    """The indices of details that a search sees, each with a mark that changes whenever
    something is written to it. Indices that were restored from an archive are not among them:
    their events were counted when they came in."""
    found = await ask(
        client,
        "GET",
        f"/{namespace}-access/_stats/docs",
        absent={},
        params={
            "level": "shards",
            "filter_path": "indices.*.uuid,indices.*.shards.*.seq_no.max_seq_no",
        },
    )
    ours = re.compile(rf"{namespace}-access-(\d{{4}}\.\d\d\.\d\d(-[rp]\d+)*|held-.*)")
    return {
        name: _mark(stats)
        for name, stats in found.get("indices", {}).items()
        if ours.fullmatch(name)
    }


def _mark(stats: Mapping[str, Any]) -> str:
    shards = stats.get("shards", {})
    numbers = (
        max(copy.get("seq_no", {}).get("max_seq_no", -1) for copy in shards[shard])
        for shard in sorted(shards)
    )
    return f"{stats.get('uuid', '')}:{','.join(map(str, numbers))}"


async def source_of(client: Connection, index: str, mark: str) -> Source:
    """What an index holds by hour. `mark` was read before, so what is found is no older."""
    await ask(client, "POST", f"/{index}/_refresh")
    histogram: Dsl = {
        "date_histogram": {"field": "@timestamp", "fixed_interval": "1h", "min_doc_count": 1},
        "aggs": {"newest": {"max": {"field": "event.ingested"}}},
    }
    body = {
        "size": 0,
        "track_total_hits": False,
        "query": {"bool": {"must_not": [NOT_INTENT]}},
        "aggs": {"hours": histogram},
    }
    found = await ask(client, "POST", f"/{index}/_search", json=body)
    buckets = found["aggregations"]["hours"]["buckets"]
    return Source(index, mark, {hour_name(_moment(b["key"])): _tally(b) for b in buckets})


def _tally(bucket: Mapping[str, Any]) -> Tally:
    return Tally(bucket["doc_count"], bucket["newest"].get("value_as_string") or "")


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def hour_name(at: datetime) -> str:
    """`2026-11-23T10`, of an hour in UTC."""
    return f"{at:%Y-%m-%dT%H}"


def hour_of(name: str) -> datetime:
    """The hour a name stands for."""
    return datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC)


def floor_hour(at: datetime) -> datetime:
    """The beginning of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def floor_day(at: datetime) -> datetime:
    """The beginning of the day."""
    return floor_hour(at).replace(hour=0)


# --- rows of one hour --------------------------------------------------------------------------


async def rows_of(
    client: Connection, indices: Sequence[str], at: datetime, ingested_until: str = ""
) -> Rows:
    """The rows of one hour, of the events in these indices; an event that stands in several of
    them counts once. ingested_until: leave out what came in later than that."""
    if not indices:
        return {}
    many = len(indices) > 1
    rows = Counting(by_id=many)
    filters: list[Dsl] = [{"range": {"@timestamp": {"gte": iso(at), "lt": iso(at + ONE_HOUR)}}}]
    if ingested_until:
        filters.append({"range": {"event.ingested": {"lte": ingested_until}}})
    fields = [*READ, "event.id"] if many else list(READ)
    body: Dsl = {
        "query": {"bool": {"filter": filters, "must_not": [NOT_INTENT]}},
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": fields,
    }
    async for hits in pages(client, ",".join(indices), body):
        rows.add([hit.get("fields", {}) for hit in hits])
    return rows.rows


def iso(at: datetime) -> str:
    """As Elasticsearch reads it."""
    return at.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


@asynccontextmanager
async def _view(client: Connection, index: str) -> AsyncIterator[str]:
    found = await ask(client, "POST", f"/{index}/_pit", params={"keep_alive": KEEP_ALIVE})
    try:
        yield str(found["id"])
    finally:
        # If we die here, the server drops the view by itself after KEEP_ALIVE.
        with suppress(Unreachable):
            await client.request("DELETE", "/_pit", json={"id": found["id"]})


async def pages(client: Connection, index: str, body: Dsl) -> AsyncIterator[list[dict[str, Any]]]:
    """All hits of a search in one view, some thousand at once, in no order. The next page is
    under way while the caller works on one."""
    async with _view(client, index) as pit:
        request = {
            **body,
            "size": PAGE_DOCUMENTS,
            "sort": ["_shard_doc"],
            "pit": {"id": pit, "keep_alive": KEEP_ALIVE},
            "track_total_hits": False,
        }
        found = await ask(client, "POST", "/_search", json=request)
        while len(hits := found["hits"]["hits"]) == PAGE_DOCUMENTS:
            request = {**request, "search_after": hits[-1]["sort"]}
            coming = asyncio.ensure_future(ask(client, "POST", "/_search", json=request))
            await asyncio.sleep(0)  # let it be sent
            try:
                yield hits
                found = await coming
            finally:
                coming.cancel()
        if hits:
            yield hits


class Counting:
    """Adds events up into rows. `by_id`: events carry their id, and one counts once."""

    def __init__(self, by_id: bool = False) -> None:
        self.rows: Rows = {}
        self._seen: set[str] | None = set() if by_id else None

    def add(self, events: Iterable[Mapping[str, Sequence[Any]]]) -> None:
        """Count events, each as the doc values of its fields."""
        rows, nothing = self.rows, ("",)
        for fields in events:
            get = fields.get
            if self._seen is not None and self._is_seen(get("event.id", nothing)[0]):
                continue
            values = [get(name, nothing)[0] for name in _KEY_FIELDS]
            if ON_BEHALF in fields and not _is_a_persons(fields):
                values[-1] = ""  # the principal is a service's, the subject somebody else
            key = tuple(values)
            row = rows.get(key)  # type: ignore[call-overload]  # a Key is a tuple of the same texts
            if row is None:
                row = rows[Key(*values)] = Row()
            _count(row, get)

    def _is_seen(self, event_id: str) -> bool:
        assert self._seen is not None
        if event_id in self._seen:
            return True
        self._seen.add(event_id)
        return False


def _is_a_persons(fields: Mapping[str, Sequence[Any]]) -> bool:
    known = {"method": fields.get(METHOD, ("",))[0], "assurance": fields.get(ASSURANCE, ("",))[0]}
    return FIELDS["user"] in fields and is_a_persons(known)


_KEY_FIELDS = tuple(FIELDS.values())
_ZERO = (0,)


def _count(row: Row, get: Any) -> None:
    row.events += 1
    row.input_tokens += get(INPUT, _ZERO)[0]
    row.output_tokens += get(OUTPUT, _ZERO)[0]
    status = get(STATUS, _ZERO)[0] // 100
    row.statuses[status if 0 < status < 6 else 0] += 1
    duration = get(DURATION)
    if duration is not None:
        row.duration.add(duration[0])
    first_chunk = get(FIRST_CHUNK)
    if first_chunk is not None:
        row.first_chunk.add(round(first_chunk[0] * NANOSECONDS))
