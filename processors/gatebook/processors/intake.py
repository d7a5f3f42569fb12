"""Intake: raw frames to enriched, redacted documents. Pure: no Kafka, no clock, no environment.

The frame is the unit of acknowledgement, the event the unit of rejection: what cannot be
processed becomes a dead letter, its neighbours go on.

A frame's events go through in batches, step by step: all are decoded, then all are opened, and so
on. What a step needs is at hand then, and the texts of a batch are looked through in one pass; an
event comes out the same in whatever company it came.
"""

from __future__ import annotations

import hashlib
import re
import uuid
import zlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import msgspec

from gatebook.processors import render
from gatebook.processors.clean import CleanTexts
from gatebook.processors.enrich import Catalog, enrich
from gatebook.processors.fields import (
    Field,
    add_counts,
    fields_to_read,
    redact_fields,
    remember,
    values_of,
)
from gatebook.processors.opening import ContentOpener
from gatebook.processors.redact import RedactionFailed, Redactor
from gatebook.processors.redact.ahead import UNREAD
from gatebook.processors.screen import UNKNOWN, Look, Screen, Texts
from gatebook.processors.signals import signals_of
from gatebook.processors.subjects import layers
from gatebook.processors.subjects.identity import subject_of
from gatebook.processors.subjects.layers import Content, KeyEntry, Subjects
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
from gatebook.schemas.errors import GatebookError, RecordRejected
from gatebook.schemas.keys import KeysUnavailable
from gatebook.schemas.sealing import ENCODING as SEALED
from gatebook.schemas.sealing import SealedFailed
from gatebook.schemas.wire import WireFormat

NAMESPACE_DEAD_LETTER = uuid.UUID("6b1c1f0e-52a6-4c0b-8f0e-1d7f6f0a9b11")
# Times outside these years have a broken clock, not a history: 2000-01-01 and 2100-01-01.
EARLIEST_NS = 946_684_800 * 10**9
LATEST_NS = 4_102_444_800 * 10**9
# So has an event so far from the time it comes in. Every day is an index of its own: without this
# bound one producer could use up the shards of the cluster and stop everybody's indexing.
MAX_AHEAD_NS = 2 * 86_400 * 10**9
MAX_BEHIND_NS = 400 * 86_400 * 10**9
DOCUMENT_FRAME_BYTES = 2 * 1024 * 1024
# A document may grow beyond its event: JSON writes a control character as six.
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_PRINCIPAL_CHARS = 256
BATCH_EVENTS = 64
"""So many go through together. More would share no more, and hold more in memory at once."""
# An id is a code. Anything else in its place could be what somebody typed, and is not kept.
EVENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
TRACE_ID = re.compile(r"[0-9A-Fa-f-]{1,64}")
_CONTENT = msgspec.json.Decoder(dict[str, Any])


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
    clean: CleanTexts = field(default_factory=CleanTexts)
    subjects: Subjects | None = None
    """Without it nothing is sealed: redacted text stands in the documents, and nothing is kept of
    level full."""
    opener: ContentOpener = field(default_factory=ContentOpener)
    """Opens what producers sealed; the default has no keys, so that such content is lost."""

    @cached_property
    def screen(self) -> Screen:
        """Looks through the texts of a batch for this redactor."""
        return Screen(self.redactor)


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
    """What one raw frame became. `header` is None where not even that could be read.

    Where `missing_subjects` has tags in it, their keys have to be fetched and the frame processed
    again: the rest of the result is not to be used.
    """

    documents: list[RenderedDocument] = field(default_factory=list)
    dead_letters: list[Record] = field(default_factory=list)
    header: FrameHeader | None = None
    redaction_failures: list[str] = field(default_factory=list)
    sealed_failures: list[str] = field(default_factory=list)
    missing_subjects: set[str] = field(default_factory=set)
    erased: int = 0
    """Events whose content is left out because their subject was erased since."""


@dataclass(slots=True)
class Passing:
    """An event on its way through intake, and what the steps so far know of it."""

    index: int
    """Its place in the frame."""
    data: bytes
    event: Record = field(default_factory=dict)
    document: Document = field(default_factory=dict)
    entry: KeyEntry | None = None
    """Its subject's key, where content is to be kept."""
    content: bytes = b""
    values: dict[str, Any] = field(default_factory=dict)
    """The content by field; empty where it cannot be read."""
    unreadable: str = ""
    """Why it cannot."""
    fields: list[Field] = field(default_factory=list)
    """Those that may hold a value."""
    texts: Texts | None = None
    look: Look = UNKNOWN
    redacted: dict[str, Any] | None = None
    """The content, redacted, where there is any and that went well."""
    sealed: dict[str, bytes] = field(default_factory=dict)
    """What was sealed of it, by layer."""
    rendered: RenderedDocument | None = None


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
    Raises KeysUnavailable where it cannot be told yet whether content opens: try again later.
    """
    result = IntakeResult()
    try:
        frame = _open(message, context.wire)
    except RecordRejected as error:
        result.header = peek_header(message, context.wire)
        count = result.header.count if result.header else declared_count
        letter = dead_letter("intake", error, source, message, result.header, count=count)
        result.dead_letters.append(letter)
        return result
    result.header = frame.header
    _Intake(frame, source, context, ingested_at_ns, result).run()
    return result


def _open(message: bytes, wire: WireFormat) -> OpenedFrame:
    try:
        return open_frame(message, wire)
    except GatebookError:
        raise
    except Exception as error:  # one frame must never stop the stream
        raise RecordRejected("undecodable_frame", type(error).__name__) from None


@dataclass(frozen=True, slots=True)
class _Intake:
    """The way of a frame's events. Each step does its part for one event, or raises: that event
    becomes a dead letter then."""

    frame: OpenedFrame
    source: Source
    context: IntakeContext
    ingested_at_ns: int
    result: IntakeResult

    def run(self) -> None:
        for first in range(0, len(self.frame.events), BATCH_EVENTS):
            part = self.frame.events[first : first + BATCH_EVENTS]
            self._batch([Passing(first + n, data) for n, data in enumerate(part)])

    def _batch(self, events: list[Passing]) -> None:
        letters: dict[int, Record] = {}
        for step in (self._decode, self._describe, self._name_subject):
            events = self._each(step, events, letters)
        if self.result.missing_subjects:
            return  # all of the frame is processed again with their keys
        for step in (self._open, self._read, self._gather):
            events = self._each(step, events, letters)
        looks = self.context.screen.look([passing.texts for passing in events])
        for passing, look in zip(events, looks, strict=True):
            passing.look = look
        for step in (self._redact, self._keep, self._commit, self._render):
            events = self._each(step, events, letters)
        self.result.documents += [event.rendered for event in events if event.rendered]
        self.result.dead_letters += [letters[index] for index in sorted(letters)]

    def _each(
        self, step: Callable[[Passing], None], events: list[Passing], letters: dict[int, Record]
    ) -> list[Passing]:
        """The events the step went well for."""
        going_on = []
        for passing in events:
            try:
                step(passing)
            except KeysUnavailable:
                raise
            except Exception as error:  # one event must never stop the stream
                letters[passing.index] = self._letter(error, passing)
            else:
                going_on.append(passing)
        return going_on

    def _letter(self, error: Exception, passing: Passing) -> Record:
        header, index = self.frame.header, passing.index
        return _letter_for_event(error, self.source, passing.data, header, index, passing.event)

    # ---- steps ---------------------------------------------------------------------------------

    def _decode(self, passing: Passing) -> None:
        passing.event = decode_event(passing.data, self.frame.event_schema)
        check_event(passing.event, self.ingested_at_ns)

    def _describe(self, passing: Passing) -> None:
        passing.document = describe(
            passing.event, self.frame.header, passing.index, self.context.catalog
        )

    def _name_subject(self, passing: Passing) -> None:
        passing.entry = name_subject(passing.document, passing.event, self.context, self.result)

    def _open(self, passing: Passing) -> None:
        open_content(passing, self.context, self.result)

    def _read(self, passing: Passing) -> None:
        read_content(passing)

    def _gather(self, passing: Passing) -> None:
        gather_texts(passing, self.context)

    def _redact(self, passing: Passing) -> None:
        redact_event(passing, self.context, self.result)

    def _keep(self, passing: Passing) -> None:
        keep_content(passing, self.context, self.result)

    def _commit(self, passing: Passing) -> None:
        subjects, entry = self.context.subjects, passing.entry
        if subjects is not None:
            key = entry.key if entry else None
            layers.commit(passing.document, passing.sealed, key, subjects.tags)

    def _render(self, passing: Passing) -> None:
        passing.rendered = _rendered(passing.event, passing.document, self.ingested_at_ns)


def _letter_for_event(
    error: Exception, source: Source, data: bytes, header: FrameHeader, index: int, event: Record
) -> Record:
    rejected = (
        error
        if isinstance(error, RecordRejected)
        else RecordRejected("render_failed", type(error).__name__)
    )
    # A producer that dies before it hears of the delivery sends the event again, in another
    # message: its number tells that it is the same one.
    sequence = header.first_sequence + index
    digest = hashlib.sha256(data).hexdigest()
    identity = f"{header.producer_id}/{header.epoch}/{sequence}/{digest}"
    event_id = event_id_of(event)
    return dead_letter("intake", rejected, source, data, header, index, event_id, identity=identity)


def check_event(event: Record, ingested_at_ns: int) -> None:
    """Refuse an event that no index could hold or no search could find."""
    if not EVENT_ID.fullmatch(event["event"]["id"]):
        raise RecordRejected("invalid_event", "event.id")
    age_ns = ingested_at_ns - event["timestamp"]
    if not EARLIEST_NS <= event["timestamp"] < LATEST_NS:
        raise RecordRejected("invalid_event", "@timestamp")
    if not -MAX_AHEAD_NS <= age_ns <= MAX_BEHIND_NS:
        raise RecordRejected("invalid_event", "@timestamp is too far from the time it came in")
    if not 0 <= event["event"]["end"] < LATEST_NS:
        raise RecordRejected("invalid_event", "event.end")


def describe(event: Record, header: FrameHeader, index: int, catalog: Catalog) -> Document:
    """The document of an event, enriched and numbered; nothing in it is redacted yet."""
    document = enrich(to_document("access_event.v2", event), catalog)
    ours = document.setdefault("gatebook", {})
    ours["producer_id"] = header.producer_id
    ours["epoch"] = header.epoch
    ours["sequence"] = header.first_sequence + index
    return document


def name_subject(
    document: Document, event: Record, context: IntakeContext, result: IntakeResult
) -> KeyEntry | None:
    """Put the subject's tag into the document, of the person as the producer named them; the key
    where content is to be kept. A key that is not at hand is noted as missing."""
    subjects = context.subjects
    if subjects is None:
        return None
    tag = subjects.tags.of(subject_of(document, principal_of))
    document["gatebook"]["subject"] = tag
    if not event.get("content") or layers.level_of(document) not in layers.STORED_LEVELS:
        return None
    entry = subjects.keys.get(tag)
    if entry is None:
        result.missing_subjects.add(tag)
    return entry


def keep_content(passing: Passing, context: IntakeContext, result: IntakeResult) -> None:
    """What the level allows: sealed for the subject, or as text where there are no keys."""
    document, redacted, entry = passing.document, passing.redacted, passing.entry
    if context.subjects is None:
        if redacted is not None and layers.is_searchable(document):
            layers.place_text(document, redacted)
        return
    if redacted is not None and entry is not None:
        timestamp_ns = passing.event["timestamp"]
        content = Content(passing.content, redacted)
        passing.sealed = layers.seal_content(document, content, entry, timestamp_ns)
        result.erased += timestamp_ns < entry.erased_before_ns


def principal_of(document: Mapping[str, Any]) -> str:
    """Who an event counts for: the user, else the key, else the address; within the tenant.

    A key that was refused names nobody: whoever guesses keys counts as one, by address.
    """
    ours = document.get("gatebook", {})
    tenant = document.get("organization", {}).get("id", "")
    identity = ours.get("identity", {})
    key = "" if identity.get("assurance") == "failed" else identity.get("key_id", "")
    user = document.get("user", {}).get("id", "")
    address = document.get("source", {}).get("ip", "")
    if user:
        who = f"user:{user}"
    elif key:
        who = f"key:{key}"
    else:
        who = f"ip:{address}" if address else f"producer:{ours.get('producer_id', '')}"
    principal = f"{tenant}/{who}" if tenant else who
    if len(principal) <= MAX_PRINCIPAL_CHARS:
        return principal
    digest = hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{principal[: MAX_PRINCIPAL_CHARS - 65]}#{digest}"


def open_content(passing: Passing, context: IntakeContext, result: IntakeResult) -> None:
    """Open the content; the event says so where it does not open."""
    document = passing.document
    try:
        passing.content = _opened_content(document, passing.event, context.opener)
    except RedactionFailed as error:
        passing.unreadable = error.reason
    except SealedFailed as error:
        named = {"key_id": error.key_id} if error.key_id else {}
        document["gatebook"]["sealed"] = {"failed": error.reason, **named}
        result.sealed_failures.append(error.reason)


def read_content(passing: Passing) -> None:
    """Decode the opened content."""
    if passing.content:
        try:
            passing.values = _CONTENT.decode(passing.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            passing.unreadable = "undecodable_content"


def gather_texts(passing: Passing, context: IntakeContext) -> None:
    """Gather what may hold a value: fields and content."""
    _drop_malformed(passing.document)
    passing.fields = fields_to_read(passing.document, context.clean)
    fields, size = values_of(passing.fields), len(passing.content)
    passing.texts = context.screen.texts(fields, passing.values, size)


def redact_event(passing: Passing, context: IntakeContext, result: IntakeResult) -> None:
    """Redact the document's free text in place, and the content. Fails closed: a text that cannot
    be redacted is dropped, the event goes on and says so."""
    document = passing.document
    counts: dict[str, int] = {}
    if passing.look.may_signal and (found := signals_of(passing.values)):
        document["gatebook"].setdefault("content", {})["signals"] = found
    tenant = document.get("organization", {}).get("id", "")  # before it is redacted itself
    failed = _redact_fields(passing, tenant, context, counts)
    if passing.content and not passing.unreadable:
        failed += _redact_content(passing, tenant, context.redactor, counts)
    if passing.unreadable:
        failed.append(passing.unreadable)
    summary = document["gatebook"].setdefault("redaction", {})
    summary["policy_version"] = context.redaction_version
    if counts:
        summary["entities"], summary["counts"] = sorted(counts), counts
    if failed:
        summary["failed"] = failed[-1]
        result.redaction_failures.append(failed[-1])
    # Of the masked identity, or it would tell the plain.
    document["gatebook"]["principal"] = principal_of(document)


def _redact_fields(
    passing: Passing, tenant: str, context: IntakeContext, counts: dict[str, int]
) -> list[str]:
    fields, reading, redactor = passing.fields, passing.look.fields, context.redactor
    # An allow list lets a tenant's texts pass that are no other's: those are read every time.
    clean = None if redactor.allow else context.clean
    if reading is None:
        read = redactor.read_ahead(values_of(fields), tenant=tenant)
    else:
        read = reading.settled(redactor, tenant, clean or ())
    if read is None:
        remember(fields, clean)
        return []
    redact = partial(redactor.redact_json, tenant=tenant, read=read)
    return redact_fields(fields, redact, counts, clean)


def _redact_content(
    passing: Passing, tenant: str, redactor: Redactor, counts: dict[str, int]
) -> list[str]:
    reading = passing.look.content
    read = reading.settled(redactor, tenant) if reading else UNREAD
    if read is None:
        passing.redacted = passing.values
        return []
    try:
        passing.redacted, found = redactor.redact_values(passing.values, tenant=tenant, read=read)
    except RedactionFailed as error:
        return [error.reason]
    add_counts(counts, found)
    return []


def _drop_malformed(document: Document) -> None:
    """What stands where an address or a trace id belongs and is none goes: it could be anything,
    and the index would keep it in the stored document without a word."""
    if document["gatebook"].get("source", {}).get("address_class") == "invalid":
        document["source"].pop("ip", None)
    for name in ("trace", "span"):
        if name in document and not TRACE_ID.fullmatch(document[name].get("id", "")):
            del document[name]


def _opened_content(document: Document, event: Record, opener: ContentOpener) -> bytes:
    """The content in the open, empty for none. Producers before version 2 send it so. Raises
    SealedFailed, RedactionFailed."""
    data: bytes = event.get("content") or b""
    if not data or event["content_encoding"] == "json":
        return data
    if event["content_encoding"] != SEALED:
        raise RedactionFailed("unknown_content_encoding")
    return opener.open(data, event, document["gatebook"]["producer_id"])


def _rendered(event: Record, document: Document, ingested_at_ns: int) -> RenderedDocument:
    digest, body = render.render(document, ingested_at_ns)
    if len(body) > MAX_DOCUMENT_BYTES:
        raise RecordRejected("oversize", f"{len(body)} bytes, limit {MAX_DOCUMENT_BYTES}")
    return RenderedDocument(
        id=event["event"]["id"],
        timestamp=event["timestamp"],
        principal=document["gatebook"]["principal"],
        hash=digest,
        body=body,
    )


def event_id_of(event: Mapping[str, Any]) -> str:
    """event.id of a decoded event where it is one, or nothing."""
    value = event.get("event", {}).get("id", "")
    return value if EVENT_ID.fullmatch(value) else ""


def dead_letter(
    stage: str,
    error: RecordRejected,
    source: Source,
    data: bytes,
    header: FrameHeader | None = None,
    index: int = 0,
    event_id: str = "",
    count: int = 1,
    identity: str = "",
) -> Record:
    """A dead letter record: the reason and where to find what was rejected, never its content.

    Its id follows from what it is about, so that rejecting the same thing again after a crash
    gives the same dead letter: from `identity`, else from the place in Kafka and the bytes.
    """
    digest = hashlib.sha256(data).hexdigest()
    place = f"{source.topic}/{source.partition}/{source.offset}/{index}/{digest}"
    name = f"{stage}/{identity or place}"
    return {
        "timestamp": min(max(source.timestamp_ms * 1_000_000, EARLIEST_NS), LATEST_NS),
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


# Reasons our producers give for a loss.
LOSS_REASONS = frozenset(
    {
        "buffer_full",
        "spool_full",
        "spool_unavailable",
        "spool_corrupt",
        "invalid_event",
        "oversize",
        "not_durable",
        "broker_rejected",
        "shutdown",
        "closed",
    }
)


def loss_letters(
    header: FrameHeader, source: Source, stated: Container[tuple[str, int, str, int]]
) -> dict[tuple[str, int, str, int], Record]:
    """What a frame says its producer dropped, as dead letters that are not among those `stated`.

    A producer repeats its running totals in every frame: each total is one dead letter. Its count
    is 0, because the events never got a number and the totals of one run must not be added up.
    """
    letters = {}
    for reason, total in (header.losses or {}).items():
        statement = (header.producer_id, header.epoch, reason, total)
        if total > 0 and statement not in stated:
            detail = f"{loss_reason(reason)}: {total} events in all since this producer started"
            error = RecordRejected("producer_dropped", detail)
            name = "/".join(map(str, statement))
            letters[statement] = dead_letter(
                "producer", error, source, b"", header, count=0, identity=name
            )
    return letters


def loss_reason(reason: str) -> str:
    """A reason as our producers give it: none writes what it likes into a metric or a text."""
    return reason if reason in LOSS_REASONS else "other"


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
