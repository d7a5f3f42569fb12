"""ElasticsearchSink against replaying the same bulk bodies over a bare HTTP client."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from tests.benchmarks.context import Context, create_index, drop_indices
from tests.benchmarks.events import encoded_events, frames
from tests.benchmarks.report import SPEED, Figure, compare, interleaved
from tests.pipeline import Pipeline

from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, Source, process_frame
from gatebook.processors.redact import Redactor
from gatebook.processors.sinks import bulk
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.schemas.documents import day_text

BENCH = "sink"
WRITE_ROWS = 10_000  # about what the index worker hands over at once
REPLAY = "replay over http.client"


@dataclass(frozen=True)
class Round:
    """Documents a second, and CPU microseconds of this process a document."""

    documents_per_second: float
    cpu: float


def run(context: Context) -> list[Figure]:
    """Both write the same rows, in the same requests, as many at once."""
    rows = _rows(context.events)
    found = interleaved(
        context.rounds,
        {"gatebook": partial(_ours, context, rows), "bare": partial(_bare, context, rows)},
    )
    ours, bare = found["gatebook"], found["bare"]
    rates = [r.documents_per_second for r in ours], [r.documents_per_second for r in bare]
    costs = [r.cpu for r in ours], [r.cpu for r in bare]
    return [
        compare(BENCH, "rows to index", "docs/s", *rates, REPLAY, SPEED),
        compare(BENCH, "rows to index: client CPU a document", "us", *costs, REPLAY),
    ]


def _rows(count: int) -> list[Row]:
    redactor = Redactor.default(b"bench-key-0123456789", "e1")
    context = IntakeContext(Catalog(), redactor, 4)
    source = Source("access.v1", 0, 1)
    return [
        Row("access", day_text(d.timestamp), d.id, d.hash, d.body)
        for frame in frames(encoded_events(count))
        for d in process_frame(frame, source, context, time.time_ns()).documents
    ]


def _place(context: Context, rows: Sequence[Row]) -> Pipeline:
    """A namespace whose indices are there already: making them is not what is timed."""
    place = context.pipeline()
    for name in {bulk.index_name(place.namespace, row) for row in rows}:
        create_index(place, name)
    return place


def _ours(context: Context, rows: Sequence[Row]) -> Round:
    place = _place(context, rows)
    settings = ElasticsearchSettings(url=context.engines.elasticsearch_url)

    async def write() -> int:
        sink = ElasticsearchSink(place.namespace, settings)
        indexed = 0
        for first in range(0, len(rows), WRITE_ROWS):
            outcome = await sink.write(rows[first : first + WRITE_ROWS])
            indexed += outcome.indexed
        await sink.close()
        return indexed

    begun, cpu = time.monotonic(), time.process_time()
    indexed = asyncio.run(write())
    done = _round(begun, cpu, len(rows))
    assert indexed == len(rows)
    _check(place, len(rows))
    return done


def _bare(context: Context, rows: Sequence[Row]) -> Round:
    place = _place(context, rows)
    limits = SinkSettings()
    chunks = bulk.chunks(rows, limits.max_request_bytes, limits.max_request_documents)
    bodies = [bulk.body(place.namespace, chunk) for chunk in chunks]
    with ThreadPoolExecutor(limits.concurrent_requests) as pool:
        begun, cpu = time.monotonic(), time.process_time()
        workers = limits.concurrent_requests
        parts = [bodies[number::workers] for number in range(workers)]
        list(pool.map(partial(_replay, context.engines.elasticsearch_url), parts))
        done = _round(begun, cpu, len(rows))
    _check(place, len(rows))
    return done


def _replay(url: str, bodies: Sequence[bytes]) -> None:
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"content-type": "application/x-ndjson"}
    for body in bodies:
        client.request("POST", f"/_bulk?filter_path={bulk.FILTER_PATH}", body, headers)
        answer = client.getresponse()
        assert answer.status == 200, answer.status
        text = answer.read()
        assert b'"errors":false' in text, text[:300]
    client.close()


def _round(begun: float, cpu: float, count: int) -> Round:
    seconds = time.monotonic() - begun
    return Round(count / seconds, (time.process_time() - cpu) / count * 1e6)


def _check(place: Pipeline, expected: int) -> None:
    assert place.indexed() == expected, (place.indexed(), expected)
    drop_indices(place)
    place.close()
