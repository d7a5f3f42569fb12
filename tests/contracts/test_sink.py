"""What every sink promises, on real Elasticsearch and on real files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import BulkOutcome, Row, Sink
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.ndjson import NdjsonSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings

Documents = dict[tuple[str, str], Any]
LIMIT_BYTES = 64 * 1024
SETTINGS = SinkSettings(max_row_bytes=LIMIT_BYTES, max_request_bytes=64 * 1024)
NOW = datetime.now(UTC).replace(microsecond=0)


def make_row(number: int, *, when: datetime = NOW, model: str = "m", id_: str = "") -> Row:
    """An access event as intake renders it."""
    identity = id_ or f"0192e4a0-0000-7000-8000-{number:012d}"
    digest = f"sha256:{number}-{model}"
    document = {
        "@timestamp": when.isoformat(),
        "event": {"id": identity, "hash": digest, "kind": "event"},
        "gen_ai": {"request": {"model": model}},
    }
    body = json.dumps(document).encode()
    return Row("access", when.strftime("%Y.%m.%d"), identity, digest, body)


def make_finding(number: int, reason: str = "too many calls") -> Row:
    """A finding: a kind of document that has no event.hash."""
    document = {
        "@timestamp": NOW.isoformat(),
        "event": {"id": f"f{number}", "reason": reason},
    }
    return Row("finding", NOW.strftime("%Y.%m.%d"), f"f{number}", "", json.dumps(document).encode())


class Store:
    """A sink under test: how to open it, and what stands in its store."""

    def __init__(
        self, open_sink: Callable[[], Sink], documents: Callable[[], Awaitable[Documents]]
    ) -> None:
        self.open = open_sink
        self.documents = documents


def ndjson_store(namespace: str, folder: Path) -> Store:
    async def documents() -> Documents:
        found: Documents = {}
        for path in sorted(folder.glob("*.ndjson")):  # noqa: ASYNC240  # nothing else runs
            lines = path.read_bytes().splitlines()
            for action, body in zip(lines[::2], lines[1::2], strict=True):
                create = json.loads(action)["create"]
                found[create["_index"], create["_id"]] = json.loads(body)
        return found

    return Store(lambda: NdjsonSink(namespace, folder, SETTINGS), documents)


async def elasticsearch_store(namespace: str, url: str, connection: Connection) -> Store:
    await setup_elasticsearch(ElasticsearchSettings(url=url), namespace)

    async def documents() -> Documents:
        await connection.request("POST", f"/{namespace}-*/_refresh")
        answer = await connection.request(
            "POST", f"/{namespace}-*/_search", json={"size": 10_000, "query": {"match_all": {}}}
        )
        hits = answer.body["hits"]["hits"]
        return {(hit["_index"], hit["_id"]): hit["_source"] for hit in hits}

    return Store(lambda: ElasticsearchSink(namespace, connection, SETTINGS), documents)


@pytest.fixture(params=["ndjson", "elasticsearch"])
async def store(
    request: pytest.FixtureRequest, namespace: str, tmp_path: Path
) -> AsyncIterator[Store]:
    if request.param == "ndjson":
        yield ndjson_store(namespace, tmp_path)
        return
    url = request.getfixturevalue("engines").elasticsearch_url
    connection = Connection(ElasticsearchSettings(url=url))
    yield await elasticsearch_store(namespace, url, connection)
    await drop_indices(connection, namespace)
    await connection.close()


async def drop_indices(connection: Connection, namespace: str) -> None:
    """A run of many tests must not reach the cluster's limit of shards."""
    found = await connection.request("GET", f"/{namespace}-*/_alias")
    if found.body:
        await connection.request("DELETE", "/" + ",".join(found.body))


def reasons(outcome: BulkOutcome) -> list[tuple[str, str]]:
    return sorted((rejected.row.id, rejected.reason) for rejected in outcome.rejected)


async def test_rows_are_stored_as_they_are_in_the_index_of_their_own_day(
    store: Store, namespace: str
) -> None:
    """Each row is found in the index of its own day, with the same content."""
    rows = [make_row(n, when=NOW - timedelta(days=n)) for n in range(3)]
    assert await store.open().write(rows) == BulkOutcome(indexed=3)
    assert await store.documents() == {
        (f"{namespace}-access-{row.day}", row.id): json.loads(row.body) for row in rows
    }


async def test_writing_nothing_stores_nothing(store: Store) -> None:
    """An empty write is decided at once."""
    assert await store.open().write([]) == BulkOutcome()
    assert await store.documents() == {}


async def test_the_same_rows_again_are_duplicates(store: Store) -> None:
    """A replay, by the same process or by the next, changes nothing and says so."""
    rows = [make_row(n) for n in range(50)] + [make_finding(n) for n in range(5)]
    sink = store.open()
    assert await sink.write(rows) == BulkOutcome(indexed=55)
    before = await store.documents()
    assert await sink.write(rows) == BulkOutcome(duplicates=55)
    assert await store.open().write(rows) == BulkOutcome(duplicates=55)
    assert await store.documents() == before


async def test_a_row_twice_in_one_write_is_stored_once(store: Store) -> None:
    """Two copies in one batch: one is stored, the other is a duplicate."""
    rows = [make_row(1), make_row(2), make_row(1)]
    assert await store.open().write(rows) == BulkOutcome(indexed=2, duplicates=1)
    assert len(await store.documents()) == 2


async def test_another_document_under_a_known_id_is_a_conflict(store: Store) -> None:
    """The first document stays, the second is rejected alone, its neighbours go on."""
    sink = store.open()
    await sink.write([make_row(1), make_finding(1)])
    before = await store.documents()
    outcome = await sink.write(
        [make_row(0), make_row(1, model="forged"), make_finding(1, "other"), make_row(2)]
    )
    assert outcome.indexed == 2
    assert reasons(outcome) == [(make_row(1).id, "id_conflict"), ("f1", "id_conflict")]
    assert "forged" not in repr([rejected.detail for rejected in outcome.rejected])
    assert before.items() <= (await store.documents()).items()


async def test_an_event_delivered_again_under_another_number_is_a_duplicate(store: Store) -> None:
    """A client that heard no answer sends its event again: the number differs, not the event."""

    def numbered(sequence: int) -> Row:
        row = make_row(1)
        document = json.loads(row.body)
        document["event"] |= {"hash": f"h{sequence}", "created": NOW.isoformat()}
        document["gatebook"] = {"producer_id": "p", "epoch": 1, "sequence": sequence}
        return replace(row, hash=f"h{sequence}", body=json.dumps(document).encode())

    sink = store.open()
    assert await sink.write([numbered(1)]) == BulkOutcome(indexed=1)
    assert await sink.write([numbered(2)]) == BulkOutcome(duplicates=1)
    assert await store.open().write([numbered(3)]) == BulkOutcome(duplicates=1)
    ((_, stored),) = (await store.documents()).items()
    assert stored["gatebook"]["sequence"] == 1


async def test_a_document_whose_keys_come_in_another_order_is_the_same(store: Store) -> None:
    """Where a kind has no hash, content decides, not the order of keys."""
    sink = store.open()
    row = make_finding(1)
    turned = json.dumps(dict(reversed(json.loads(row.body).items()))).encode()
    assert turned != row.body
    await sink.write([row])
    assert await sink.write([replace(row, body=turned)]) == BulkOutcome(duplicates=1)


POISON = {
    "cut body": lambda row: replace(row, body=row.body[:-5] + b"}"),
    "no object": lambda row: replace(row, body=b'["list"]'),
    "empty body": lambda row: replace(row, body=b""),
    "line feed in body": lambda row: replace(row, body=row.body.replace(b": ", b":\n", 1)),
    "second action in body": lambda row: replace(
        row, body=b'{}\n{"create":{"_index":"other","_id":"1"}}\n{}'
    ),
    "not UTF-8": lambda row: replace(row, body=row.body.replace(b'"m"', b'"\xff\xfe"')),
    "empty id": lambda row: replace(row, id=""),
    "id too long": lambda row: replace(row, id="i" * 513),
    "line feed in id": lambda row: replace(row, id="a\nb"),
    "lone surrogate in id": lambda row: replace(row, id="a\ud800b"),
    "unknown kind": lambda row: replace(row, kind="../x"),
    "impossible day": lambda row: replace(row, day="2026.02.30"),
    "day that is a pattern": lambda row: replace(row, day="*"),
}


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_poisoned_row_is_rejected_alone(store: Store, poison: str, position: int) -> None:
    """Wherever it stands in the batch, its neighbours are stored."""
    good = [make_row(1), make_row(2)]
    bad = POISON[poison](make_row(3))
    outcome = await store.open().write([*good[:position], bad, *good[position:]])
    assert outcome.indexed == 2
    assert [(r.row, r.reason) for r in outcome.rejected] == [(bad, "index_rejected")]
    assert {key[1] for key in await store.documents()} == {row.id for row in good}


async def test_a_row_above_the_limit_is_rejected_as_oversize(store: Store) -> None:
    """At the limit a row is stored, one byte above it is not; neighbours are."""
    rows = [make_row(1), make_row(2), make_row(3)]
    padded = [
        replace(row, body=row.body[:-1] + b" " * (size - len(row.body)) + b"}")
        for row, size in zip(rows[:2], (LIMIT_BYTES, LIMIT_BYTES + 1), strict=True)
    ]
    outcome = await store.open().write([*padded, rows[2]])
    assert outcome.indexed == 2
    assert reasons(outcome) == [(rows[1].id, "oversize")]


async def test_ids_with_odd_characters_are_kept(store: Store) -> None:
    """Quotes, backslashes and letters beyond ASCII in an id neither break nor change it."""
    ids = ['a"b', "a\\b", "é🙂", "a b", "a/b?c#d%", "i" * 512]
    rows = [make_row(n, id_=name) for n, name in enumerate(ids)]
    sink = store.open()
    assert await sink.write(rows) == BulkOutcome(indexed=len(ids))
    assert await sink.write(rows) == BulkOutcome(duplicates=len(ids))
    assert {key[1] for key in await store.documents()} == set(ids)


async def test_more_than_one_request_holds_is_stored_whole(store: Store) -> None:
    """A write larger than a request's bounds comes out complete."""
    rows = [make_row(n) for n in range(2_500)]
    assert await store.open().write(rows) == BulkOutcome(indexed=2_500)
    assert len(await store.documents()) == 2_500


async def test_overlapping_writes_of_the_same_rows_store_them_once(store: Store) -> None:
    """Two writers at once: every row is stored by one and a duplicate for the other."""
    rows = [make_row(n) for n in range(300)]
    sink = store.open()
    first, second = await asyncio.gather(sink.write(rows), sink.write(rows))
    assert first + second == BulkOutcome(indexed=300, duplicates=300)
    assert len(await store.documents()) == 300
