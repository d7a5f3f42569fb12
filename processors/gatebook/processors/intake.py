"""Intake: raw frames to enriched, redacted documents. Pure: no Kafka, no clock, no environment.

The frame is the unit of acknowledgement, the event the unit of rejection: what cannot be
processed becomes a dead letter, its neighbours go on.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from gatebook.processors import render
from gatebook.processors.enrich import Catalog, enrich
from gatebook.processors.redact import RedactionFailed, Redactor
from gatebook.schemas.codec import (
    SINGLE_OBJECT,
    FrameHeader,
    OpenedFrame,
    Record,
    decode_event,
    encode,
    open_frame,
    peek_header,
)
from gatebook.schemas.documents import Document, to_document
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.wire import WireFormat

NAMESPACE_DEAD_LETTER = uuid.UUID("6b1c1f0e-52a6-4c0b-8f0e-1d7f6f0a9b11")
# Events outside these years have a broken clock, not a history: 2000-01-01 and 2100-01-01.
EARLIEST_NS = 946_684_800 * 10**9
LATEST_NS = 4_102_444_800 * 10**9
DOCUMENT_FRAME_BYTES = 2 * 1024 * 1024
MAX_EVENT_ID_CHARS = 64
Redact = Callable[[Any], tuple[Any, dict[str, int]]]
CONTENT_FIELDS = {
    "input_messages": ("input", "messages"),
    "output_messages": ("output", "messages"),
    "system_instructions": ("system_instructions",),
}


@dataclass(frozen=True)
class Source:
    """The Kafka message a frame came in; `timestamp_ms` is Kafka's."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int = 0


@dataclass(frozen=True)
class IntakeContext:
    """What stays the same from frame to frame."""

    catalog: Catalog
    redactor: Redactor
    partitions: int
    wire: WireFormat = SINGLE_OBJECT
    redaction_version: str = "1"


@dataclass(frozen=True)
class RenderedDocument:
    """A document ready for the event topic. `body` is what is indexed, as it is."""

    id: str
    timestamp: int
    principal: str
    hash: str
    body: bytes


@dataclass
class IntakeResult:
    """What one raw frame became. `header` is None where not even that could be read."""

    documents: list[RenderedDocument] = field(default_factory=list)
    dead_letters: list[Record] = field(default_factory=list)
    header: FrameHeader | None = None
    redaction_failures: list[str] = field(default_factory=list)


def process_frame(
    message: bytes,
    source: Source,
    context: IntakeContext,
    ingested_at_ns: int,
    declared_count: int = 1,
) -> IntakeResult:
    """Documents and dead letters of one raw frame.

    `declared_count` (a Kafka header) tells how many events an unreadable frame stands for. The
    number of documents plus the counts of the dead letters is the number of events in the frame.
    """
    result = IntakeResult()
    try:
        frame = open_frame(message, context.wire)
    except RecordRejected as error:
        result.header = peek_header(message, context.wire)
        count = result.header.count if result.header else declared_count
        letter = dead_letter("intake", error, source, message, result.header, count=count)
        result.dead_letters.append(letter)
        return result
    result.header = frame.header
    _process_events(frame, source, context, ingested_at_ns, result)
    return result


def _process_events(
    frame: OpenedFrame,
    source: Source,
    context: IntakeContext,
    ingested_at_ns: int,
    result: IntakeResult,
) -> None:
    for index, data in enumerate(frame.events):
        event: Record = {}
        try:
            event = decode_event(data, frame.event_schema)
            check_event(event)
            document = build_document(event, frame.header, index, context, result)
            result.documents.append(_rendered(event, document, ingested_at_ns))
        except RecordRejected as error:
            result.dead_letters.append(
                dead_letter("intake", error, source, data, frame.header, index, event_id_of(event))
            )
        except Exception as error:  # one event must never stop the stream
            rejected = RecordRejected("render_failed", type(error).__name__)
            result.dead_letters.append(
                dead_letter(
                    "intake", rejected, source, data, frame.header, index, event_id_of(event)
                )
            )


def check_event(event: Record) -> None:
    """Refuse an event that no index could hold or no search could find."""
    identifier = event["event"]["id"]
    if not identifier or len(identifier) > MAX_EVENT_ID_CHARS or not identifier.isascii():
        raise RecordRejected("invalid_event", "event.id")
    if not EARLIEST_NS <= event["timestamp"] < LATEST_NS:
        raise RecordRejected("invalid_event", "@timestamp")
    if not 0 <= event["event"]["end"] < LATEST_NS:
        raise RecordRejected("invalid_event", "event.end")


def build_document(
    event: Record, header: FrameHeader, index: int, context: IntakeContext, result: IntakeResult
) -> Document:
    """The document of one event, enriched and redacted, without hash and ingestion time."""
    document = enrich(to_document("access_event.v1", event), context.catalog)
    ours = document.setdefault("gatebook", {})
    ours["producer_id"] = header.producer_id
    ours["epoch"] = header.epoch
    ours["sequence"] = header.first_sequence + index
    ours["principal"] = principal_of(document)
    redact_event(document, event, context, result)
    return document


def principal_of(document: Mapping[str, Any]) -> str:
    """Who an event counts for: the user, else the key, else the address; within the tenant."""
    ours = document.get("gatebook", {})
    tenant = document.get("organization", {}).get("id", "")
    key = ours.get("identity", {}).get("key_id", "")
    user = document.get("user", {}).get("id", "")
    address = document.get("source", {}).get("ip", "")
    if user:
        who = f"user:{user}"
    elif key:
        who = f"key:{key}"
    else:
        who = f"ip:{address}" if address else f"producer:{ours.get('producer_id', '')}"
    return f"{tenant}/{who}" if tenant else who


# Values these fields hold come from a closed list or from our own digests; every other text in an
# event was typed by somebody and is redacted like content.
FREE_TEXT_FIELDS = (
    ("user_agent", "original"),
    ("user_agent", "name"),
    ("user_agent", "version"),
    ("url", "path"),
    ("error", "message"),
    ("error", "code"),
    ("error", "type"),
    ("gen_ai", "request", "model"),
    ("gen_ai", "request", "stop_sequences"),
    ("gen_ai", "response", "model"),
    ("gen_ai", "conversation", "id"),
    ("gen_ai", "tool", "offered"),
    ("gen_ai", "tool", "called"),
    ("gatebook", "identity", "on_behalf_of"),
    ("gatebook", "attributes"),
    ("http", "request", "id"),
    ("session", "id"),
)


def redact_event(
    document: Document, event: Record, context: IntakeContext, result: IntakeResult
) -> None:
    """Put redacted content and free text into the document. Fails closed: where redaction
    fails, content is dropped, the event goes on and says so."""
    counts: dict[str, int] = {}
    failed = ""
    redact = partial(
        context.redactor.redact_json, tenant=document.get("organization", {}).get("id", "")
    )
    try:
        _redact_free_text(document, redact, counts)
    except RedactionFailed as error:
        failed = error.reason
        _drop_free_text(document)
    try:
        _redact_content(document, event, redact, counts)
    except RedactionFailed as error:
        failed = error.reason
    summary = document["gatebook"].setdefault("redaction", {})
    summary["policy_version"] = context.redaction_version
    if counts:
        summary["entities"], summary["counts"] = sorted(counts), counts
    if failed:
        summary["failed"] = failed
        result.redaction_failures.append(failed)


def _add(counts: dict[str, int], found: Mapping[str, int]) -> None:
    for kind, number in found.items():
        counts[kind] = counts.get(kind, 0) + number


def _holder(document: Document, path: Sequence[str]) -> Document | None:
    node: Any = document
    for name in path[:-1]:
        node = node.get(name)
        if not isinstance(node, dict):
            return None
    return node if path[-1] in node else None


def _redact_free_text(document: Document, redact: Redact, counts: dict[str, int]) -> None:
    for path in FREE_TEXT_FIELDS:
        holder = _holder(document, path)
        if holder is not None:
            holder[path[-1]], found = redact(holder[path[-1]])
            _add(counts, found)


def _drop_free_text(document: Document) -> None:
    for path in FREE_TEXT_FIELDS:
        holder = _holder(document, path)
        if holder is not None:
            del holder[path[-1]]


def _redact_content(
    document: Document, event: Record, redact: Redact, counts: dict[str, int]
) -> None:
    content = event.get("content")
    if not content:
        return
    if event.get("content_encoding") != "json":
        raise RedactionFailed("unknown_content_encoding")
    try:
        values = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RedactionFailed("undecodable_content") from None
    redacted = {}
    for name, value in values.items():  # tools and error texts count too, but are not stored
        redacted[name], found = redact(value)
        _add(counts, found)
    if document["gatebook"].get("capture", {}).get("level") != "redacted":
        return
    for name, path in CONTENT_FIELDS.items():
        if redacted.get(name):
            _place(document.setdefault("gen_ai", {}), path, redacted[name])


def _place(target: Document, path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        target = target.setdefault(name, {})
    target[path[-1]] = value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _rendered(event: Record, document: Document, ingested_at_ns: int) -> RenderedDocument:
    digest, body = render.render(document, ingested_at_ns)
    return RenderedDocument(
        id=event["event"]["id"],
        timestamp=event["timestamp"],
        principal=document["gatebook"]["principal"],
        hash=digest,
        body=body,
    )


def event_id_of(event: Mapping[str, Any]) -> str:
    """event.id of a decoded event, or nothing."""
    value = event.get("event", {}).get("id", "")
    return value if isinstance(value, str) and value.isascii() else ""


def dead_letter(
    stage: str,
    error: RecordRejected,
    source: Source,
    data: bytes,
    header: FrameHeader | None = None,
    index: int = 0,
    event_id: str = "",
    count: int = 1,
) -> Record:
    """A dead letter record: the reason and where to find what was rejected, never its content.

    Its id and every field follow from the message it is about, so that rejecting the same thing
    again after a crash gives the same dead letter.
    """
    digest = hashlib.sha256(data).hexdigest()
    name = f"{stage}/{source.topic}/{source.partition}/{source.offset}/{index}/{digest}"
    return {
        "timestamp": source.timestamp_ms * 1_000_000,
        "event": {
            "id": str(uuid.uuid5(NAMESPACE_DEAD_LETTER, name)),
            "kind": "pipeline_error",
            "reason": error.reason,
        },
        "error": {"type": type(error).__name__, "message": error.detail},
        "gatebook": {
            "stage": stage,
            "count": count,
            "event_id": event_id,
            "producer_id": header.producer_id if header else "",
            "epoch": header.epoch if header else None,
            "sequence": header.first_sequence + index if header else None,
            "size": len(data),
            "digest": digest,
            "kafka": {
                "topic": source.topic,
                "partition": source.partition,
                "offset": source.offset,
            },
        },
    }


def partition_of(principal: str, partitions: int) -> int:
    """The partition of the event topic a principal's events go to."""
    return zlib.crc32(principal.encode("utf-8", "surrogatepass")) % partitions


def document_frames(
    result: IntakeResult, source: Source, context: IntakeContext
) -> Iterable[tuple[int, bytes, int]]:
    """Messages for the event topic: partition, bytes, number of documents."""
    by_partition: dict[int, list[RenderedDocument]] = {}
    for document in result.documents:
        number = partition_of(document.principal, context.partitions)
        by_partition.setdefault(number, []).append(document)
    for number, documents in by_partition.items():
        for chunk in _chunks(documents, DOCUMENT_FRAME_BYTES, lambda d: len(d.body)):
            record = {
                "source_topic": source.topic,
                "source_partition": source.partition,
                "source_offset": source.offset,
                "documents": [vars(d) for d in chunk],
            }
            yield number, encode("document_frame.v1", record, context.wire), len(chunk)


def _chunks(
    items: Sequence[RenderedDocument], limit: int, size: Callable[[RenderedDocument], int]
) -> Iterable[list[RenderedDocument]]:
    chunk: list[RenderedDocument] = []
    total = 0
    for item in items:
        if chunk and total + size(item) > limit:
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += size(item)
    if chunk:
        yield chunk


@dataclass
class SequenceLedger:
    """The next sequence expected of each producer run, in the order this worker saw them.

    Bounded: the least recently seen run is forgotten, and counted anew when it comes back.
    """

    limit: int = 10_000
    expected: dict[tuple[str, int], int] = field(default_factory=dict)
    losses: dict[tuple[str, int, str], int] = field(default_factory=dict)

    def observe(self, header: FrameHeader) -> tuple[int, int]:
        """Numbers missing before this frame, and numbers seen before. Both 0 in good order."""
        run = (header.producer_id, header.epoch)
        expected = self.expected.pop(run, header.first_sequence)
        end = header.first_sequence + header.count
        self.expected[run] = max(expected, end)
        if len(self.expected) > self.limit:
            self.expected.pop(next(iter(self.expected)))
        missing = max(0, header.first_sequence - expected)
        repeated = max(0, min(end, expected) - header.first_sequence)
        return missing, repeated

    def new_losses(self, header: FrameHeader) -> dict[str, int]:
        """What the loss statement adds to the last one of the same producer run."""
        added = {}
        for reason, total in (header.losses or {}).items():
            key = (header.producer_id, header.epoch, reason)
            before = self.losses.pop(key, 0)
            self.losses[key] = max(before, total)
            if len(self.losses) > self.limit:
                self.losses.pop(next(iter(self.losses)))
            if total > before:
                added[reason] = total - before
        return added
