"""An archive back into an index that can be searched, apart from the live one.

Restored documents stand in `{namespace}-restored-*`: the same search finds them there, and the
live alias never counts them. Restoring again changes nothing: an id that is there stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from gatebook.processors.archive.manifest import Manifest
from gatebook.processors.archive.records import Record, nanoseconds
from gatebook.processors.archive.store import Store
from gatebook.processors.archive.verify import records_of
from gatebook.processors.retention.holds import Hold
from gatebook.processors.search.service import SearchFailed, refresh
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import BulkOutcome, Row
from gatebook.processors.sinks.connection import Answer, Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.processors.subjects.erasure import stripped_of
from gatebook.processors.subjects.erasures import tag_of
from gatebook.processors.subjects.layers import value_at
from gatebook.processors.subjects.searchable import SearchText
from gatebook.processors.subjects.state import SubjectState, key_id, read_states
from gatebook.processors.subjects.store import SubjectStore
from gatebook.schemas.documents import day_text

SUFFIX = "-restored"
ROWS_AT_ONCE = 4_000
BYTES_AT_ONCE = 16 * 1024 * 1024
ANY_DAY = 365_000
MAX_REASONS = 5
Told = Callable[[int, int], None]


def restored_namespace(namespace: str) -> str:
    """Where what was restored is searched."""
    return namespace + SUFFIX


@dataclass
class Restored:
    """What a restore did. already: documents that were there. erased: documents that lost what
    an erasure since the export would have taken. reasons: why rows were rejected, a few."""

    documents: int = 0
    indexed: int = 0
    already: int = 0
    rejected: int = 0
    erased: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, outcome: BulkOutcome) -> None:
        """Count what became of some rows."""
        self.indexed += outcome.indexed
        self.already += outcome.duplicates
        self.rejected += len(outcome.rejected)
        found = [f"{one.reason}: {one.detail}" for one in outcome.rejected]
        self.reasons = list(dict.fromkeys([*self.reasons, *found]))[:MAX_REASONS]


@dataclass
class Restorer:
    """Restores into the cluster of `settings`. `subjects` tells what was erased since; `text`
    opens sealed content for search, as the index worker does; None leaves it sealed."""

    namespace: str
    settings: ElasticsearchSettings
    sink: SinkSettings
    subjects: SubjectStore
    text: SearchText | None = None

    async def run(self, store: Store, manifest: Manifest, told: Told) -> Restored:
        """Index every document of an archive that was verified before. Interrupted, the same call
        goes on. Searches find them on return. Raises Differs, Fatal, StoreAway."""
        await setup_elasticsearch(self.settings, restored_namespace(self.namespace))
        limits = msgspec.structs.replace(self.sink, max_age_days=ANY_DAY, max_future_days=ANY_DAY)
        connection = Connection(self.settings)
        sink = ElasticsearchSink(restored_namespace(self.namespace), connection, limits)
        done = Restored()
        try:
            for rows in batches(store, manifest):
                done.add(await sink.write(await self._ready(rows, done)))
                done.documents += len(rows)
                told(done.documents, manifest.documents)
            await refresh(connection, restored_namespace(self.namespace), manifest.kind)
        finally:
            await sink.close()
            await connection.close()
        return done

    async def _ready(self, rows: Sequence[Row], done: Restored) -> list[Row]:
        """The rows as they may be indexed today."""
        allowed = await self._without_erased(rows, done)
        return allowed if self.text is None else await self.text.fill(allowed)

    async def _without_erased(self, rows: Sequence[Row], done: Restored) -> list[Row]:
        documents = [orjson.loads(row.body) for row in rows]
        tags = {tag for document in documents if (tag := tag_of(document))}
        states = await read_states(self.subjects, tags) if tags else {}
        found = [
            _allowed(row, document, states.get(tag_of(document)))
            for row, document in zip(rows, documents, strict=True)
        ]
        done.erased += sum(one is not row for one, row in zip(found, rows, strict=True))
        return found


def _allowed(row: Row, document: Mapping[str, Any], state: SubjectState | None) -> Row:
    """The row without what was erased since; names go as well, for an archive that has them may
    be older than the erasure that took them."""
    if state is None or not state.generation:
        return row
    ids = {key_id(state.tag, number) for number in range(state.generation)}
    left = stripped_of(document, state.tag, ids, state.erased_before_ns, names=True)
    return row if left is None else replace(row, body=_canonical(left))


def _canonical(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def batches(store: Store, manifest: Manifest) -> Iterator[list[Row]]:
    """Rows of an archive, some at a time. Raises Differs."""
    for entry in manifest.files:
        with store.open(entry.name) as file:
            yield from _cut(records_of(file, manifest, entry.name), manifest.kind)


def _cut(records: Iterator[Record], kind: str) -> Iterator[list[Row]]:
    """Rows in lists that are bounded in number and in bytes."""
    rows: list[Row] = []
    size = 0
    for record in records:
        rows.append(row_of(record, kind))
        size += len(rows[-1].body)
        if len(rows) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def row_of(record: Record, kind: str) -> Row:
    """The row that brings a record back."""
    day = day_text(record.timestamp_ns)
    return Row(kind, day, record.id, record.hash, record.document.encode())


async def restored_indices(connection: Connection, namespace: str) -> dict[str, int]:
    """Indices of what was restored, with their number of documents. Raises SearchFailed,
    Unreachable."""
    from gatebook.processors.archive.reading import ask

    answer = await connection.request("GET", f"/{restored_namespace(namespace)}-*/_alias")
    found: dict[str, int] = {}
    if answer.status == 404:
        return found
    _require(answer, "list the restored indices")
    for name in sorted(answer.body):
        counted = await ask(connection, f"/{name}/_count", {}, absent={})
        found[name] = int(counted.get("count", 0))
    return found


async def drop_restored(connection: Connection, namespace: str) -> dict[str, int]:
    """Delete every index of what was restored; what there was. The archives stay."""
    found = await restored_indices(connection, namespace)
    for name in found:
        # If we die here, the next call deletes the others.
        answer = await connection.request("DELETE", f"/{name}")
        if answer.status != 404:
            _require(answer, f"delete {name}")
    return found


def _require(answer: Answer, what: str) -> None:
    if answer.status != 200:
        label = answer.error_type or f"status {answer.status}"
        raise SearchFailed(
            f"Elasticsearch does not {what} ({label})", "see its log, then try again"
        )


def held_in(
    store: Store, manifest: Manifest, subjects: Mapping[str, object], own: Sequence[Hold] = ()
) -> Iterator[str]:
    """Ids of documents in an archive that a legal hold covers: one on their subject, or one of
    retention's own. Raises Differs."""
    for rows in batches(store, manifest):
        for row in rows:
            document = orjson.loads(row.body)
            if tag_of(document) in subjects or any(covers(h, row.kind, document) for h in own):
                yield row.id


def covers(hold: Hold, kind: str, document: Mapping[str, Any]) -> bool:
    """Whether a hold of retention's own may cover a document. What its query says cannot be told
    without an index: it counts as met."""
    at = nanoseconds(str(document["@timestamp"]))
    wanted = ((hold.tenant, ("organization", "id")), (hold.trace, ("trace", "id")))
    return (
        kind in hold.kinds
        and all(not value or value_at(document, path) == value for value, path in wanted)
        and (not hold.since or at >= nanoseconds(hold.since))
        and (not hold.until or at < nanoseconds(hold.until))
    )
