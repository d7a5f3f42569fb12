"""The one codec: records to bytes and back, with bounds on what a hostile message may cost.

Frames are spliced: an event is encoded once, and a frame is a header followed by the encoded
events, each in an Avro array block of its own (count -1, size in bytes, event). Any Avro reader
reads that as a plain array; ours cuts the events apart without decoding them, so that one
undecodable event does not take its neighbours along.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import fastavro

from gatebook.schemas.avro import (
    Budget,
    Malformed,
    Skip,
    compile_skip,
    decode_varint,
    encode_varint,
)
from gatebook.schemas.errors import GatebookError, RecordRejected
from gatebook.schemas.fast import Unusual
from gatebook.schemas.generated import access_codec
from gatebook.schemas.registry import PackagedSchema, Schema, load
from gatebook.schemas.wire import SingleObject, WireFormat

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_EVENTS_PER_FRAME = 10_000
MAX_EVENT_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
# Values (fields, items, keys) that may be read at once. An access event without lists has about
# 150; a value takes some 100 bytes of memory.
MAX_MESSAGE_VALUES = 250_000
MAX_EVENT_VALUES = 5_000
MAX_HEADER_VALUES = 1_000
MAX_LONG = (1 << 63) - 1
EVENT_SCHEMA = "access_event.v2"
# Fields of the frame that come before `events`.
FRAME_HEADER_FIELDS = (
    "producer_id",
    "epoch",
    "first_sequence",
    "count",
    "sent_at",
    "state",
    "losses",
)

SINGLE_OBJECT = SingleObject()
Record = dict[str, Any]


@dataclass(frozen=True)
class FrameHeader:
    """Who sent a frame and which numbers it carries. `losses` maps a reason to a running total."""

    producer_id: str
    epoch: int
    first_sequence: int
    count: int
    sent_at: int
    state: str = "open"
    losses: Mapping[str, int] | None = None


@dataclass(frozen=True)
class OpenedFrame:
    """A frame cut into its encoded events, in order; `event_schema` is the writer's."""

    header: FrameHeader
    events: Sequence[bytes]
    event_schema: PackagedSchema


def _write(schema: Schema, record: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def _read(writer: PackagedSchema, reader: Schema | None, payload: bytes, values: int) -> Record:
    """Decode exactly `payload`, within a budget of values. Malformed, or any error of fastavro,
    if something is wrong with it."""
    end = _skip(writer.name)(payload, 0, Budget(values))
    if end != len(payload):
        raise Malformed("bytes left over after the record")
    record = cast(Record, fastavro.schemaless_reader(io.BytesIO(payload), writer.parsed, reader))
    if reader is not None:  # what fastavro fills in are the defaults as written, and shared
        again = io.BytesIO(_write(reader, record))
        record = cast(Record, fastavro.schemaless_reader(again, reader, None))
    return record


@contextmanager
def _rejecting(reason: str) -> Iterator[None]:
    """Whatever goes wrong inside rejects the record. fastavro raises anything from IndexError to
    UnicodeDecodeError on hostile bytes; of those only the name is kept, for texts may quote."""
    try:
        yield
    except GatebookError:
        raise
    except Exception as error:
        detail = str(error) if isinstance(error, Malformed) else type(error).__name__
        raise RecordRejected(reason, detail) from None


@cache
def _skip(name: str) -> Skip:
    return compile_skip(load(name).raw)


def encode(name: str, record: Mapping[str, Any], wire: WireFormat = SINGLE_OBJECT) -> bytes:
    """A whole message: prefix and Avro payload. Raises RecordRejected where the record does not
    fit the schema or the limit."""
    prefix = wire.prefix(name)
    try:
        message = prefix + _write(load(name).parsed, record)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        raise RecordRejected(
            "invalid_event", f"does not fit {name}: {type(error).__name__}"
        ) from None
    check_size(message)
    return message


def decode(name: str, message: bytes, wire: WireFormat = SINGLE_OBJECT) -> Record:
    """The record of a whole message, as the current version of schema `name` reads it."""
    check_size(message)
    writer, start = wire.identify(message)
    wanted = load(name)
    if _full_name(writer) != _full_name(wanted):
        raise RecordRejected("unknown_schema", f"is not a {name}")
    reader = None if writer is wanted else wanted.parsed
    with _rejecting("undecodable_frame"):
        return _read(writer, reader, message[start:], MAX_MESSAGE_VALUES)


def check_size(message: bytes) -> None:
    """Refuse a message above the limit before anything of it is read."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise RecordRejected("oversize", f"{len(message)} bytes, limit {MAX_MESSAGE_BYTES}")


def _full_name(schema: PackagedSchema) -> str:
    """Name without the version: gatebook.frame.Frame for any version of the frame."""
    return str(schema.raw["namespace"]).rpartition(".")[0] + "." + str(schema.raw["name"])


def encode_event(event: Mapping[str, Any]) -> bytes:
    """One access event without prefix, to be spliced into a frame. Raises RecordRejected where
    the event does not fit its schema or the limit."""
    try:
        data = access_codec.encode(event)
    except (Unusual, AttributeError, UnicodeError):  # fastavro converts it, or says what is wrong
        data = _encode_unusual(event)
    if len(data) > MAX_EVENT_BYTES:
        raise RecordRejected("oversize", f"{len(data)} bytes, limit {MAX_EVENT_BYTES}")
    return data


def _encode_unusual(event: Mapping[str, Any]) -> bytes:
    try:
        return _write(load(EVENT_SCHEMA).parsed, event)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        raise RecordRejected("invalid_event", type(error).__name__) from None


def decode_event(data: bytes, event_schema: PackagedSchema | None = None) -> Record:
    """One access event cut out of a frame, read by the current schema."""
    if len(data) > MAX_EVENT_BYTES:
        raise RecordRejected("oversize", f"{len(data)} bytes, limit {MAX_EVENT_BYTES}")
    current = load(EVENT_SCHEMA)
    writer = event_schema or current
    with _rejecting("undecodable_event"):
        if writer is current:
            return access_codec.decode(data, MAX_EVENT_VALUES)
        return _read(writer, current.parsed, data, MAX_EVENT_VALUES)


def build_frame(
    header: FrameHeader, events: Iterable[bytes], wire: WireFormat = SINGLE_OBJECT
) -> bytes:
    """A frame message from encoded events. `header.count` must be their number."""
    losses = [{"reason": r, "count": c} for r, c in sorted((header.losses or {}).items())]
    fields = {**vars(header), "losses": losses, "events": []}
    head = _write(load("frame.v2").parsed, fields)[:-1]  # without the empty array's end
    parts = [wire.prefix("frame.v2"), head]
    for event in events:
        parts += (b"\x01", encode_varint(len(event)), event)  # block of -1 item, its size
    parts.append(b"\x00")
    return b"".join(parts)


def open_frame(message: bytes, wire: WireFormat = SINGLE_OBJECT) -> OpenedFrame:
    """Read a frame's header and cut its events apart, without decoding them.

    Raises RecordRejected for the whole frame only: unknown schema, oversize, a header or a block
    that cannot be read, a count that does not hold.
    """
    check_size(message)
    writer, start = _identify_frame(message, wire)
    event_schema = _event_schema(writer)
    with _rejecting("undecodable_frame"):
        header, position = _read_header(writer, message, start)
        events = _cut_blocks(message, position, event_schema)
        if len(events) != header.count:
            raise Malformed(f"{len(events)} events, header says {header.count}")
    return OpenedFrame(header, events, event_schema)


def peek_header(message: bytes, wire: WireFormat = SINGLE_OBJECT) -> FrameHeader | None:
    """The header of a frame that `open_frame` rejected, where at least that can be read."""
    try:
        writer, start = _identify_frame(message, wire)
        with _rejecting("undecodable_frame"):
            return _read_header(writer, message, start)[0]
    except RecordRejected:
        return None


def _identify_frame(message: bytes, wire: WireFormat) -> tuple[PackagedSchema, int]:
    writer, start = wire.identify(message)
    if _full_name(writer) != "gatebook.frame.Frame":
        raise RecordRejected("unknown_schema", "is not a frame")
    return writer, start


def _event_schema(frame: PackagedSchema) -> PackagedSchema:
    """The event schema a frame was written with: the packaged one, found by its full name."""
    events = next(f for f in frame.raw["fields"] if f["name"] == "events")
    version = events["type"]["items"]["namespace"].rpartition(".")[2]
    return load(f"access_event.{version}")


@cache
def _header_schema(frame_name: str) -> tuple[Schema, Skip]:
    fields = [f for f in load(frame_name).raw["fields"] if f["name"] in FRAME_HEADER_FIELDS]
    header = {"type": "record", "name": "FrameHeader", "fields": fields}
    return cast(Schema, fastavro.parse_schema(header)), compile_skip(header)


def _read_header(writer: PackagedSchema, message: bytes, start: int) -> tuple[FrameHeader, int]:
    schema, skip = _header_schema(writer.name)
    head = message[start : start + MAX_HEADER_BYTES]
    size = skip(head, 0, Budget(MAX_HEADER_VALUES))
    fields = cast(Record, fastavro.schemaless_reader(io.BytesIO(head), schema, None))
    losses = {row["reason"]: row["count"] for row in fields["losses"]}
    header = FrameHeader(**{**fields, "losses": losses})
    _check_header(header)
    return header, start + size


def _check_header(header: FrameHeader) -> None:
    if not 0 <= header.count <= MAX_EVENTS_PER_FRAME:
        raise Malformed("header: count out of range")
    if not 0 <= header.first_sequence <= MAX_LONG - header.count:
        raise Malformed("header: sequence out of range")
    if any(count < 0 for count in (header.losses or {}).values()):
        raise Malformed("header: a loss out of range")


def _cut_blocks(message: bytes, position: int, event_schema: PackagedSchema) -> list[bytes]:
    events: list[bytes] = []
    while True:
        count, position = decode_varint(message, position)
        if count == 0:
            break
        if count == -1:
            size, position = decode_varint(message, position)
            if size < 0 or position + size > len(message):
                raise Malformed("an event's size passes the end")
            events.append(message[position : position + size])
            position += size
        else:  # a frame another Avro writer made: items without sizes
            position = _cut_plain_block(message, position, count, event_schema, events)
        if len(events) > MAX_EVENTS_PER_FRAME:
            raise Malformed("too many events")
    if position != len(message):
        raise Malformed("bytes left over after the frame")
    return events


def _cut_plain_block(
    message: bytes, position: int, count: int, event_schema: PackagedSchema, events: list[bytes]
) -> int:
    """Cut a block of events that stand side by side; returns the position after it."""
    if count < 0:
        _, position = decode_varint(message, position)
    if abs(count) > MAX_EVENTS_PER_FRAME:
        raise Malformed("too many events")
    skip = _skip(event_schema.name)
    for _ in range(abs(count)):
        end = skip(message, position, Budget(MAX_EVENT_VALUES))
        events.append(message[position:end])
        position = end
    return position
