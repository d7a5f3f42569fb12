"""index: documents, findings, dead letters and alerts into the sink."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from gatebook.processors import metrics, render
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.intake import Source, dead_letter
from gatebook.processors.sinks.base import BulkOutcome, Rejected, Row, Sink
from gatebook.processors.stages.base import Held, Incoming
from gatebook.processors.subjects.ring import WorkerKeys
from gatebook.processors.subjects.searchable import SearchText
from gatebook.schemas.codec import SINGLE_OBJECT, Record, decode, encode
from gatebook.schemas.documents import day_text, to_document
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.topics import ALERT, DEAD_LETTER, EVENT, FINDING, topic_name
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)

# Topic key -> (kind of index, schema of its messages)
RECORDS = {
    FINDING: ("finding", "finding.v2"),
    ALERT: ("alert", "alert.v2"),
    DEAD_LETTER: ("deadletter", "dead_letter.v2"),
}


class IndexStage:
    """Rows in, decided rows out: indexed, known already, or dead-lettered."""

    def __init__(
        self,
        settings: WorkerSettings,
        sink: Sink,
        wire: WireFormat = SINGLE_OBJECT,
        keys: WorkerKeys | None = None,
    ) -> None:
        self._settings = settings
        self._sink = sink
        self._wire = wire
        self._keys = keys or WorkerKeys(settings)
        self._text = SearchText(self._keys.ring)
        self._event_topic = topic_name(settings.namespace, EVENT)
        self._dead_letter_topic = topic_name(settings.namespace, DEAD_LETTER)
        self._records = {topic_name(settings.namespace, k): v for k, v in RECORDS.items()}
        self.topics = (self._event_topic, *self._records)

    async def start(self) -> None:
        self._deliverer = Deliverer(kafka_properties(self._settings.kafka_bootstrap))

    async def process(self, batch: Sequence[Incoming]) -> None:
        found: list[tuple[Row, Incoming]] = []
        letters: list[Record] = []
        for message in batch:
            try:
                found += [(row, message) for row in self._rows(message)]
            except RecordRejected as error:
                letters += self._letters_for_message(message, error)
        rows = await self._text.fill([row for row, _ in found])
        # By the row itself: two messages may hold the same id.
        origin = {id(row): message for row, (_, message) in zip(rows, found, strict=True)}
        outcome = await self._sink.write(rows)
        self._count(rows, outcome)
        letters += [
            self._letter_for_row(rejected, origin[id(rejected.row)])
            for rejected in outcome.rejected
            if rejected.row.kind == "access"  # a dead letter about a dead letter would never end
        ]
        # If we die here, the rows are offered again: 201 becomes 409 with the same digest.
        await self._deliverer.deliver([self._outgoing(letter) for letter in letters])

    def _rows(self, message: Incoming) -> list[Row]:
        if message.topic == self._event_topic:
            frame = decode("document_frame.v1", message.value, self._wire)
            return [
                Row("access", day_text(d["timestamp"]), d["id"], d["hash"], d["body"])
                for d in frame["documents"]
            ]
        kind, schema = self._records[message.topic]
        record = decode(schema, message.value, self._wire)
        document = to_document(schema, record)
        # What is repeated after a crash is the same alert, though it took another time, and the
        # same dead letter, though the rejected event came in another message.
        repeatable = kind in ("alert", "deadletter")
        covered = {"event": {"id": record["event"]["id"]}} if repeatable else document
        digest, body = render.render(document, time.time_ns(), render.digest(covered))
        return [Row(kind, day_text(record["timestamp"]), record["event"]["id"], digest, body)]

    def _letters_for_message(self, message: Incoming, error: RecordRejected) -> list[Record]:
        if message.topic == self._dead_letter_topic:
            log.error("a dead letter cannot be read")  # one about it would never end
            return []
        return [dead_letter("index", error, _source(message), message.value)]

    def _letter_for_row(self, rejected: Rejected, message: Incoming) -> Record:
        error = RecordRejected(rejected.reason, rejected.detail)
        row = rejected.row
        # Intake that dies after its delivery passes the event on again, in another message: its id
        # and its digest tell that it is the same one.
        identity = f"{row.id}/{row.hash}/{rejected.reason}"
        source = _source(message)
        return dead_letter("index", error, source, row.body, event_id=row.id, identity=identity)

    def _outgoing(self, letter: Record) -> Outgoing:
        reason = letter["event"]["reason"]
        metrics.DEAD_LETTERS.labels("index", reason).inc(letter["gatebook"]["count"])
        body = encode("dead_letter.v2", letter, self._wire)
        return Outgoing(self._dead_letter_topic, body, letter["event"]["id"].encode())

    def _count(self, rows: Sequence[Row], outcome: BulkOutcome) -> None:
        kind = rows[0].kind if rows else "access"
        metrics.INDEXED.labels(kind).inc(outcome.indexed)
        metrics.INDEX_DUPLICATES.labels(kind).inc(outcome.duplicates)

    async def tick(self, held: Sequence[Held]) -> None:
        """Time alone brings about nothing here."""

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Nothing is kept between batches."""

    async def stop(self) -> None:
        await self._sink.close()
        await self._keys.close()


def _source(message: Incoming) -> Source:
    return Source(message.topic, message.partition, message.offset, message.timestamp_ms)
