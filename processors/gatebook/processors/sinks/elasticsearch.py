"""The sink that writes to Elasticsearch.

Rows are created, never overwritten: the id was made once, at the producer, so a row that is sent
again after a crash or a lost answer meets its first copy and counts as a duplicate. A conflict is
a duplicate only where the stored document is the same; else it is reported.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from gatebook.processors.sinks import bulk, metrics
from gatebook.processors.sinks.base import BulkOutcome, Rejected, Row
from gatebook.processors.sinks.bulk import Decision, Verdict, Whole
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.sinks.gates import LEASE_SECONDS, GateKeeper
from gatebook.processors.sinks.indices import Indices
from gatebook.processors.sinks.retrying import Retrying
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.processors.sinks.slots import OPEN, Gates
from gatebook.schemas.errors import Fatal

if TYPE_CHECKING:
    from gatebook.processors.retention.recovery import Rescue

# What an archive is restored into has a namespace of its own beside the live one.
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,39}(-restored)?")
_UNREACHABLE = Verdict(Decision.RETRY, "unreachable")
Judged = list[tuple[Row, Verdict]]
MISSING = Verdict(Decision.RETRY, "conflict_then_missing")


class ElasticsearchSink:
    """A Sink over the bulk API. Belongs to one event loop; calls of `write` may overlap."""

    def __init__(
        self,
        namespace: str,
        connection: ElasticsearchSettings | Connection,
        settings: SinkSettings | None = None,
        clock: Callable[[], float] = time.time,
        gate_lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise Fatal("the namespace is not valid", "use lower-case letters, digits and _")
        self._settings = settings or SinkSettings()
        self._owned = None if isinstance(connection, Connection) else Connection(connection)
        self._bulk = BulkRequests(
            namespace,
            self._owned or connection,  # type: ignore[arg-type]  # one of the two is a Connection
            self._settings,
            clock,
            gate_lease_seconds,
        )
        self._slots = asyncio.Semaphore(self._settings.concurrent_requests)
        self._rescue = _rescue(self._owned or connection, namespace)  # type: ignore[arg-type]  # one of the two is a Connection

    async def write(self, rows: Sequence[Row]) -> BulkOutcome:
        """See Sink.write. Raises Fatal on refused credentials, a missing template, a server that
        is not Elasticsearch, or when retry_limit_seconds is set and has passed."""
        refused, good = _sort_out(rows, self._settings.max_row_bytes)
        limits = self._settings.max_request_bytes, self._settings.max_request_documents
        with _waiting(len(good)):
            # If we die from here on, some rows may be stored and the caller has not committed:
            # it writes them again, and those that are stored come back as duplicates.
            outcomes = await _all(self._deliver(chunk) for chunk in bulk.chunks(good, *limits))
        outcome = sum(outcomes, BulkOutcome(rejected=refused))
        _count(outcome)
        return outcome

    async def close(self) -> None:
        """Close the connection, unless it was handed in."""
        if self._owned is not None:
            await self._owned.close()

    async def _deliver(self, rows: list[Row]) -> BulkOutcome:
        """Try until every row of one request is decided. While writing is blocked only the first
        row is sent, as a probe."""
        outcome = BulkOutcome()
        retrying = Retrying(self._settings)
        async with self._slots:
            with retrying:
                while rows:
                    tried = rows[:1] if retrying.is_paused else rows
                    judged = await self._bulk.attempt(tried)
                    if any(verdict.decision is Decision.BLOCKED for _, verdict in judged):
                        await self._rescue.look()
                    outcome += _settled(judged)
                    undecided = [row for row, verdict in judged if not _is_final(verdict)]
                    rows = undecided + rows[len(tried) :]
                    await retrying.after([verdict for _, verdict in judged])
        return outcome


class BulkRequests:
    """One try at a list of rows: a verdict for each, no waiting and no repeating."""

    def __init__(
        self,
        namespace: str,
        connection: Connection,
        settings: SinkSettings,
        clock: Callable[[], float],
        gate_lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._namespace = namespace
        self._connection = connection
        self._indices = Indices(connection, namespace, settings, clock)
        self._keeper = GateKeeper(connection, namespace, lease_seconds=gate_lease_seconds)
        self._gates = OPEN
        self._creating = asyncio.Lock()

    async def attempt(self, rows: Sequence[Row]) -> Judged:
        """A verdict per row, in any order. Raises Fatal."""
        try:
            gates = await self._keeper.now()
        except Unreachable:
            return [(row, _UNREACHABLE) for row in rows]
        return await self._under(gates)._attempt(rows)

    def _under(self, gates: Gates) -> BulkRequests:
        """The same, with these gates to its end, while other tries may have newer ones."""
        found = copy(self)
        found._gates = gates
        return found

    async def _attempt(self, rows: Sequence[Row]) -> Judged:
        open_, past = self._past(rows)
        try:
            unready, ready = await self._prepare(open_)
            gone = await self._judge_past(past) if past else []
        except Unreachable:
            return [(row, _UNREACHABLE) for row in rows]
        sent = await self._send(ready) if ready else []
        conflicts = [row for row, verdict in sent if verdict.decision is Decision.EXISTS]
        decided = [pair for pair in sent if pair[1].decision is not Decision.EXISTS]
        compared = await self._compare(conflicts) if conflicts else []
        return unready + gone + decided + compared

    def _slot_of(self, row: Row) -> str:
        return self._gates.slot_of(row.kind, row.day, row.body)

    def _name(self, row: Row) -> str:
        return bulk.index_name(self._namespace, row, self._slot_of)

    def _past(self, rows: Sequence[Row]) -> tuple[Sequence[Row], list[Row]]:
        """Rows to write, and those that retention took away before."""
        if not self._gates.closed:
            return rows, []
        open_: list[Row] = []
        past: list[Row] = []
        for row in rows:
            closed = self._gates.is_past(row.kind, self._slot_of(row), row.body)
            (past if closed else open_).append(row)
        return open_, past

    async def _judge_past(self, rows: list[Row]) -> Judged:
        """A row that came again is a duplicate where a hold kept its first copy. Else it is
        rejected: it must not come back, and it must not be lost without a word."""
        names = {self._name(row) for row in rows}
        there = {name for name in names if await self._indices.exists(name)}
        kept = [row for row in rows if self._name(row) in there]
        judged = [(row, bulk.PAST) for row in rows if self._name(row) not in there]
        found = await self._compare(kept) if kept else []
        judged += [(row, bulk.PAST if _is_missing(verdict) else verdict) for row, verdict in found]
        for row, verdict in judged:
            if verdict is bulk.PAST:
                metrics.PAST_RETENTION.labels(row.kind).inc()
        return judged

    async def _prepare(self, rows: Sequence[Row]) -> tuple[Judged, list[Row]]:
        """Make sure the indices exist; the rows whose index does not, and the others."""
        first_of = {self._name(row): row for row in rows}
        async with self._creating:  # so that two requests do not create the same index
            verdicts = {n: await self._indices.ready(row, n) for n, row in first_of.items()}
        if all(verdict.decision is Decision.INDEXED for verdict in verdicts.values()):
            return [], list(rows)
        judged = [(row, verdicts[self._name(row)]) for row in rows]
        ready = [row for row, verdict in judged if verdict.decision is Decision.INDEXED]
        return [pair for pair in judged if pair[1].decision is not Decision.INDEXED], ready

    async def _send(self, rows: list[Row]) -> Judged:
        body = bulk.body(self._namespace, rows, self._slot_of)
        metrics.REQUEST_BYTES.inc(len(body))
        try:
            with metrics.REQUEST_SECONDS.time():
                answer = await self._connection.request(
                    "POST", "/_bulk", params={"filter_path": bulk.FILTER_PATH}, ndjson=body
                )
        except Unreachable:
            # The request may have been carried out: the retry finds out by conflict.
            return [(row, _UNREACHABLE) for row in rows]
        if answer.status != 200:
            return await self._whole(rows, answer)
        verdicts = bulk.verdicts(answer.body, len(rows))
        if verdicts is None:
            return [(row, Verdict(Decision.RETRY, "unreadable_answer")) for row in rows]
        judged = list(zip(rows, verdicts, strict=True))
        for row, verdict in judged:
            if verdict is not bulk.INDEXED:
                self._note(row, verdict)
        return judged

    def _note(self, row: Row, verdict: Verdict) -> None:
        if verdict.decision is Decision.NO_INDEX:
            self._indices.forget(self._name(row))
            self._keeper.forget()
        if verdict.decision is Decision.FORBIDDEN:
            raise _forbidden()

    async def _whole(self, rows: list[Row], answer: Answer) -> Judged:
        """The request as a whole failed."""
        meaning, label = bulk.classify_request(answer.status, answer.body)
        if meaning is Whole.FORBIDDEN:
            raise _forbidden()
        if meaning is Whole.WRONG_SERVER:
            raise Fatal(
                f"{self._connection.address} does not answer like Elasticsearch ({label})",
                "check GATEBOOK_ELASTICSEARCH_URL and what stands between",
            )
        if meaning is Whole.SPLIT:
            return await self._split(rows, answer.status, label)
        decision = Decision.BLOCKED if meaning is Whole.BLOCKED else Decision.RETRY
        return [(row, Verdict(decision, label)) for row in rows]

    async def _split(self, rows: list[Row], status: int, label: str) -> Judged:
        if len(rows) > 1:
            middle = len(rows) // 2
            return await self._send(rows[:middle]) + await self._send(rows[middle:])
        reason = "oversize" if status == 413 else "index_rejected"
        return [(rows[0], Verdict(Decision.REJECTED, label, reason))]

    async def _compare(self, rows: list[Row]) -> Judged:
        """Tell duplicates from conflicts: first by the stored hash alone, then, where that does
        not say that they are the same, by the whole document."""
        hashed = [row for row in rows if row.hash]
        judged, unknown = await self._look_up(hashed, whole=False) if hashed else ([], [])
        rest = unknown + [row for row in rows if not row.hash]
        return judged + ((await self._look_up(rest, whole=True))[0] if rest else [])

    async def _look_up(self, rows: list[Row], whole: bool) -> tuple[Judged, list[Row]]:
        """Verdicts, and the rows of which the stored hash alone does not say enough."""
        source: Any = True if whole else ["event.hash"]
        wanted = [{"_index": self._name(row), "_id": row.id, "_source": source} for row in rows]
        try:
            answer = await self._connection.request("POST", "/_mget", json={"docs": wanted})
        except Unreachable:
            return [(row, _UNREACHABLE) for row in rows], []
        return _judge_stored(rows, answer, whole)


def _rescue(connection: Connection, namespace: str) -> Rescue:
    # It needs retention's state, and retention needs the sinks' gates.
    from gatebook.processors.retention.recovery import Rescue

    return Rescue(connection, namespace)


def _is_missing(verdict: Verdict) -> bool:
    return verdict is MISSING


def _judge_stored(rows: list[Row], answer: Answer, whole: bool) -> tuple[Judged, list[Row]]:
    if answer.status in (401, 403):
        raise _forbidden()
    found = answer.body.get("docs") if isinstance(answer.body, dict) else None
    if answer.status != 200 or not isinstance(found, list) or len(found) != len(rows):
        return [(row, Verdict(Decision.RETRY, f"status_{answer.status}")) for row in rows], []
    judged: Judged = []
    unknown: list[Row] = []
    for row, document in zip(rows, found, strict=True):
        source = document.get("_source") if document.get("found") else None
        if source is None:  # deleted since, or its shard is not there: try to create it again
            judged.append((row, MISSING))
        elif not whole and bulk.stored_hash(source) != row.hash:
            unknown.append(row)
        else:
            same = bulk.is_same_document(row, source)
            judged.append((row, bulk.DUPLICATE if same else bulk.CONFLICT))
    return judged, unknown


def _forbidden() -> Fatal:
    return Fatal(
        "Elasticsearch refuses our credentials, or they may not write these indices",
        "check GATEBOOK_ELASTICSEARCH_API_KEY and its privileges "
        "(create_index, create_doc, read, view_index_metadata)",
    )


def _is_final(verdict: Verdict) -> bool:
    return verdict.decision in (Decision.INDEXED, Decision.DUPLICATE, Decision.REJECTED)


def _settled(judged: Judged) -> BulkOutcome:
    decisions = [verdict.decision for _, verdict in judged]
    return BulkOutcome(
        decisions.count(Decision.INDEXED),
        decisions.count(Decision.DUPLICATE),
        [
            Rejected(row, verdict.reason, verdict.detail)
            for row, verdict in judged
            if verdict.decision is Decision.REJECTED
        ],
    )


def _sort_out(rows: Sequence[Row], max_row_bytes: int) -> tuple[list[Rejected], list[Row]]:
    refused: list[Rejected] = []
    good: list[Row] = []
    for row in rows:
        fault = bulk.fault_of(row, max_row_bytes)
        if fault is None:
            good.append(row)
        else:
            refused.append(Rejected(row, *fault))
    return refused, good


async def _all(work: Iterable[Coroutine[Any, Any, BulkOutcome]]) -> list[BulkOutcome]:
    """All results; the first error stops the rest and is raised."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _waiting(count: int) -> Iterator[None]:
    metrics.WAITING_ROWS.inc(count)
    try:
        yield
    finally:
        metrics.WAITING_ROWS.dec(count)


def _count(outcome: BulkOutcome) -> None:
    metrics.ROWS.labels("indexed").inc(outcome.indexed)
    metrics.ROWS.labels("duplicate").inc(outcome.duplicates)
    for rejected in outcome.rejected:
        metrics.ROWS.labels(rejected.reason).inc()
