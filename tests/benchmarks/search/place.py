"""An Elasticsearch of the benchmark's own, and documents in it by the path events take."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path

from tests.benchmarks.search.documents import rows
from tests.conftest import settings_for_tests

from gatebook.engines.embedded import EmbeddedEngines
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings

WRITE_ROWS = 10_000
MAX_AGE_DAYS = 3_650
SETTLE_SECONDS = 1.0


@contextmanager
def running(keep: Path | None) -> Iterator[str]:
    """The address of an embedded Elasticsearch whose data is in `keep`, or gone afterwards."""
    home = keep or Path(tempfile.mkdtemp(prefix="gatebook-bench-search-"))
    engines = EmbeddedEngines(settings_for_tests(home))
    try:
        engines.start_one("elasticsearch")
        yield engines.endpoints().elasticsearch_url
    finally:
        engines.stop()
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that waits long enough for a merge."""
    connection = Connection(ElasticsearchSettings(url=url, request_timeout_seconds=1_800.0))
    try:
        yield connection
    finally:
        await connection.close()


async def load(
    connection: Connection, url: str, namespace: str, documents: Iterator[Row], **setup: bool
) -> float:
    """Write documents through template and sink; seconds, the making of documents included."""
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace, **setup)
    sink = ElasticsearchSink(namespace, connection, SinkSettings(max_age_days=MAX_AGE_DAYS))
    began = time.monotonic()
    while batch := list(islice(documents, WRITE_ROWS)):
        outcome = await sink.write(batch)
        if outcome.rejected or outcome.indexed + outcome.duplicates != len(batch):
            raise SystemExit(f"documents were not taken: {outcome.rejected[:1]}")
    return time.monotonic() - began


async def load_once(
    connection: Connection, url: str, namespace: str, count: int, end: datetime
) -> float | None:
    """The same, unless so many are there already (then None)."""
    if await count_of(connection, f"{namespace}-access") == count:
        return None
    return await load(connection, url, namespace, rows(count, end))


async def count_of(connection: Connection, index: str) -> int:
    """Documents that a search finds; 0 where there is no index."""
    await connection.request("POST", f"/{index}/_refresh")
    answer = await connection.request("GET", f"/{index}/_count")
    return int(answer.body["count"]) if answer.status == 200 else 0


async def bytes_of(connection: Connection, index: str) -> int:
    """Bytes on disk of an index or alias, of the primaries, once each is one segment. Of the
    segments themselves: the server's own figure is up to ten seconds old."""
    while True:
        for action in ("_forcemerge?max_num_segments=1", "_flush?force=true", "_refresh"):
            await connection.request("POST", f"/{index}/{action}")
        answer = await connection.request("GET", f"/{index}/_segments")
        shards = [
            [part["size_in_bytes"] for part in copy["segments"].values() if part["search"]]
            for one in answer.body["indices"].values()
            for copies in one["shards"].values()
            for copy in copies
            if copy["routing"]["primary"]
        ]
        if all(len(sizes) <= 1 for sizes in shards):
            return sum(sum(sizes) for sizes in shards)
        await asyncio.sleep(SETTLE_SECONDS)  # waits: for the merge that is under way
