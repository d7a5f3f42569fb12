"""The one codec: records to bytes and back, with bounds on what a hostile message may cost.

Frames are spliced: an event is encoded once, and a frame is a header followed by the encoded
events, each in an Avro array block of its own (count -1, size in bytes, event). Any Avro reader
reads that as a plain array; ours cuts the events apart without decoding them, so that one
undecodable event does not take its neighbours along.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import fastavro

from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.registry import PackagedSchema, Schema, load
from gatebook.schemas.wire import SingleObject, WireFormat

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_EVENTS_PER_FRAME = 10_000
MAX_VARINT_BYTES = 10
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
    event_schema: Schema


def encode_varint(value: int) -> bytes:
    """Avro long: zigzag, then base 128, least significant first."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag & ~0x7F:
        out.append((zigzag & 0x7F) | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """An Avro long at `position`, and the position after it. Rejects overlong and cut numbers."""
    zigzag = shift = 0
    for index in range(position, min(position + MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        zigzag |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if (byte == 0 and index > position) or zigzag >= 1 << 64:
                raise RecordRejected("undecodable_frame", "overlong number")
            return (zigzag >> 1) ^ -(zigzag & 1), index + 1
        shift += 7
    raise RecordRejected("undecodable_frame", "cut or overlong number")


def _write(schema: Schema, record: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def _read(writer: Schema, reader: Schema | None, data: bytes, reason: str) -> Record:
    """Decode exactly `data`; anything wrong with it is a RecordRejected."""
    buffer = io.BytesIO(data)
    try:
        record = fastavro.schemaless_reader(buffer, writer, reader)
    except Exception as error:  # fastavro raises IndexError, EOFError, ... on hostile bytes
        raise RecordRejected(reason, type(error).__name__) from None
    if buffer.tell() != len(data):
        raise RecordRejected(reason, "bytes left over after the record")
    return cast(Record, record)


def encode(name: str, record: Mapping[str, Any], wire: WireFormat = SINGLE_OBJECT) -> bytes:
    """A whole message: prefix and Avro payload. Raises RecordRejected where the record does not
    fit the schema."""
    try:
        return wire.prefix(name) + _write(load(name).parsed, record)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        raise RecordRejected(
            "invalid_event", f"does not fit {name}: {type(error).__name__}"
        ) from None


def decode(name: str, message: bytes, wire: WireFormat = SINGLE_OBJECT) -> Record:
    """The record of a whole message, as the current version of schema `name` reads it."""
    check_size(message)
    writer, start = wire.identify(message)
    wanted = load(name)
    if _full_name(writer) != _full_name(wanted):
        raise RecordRejected("unknown_schema", f"is not a {name}")
    reader = None if writer is wanted else wanted.parsed
    return _read(writer.parsed, reader, message[start:], "undecodable_frame")


def check_size(message: bytes) -> None:
    """Refuse a message above the limit before anything of it is read."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise RecordRejected("oversize", f"{len(message)} bytes, limit {MAX_MESSAGE_BYTES}")


def _full_name(schema: PackagedSchema) -> str:
    """Name without the version: gatebook.frame.Frame for any version of the frame."""
    return str(schema.raw["namespace"]).rpartition(".")[0] + "." + str(schema.raw["name"])


def encode_event(event: Mapping[str, Any]) -> bytes:
    """One access event without prefix, to be spliced into a frame."""
    try:
        return _write(load("access_event.v1").parsed, event)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        raise RecordRejected("invalid_event", type(error).__name__) from None


def decode_event(data: bytes, event_schema: Schema | None = None) -> Record:
    """One access event cut out of a frame, read by the current schema."""
    current = load("access_event.v1").parsed
    writer = event_schema or current
    return _read(writer, None if writer is current else current, data, "undecodable_event")


def build_frame(
    header: FrameHeader, events: Iterable[bytes], wire: WireFormat = SINGLE_OBJECT
) -> bytes:
    """A frame message from encoded events. `header.count` must be their number."""
    losses = [{"reason": r, "count": c} for r, c in sorted((header.losses or {}).items())]
    fields = {**vars(header), "losses": losses, "events": []}
    head = _write(load("frame.v1").parsed, fields)[:-1]  # without the empty array's end
    parts = [wire.prefix("frame.v1"), head]
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
    writer, start = wire.identify(message)
    if _full_name(writer) != "gatebook.frame.Frame":
        raise RecordRejected("unknown_schema", "is not a frame")
    header, position = _read_header(writer, message, start)
    event_schema = _event_schema(writer)
    events = _cut_blocks(message, position, event_schema)
    if len(events) != header.count:
        raise RecordRejected(
            "undecodable_frame", f"{len(events)} events, header says {header.count}"
        )
    return OpenedFrame(header, events, event_schema)


def peek_header(message: bytes, wire: WireFormat = SINGLE_OBJECT) -> FrameHeader | None:
    """The header of a frame that `open_frame` rejected, where at least that can be read."""
    try:
        writer, start = wire.identify(message)
        return _read_header(writer, message, start)[0]
    except RecordRejected:
        return None


def _event_schema(frame: PackagedSchema) -> Schema:
    """The event schema a frame was written with: the packaged one, found by its full name."""
    events = next(f for f in frame.raw["fields"] if f["name"] == "events")
    version = events["type"]["items"]["namespace"].rpartition(".")[2]
    return load(f"access_event.{version}").parsed


def _header_schema(frame: PackagedSchema) -> Schema:
    fields = [f for f in frame.raw["fields"] if f["name"] in FRAME_HEADER_FIELDS]
    header = {"type": "record", "name": "FrameHeader", "fields": fields}
    return cast(Schema, fastavro.parse_schema(header))


_header_schemas: dict[str, Schema] = {}


def _read_header(writer: PackagedSchema, message: bytes, start: int) -> tuple[FrameHeader, int]:
    schema = _header_schemas.get(writer.name)
    if schema is None:
        schema = _header_schemas.setdefault(writer.name, _header_schema(writer))
    buffer = io.BytesIO(message)
    buffer.seek(start)
    try:
        fields = cast(Record, fastavro.schemaless_reader(buffer, schema, None))
    except Exception as error:
        raise RecordRejected("undecodable_frame", f"header: {type(error).__name__}") from None
    if not 0 <= fields["count"] <= MAX_EVENTS_PER_FRAME or fields["first_sequence"] < 0:
        raise RecordRejected("undecodable_frame", "header: count or sequence out of range")
    losses = {row["reason"]: row["count"] for row in fields["losses"]}
    return FrameHeader(**{**fields, "losses": losses}), buffer.tell()


def _cut_blocks(message: bytes, position: int, event_schema: Schema) -> list[bytes]:
    events: list[bytes] = []
    while True:
        count, position = decode_varint(message, position)
        if count == 0:
            break
        if count == -1:
            size, position = decode_varint(message, position)
            if size < 0 or position + size > len(message):
                raise RecordRejected("undecodable_frame", "an event's size passes the end")
            events.append(message[position : position + size])
            position += size
        else:  # a frame another Avro writer made: items without sizes
            cut, position = _cut_plain_block(message, position, count, event_schema)
            events += cut
        if len(events) > MAX_EVENTS_PER_FRAME:
            raise RecordRejected("undecodable_frame", "too many events")
    if position != len(message):
        raise RecordRejected("undecodable_frame", "bytes left over after the frame")
    return events


def _cut_plain_block(
    message: bytes, position: int, count: int, event_schema: Schema
) -> tuple[list[bytes], int]:
    if count < 0:
        _, position = decode_varint(message, position)
    if abs(count) > MAX_EVENTS_PER_FRAME:
        raise RecordRejected("undecodable_frame", "too many events")
    buffer = io.BytesIO(message)
    events = []
    for _ in range(abs(count)):
        buffer.seek(position)
        try:
            fastavro.schemaless_reader(buffer, event_schema, None)
        except Exception as error:
            raise RecordRejected("undecodable_frame", type(error).__name__) from None
        events.append(message[position : buffer.tell()])
        position = buffer.tell()
    return events, position
