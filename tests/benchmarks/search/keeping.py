"""What keeping costs: bytes a document, speed of summing up, time of a retention run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from tests.benchmarks.search.documents import rows
from tests.benchmarks.search.place import WRITE_ROWS, bytes_of, count_of, load

from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.state import State
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.erasure import Privileged
from gatebook.processors.summaries import keeping
from gatebook.processors.summaries.answer import totals
from gatebook.processors.summaries.rollup import Report, Rollup
from gatebook.processors.summaries.store import SummaryStore

POLICY = b"""
version = 1
name = "bench"
[defaults]
metadata = "7d"
redacted = "7d"
full = "7d"
[[rule]]
name = "two-thirds-go"
match = { tenant = ["tenant-0*", "tenant-1*", "tenant-2*"] }
metadata = "36h"
redacted = "36h"
full = "36h"
"""


def one_day(count: int) -> Iterator[Row]:
    """Documents of a day long gone, as many as that."""
    return rows(count, datetime(2026, 11, 18, tzinfo=UTC), days=1)


async def sizes(connection: Connection, url: str, count: int) -> dict[str, float]:
    """Bytes a document: by our template, with the better codec, and by dynamic mapping (fields
    guessed by Elasticsearch, texts also as keywords). Same documents, one index each, merged."""
    found: dict[str, float] = {}
    for name, is_best in (("template", False), ("best_compression", True)):
        namespace = f"size{name.replace('_', '')}"
        await load(connection, url, namespace, one_day(count), best_compression=is_best)
        found[name] = await bytes_of(connection, f"{namespace}-access") / count
        await _drop(connection, namespace)
    found["dynamic"] = await _dynamic(connection, "dynamic-access", count, {})
    codec = {"settings": {"index.codec": "best_compression"}}
    found["dynamic best_compression"] = await _dynamic(connection, "dynamic-best", count, codec)
    return found


async def _dynamic(
    connection: Connection, index: str, count: int, body: dict[str, dict[str, str]]
) -> float:
    await connection.request("DELETE", f"/{index}")
    await connection.request("PUT", f"/{index}", json=body)
    documents = one_day(count)
    while batch := list(islice(documents, WRITE_ROWS)):
        lines = b"".join(
            f'{{"create":{{"_index":"{index}","_id":"{row.id}"}}}}\n'.encode() + row.body + b"\n"
            for row in batch
        )
        answer = await connection.request("POST", "/_bulk", ndjson=lines)
        if answer.status != 200 or answer.body["errors"]:
            raise SystemExit("documents were not taken by dynamic mapping")
    found = await bytes_of(connection, index) / count
    await connection.request("DELETE", f"/{index}")
    return found


async def sum_up(connection: Connection, namespace: str, until: datetime) -> Report:
    """All hours anew, as after a `rebuild`."""
    store = SummaryStore(connection, namespace)
    async with store.lease() as lease:
        report = await Rollup(store, lease).run(until, force=True)
    found = await totals(connection, namespace, until=until)
    assert found is not None
    assert sum(group.row.events for group in found.groups) == report.events
    return report


class _Summed:
    """The summaries of retention, the real ones."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._where = (connection, namespace)

    async def ensure(self, since: datetime, until: datetime) -> None:
        await keeping.ensure(*self._where, since, until)

    async def freeze(self, leaving: list[str], coming: list[str]) -> None:
        await keeping.freeze(*self._where, leaving, coming)


async def retain(connection: Connection, url: str, count: int, home: Path) -> tuple[float, str]:
    """Seconds of a run over ten days of so many documents: three go whole, six are written anew
    without three quarters of their documents, one stays. Everything is summed up before. Also
    what is left, in words."""
    namespace = "retained"
    await _drop(connection, namespace)
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    await load(connection, url, namespace, rows(count, now, days=10))
    await sum_up(connection, namespace, now)
    cluster = Cluster(connection, namespace)
    manager = Manager(
        cluster,
        State(cluster),
        POLICY,
        Signer.from_file(home / "certificates.key"),
        _record,
        _nobody,
        _Summed(connection, namespace),  # type: ignore[arg-type]  # lists are sequences
    )
    began = time.monotonic()
    await manager.apply("bench", "benchmark")
    seconds = time.monotonic() - began
    left = await count_of(connection, f"{namespace}-access")
    kept = await totals(connection, namespace, until=now + timedelta(hours=1))
    assert kept is not None
    assert sum(group.row.events for group in kept.groups) == count
    await _drop(connection, namespace)
    return seconds, f"{left:,} of {count:,} documents left; summaries still say {count:,}"


async def _record(act: Privileged) -> None:
    """The pipeline is not part of this measurement."""


async def _nobody() -> dict[str, tuple[str, ...]]:
    return {}


async def _drop(connection: Connection, namespace: str) -> None:
    names = await connection.request(
        "GET", f"/{namespace}-*/_alias", params={"expand_wildcards": "all"}
    )
    for name in names.body or {}:
        await connection.request("DELETE", f"/{name}")
