"""Whatever bytes arrive: RecordRejected or a record, soon, and in bounded memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatebook.schemas import codec
from gatebook.schemas.avro import Budget, Malformed, compile_skip, decode_varint, encode_varint
from gatebook.schemas.codec import FrameHeader
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.examples import examples
from gatebook.schemas.registry import ALL_SCHEMAS, WIRE_SCHEMAS, load

MEBIBYTE = 1024 * 1024
MAX_CPU_SECONDS = 1.0
MAX_EXTRA_BYTES = 64 * MEBIBYTE

EVENT = codec.encode_event(examples("access_event.v2")["chat"])
EVENTS = [codec.encode_event(event) for event in examples("access_event.v2").values()]
FRAME = codec.build_frame(FrameHeader("p", 1, 0, len(EVENTS), 2, losses={"x": 1}), EVENTS)
MESSAGES = [
    codec.encode(name, record) for name in WIRE_SCHEMAS for record in examples(name).values()
]
READERS: list[Callable[[bytes], object]] = [
    codec.open_frame,
    codec.peek_header,
    codec.decode_event,
    *(lambda message, name=name: codec.decode(name, message) for name in WIRE_SCHEMAS),
]


@contextmanager
def within_a_second() -> Iterator[None]:
    """Fails where the block takes too long, whatever else the machine does meanwhile."""
    started = time.process_time()
    yield
    assert time.process_time() - started < MAX_CPU_SECONDS


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory a call held, beyond what was held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read(reader: Callable[[bytes], object], data: bytes) -> str:
    """What became of some bytes: "" for a record, else the reason they were rejected for."""
    try:
        reader(data)
    except RecordRejected as error:
        return error.reason
    return ""


def prefix(name: str) -> bytes:
    return codec.SINGLE_OBJECT.prefix(name)


@given(st.binary(max_size=300), st.sampled_from([b"", *map(prefix, WIRE_SCHEMAS)]))
def test_random_bytes_are_a_record_or_rejected(data: bytes, start: bytes) -> None:
    """No other exception leaves the codec, whatever follows a good prefix."""
    for reader in READERS:
        read(reader, start + data)


@settings(max_examples=300)
@given(st.sampled_from([*MESSAGES, FRAME, EVENT]), st.data())
def test_flipped_bits_are_a_record_or_rejected(message: bytes, data: st.DataObject) -> None:
    """Damage anywhere in a good message ends in a record or a rejection."""
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for reader in READERS:
        read(reader, bytes(damaged))


@given(st.sampled_from([*MESSAGES, FRAME]), st.data())
def test_a_cut_message_is_rejected(message: bytes, data: st.DataObject) -> None:
    """A message that lost its end is never taken for a shorter one."""
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    for reader in READERS:
        if reader is not codec.peek_header:  # the header may well be whole
            assert read(reader, cut)


@given(st.integers(0, len(EVENT) - 1))
def test_a_cut_event_is_rejected(length: int) -> None:
    """An event that lost its end is never taken for a shorter one."""
    assert read(codec.decode_event, EVENT[:length]) == "undecodable_event"


@given(st.binary(min_size=1, max_size=40))
def test_what_follows_a_record_is_rejected(junk: bytes) -> None:
    """Bytes left over mean that writer and reader disagree."""
    assert read(codec.decode_event, EVENT + junk) == "undecodable_event"
    assert read(codec.open_frame, FRAME + junk) == "undecodable_frame"
    alert = codec.encode("alert.v2", examples("alert.v2")["given_up"])
    assert read(lambda message: codec.decode("alert.v2", message), alert + junk)


@given(st.binary(min_size=8, max_size=8).filter(lambda f: prefix("frame.v2")[2:] != f))
def test_any_other_fingerprint_is_not_a_frame(fingerprint: bytes) -> None:
    """The writer's schema comes from the packaged ones, never from the message."""
    message = b"\xc3\x01" + fingerprint + FRAME[10:]
    assert read(codec.open_frame, message) == "unknown_schema"
    assert codec.peek_header(message) is None


@pytest.mark.parametrize("name", [name for name in WIRE_SCHEMAS if name != "frame.v2"])
def test_another_kind_of_message_is_not_a_frame(name: str) -> None:
    """A finding on the topic of accesses is rejected, and has no header to peek at."""
    message = codec.encode(name, next(iter(examples(name).values())))
    assert read(codec.open_frame, message) == "unknown_schema"
    assert codec.peek_header(message) is None


# An event whose fields before and after `user.roles` are empty, so that a list can be planted.
def event_with_roles(blocks: bytes) -> bytes:
    """An event with hand-made bytes in the place of its list of roles."""
    whole = codec.encode_event({"user": {"roles": ["planted-role"]}})
    written = b"\x02\x18planted-role\x00"
    assert whole.count(written) == 1
    return whole.replace(written, blocks)


def frame_with_events(blocks: bytes, count: int = 1) -> bytes:
    """A frame with hand-made bytes in the place of its events."""
    return codec.build_frame(FrameHeader("p", 1, 0, count, 2), [])[:-1] + blocks


COUNTS = [30_000_000, 10**12, (1 << 63) - 1, -30_000_000, -(10**12), -(1 << 63), 5_001, -5_001]


@pytest.mark.parametrize("count", COUNTS)
def test_a_huge_count_of_items_is_refused_before_anything_is_built(count: int) -> None:
    """A count costs its sender nothing; it must cost us nothing either."""
    size = encode_varint(8 * 10**5) if count < 0 else b""
    event = event_with_roles(encode_varint(count) + size + b"\x00" * 800_000)
    frame = frame_with_events(encode_varint(count) + size + b"\x00" * (7 * MEBIBYTE), 10_000)
    for reader, data in ((codec.decode_event, event), (codec.open_frame, frame)):
        with within_a_second():
            assert read(reader, data).startswith("undecodable")
        assert peak_bytes(lambda r=reader, d=data: read(r, d)) < MAX_EXTRA_BYTES  # type: ignore[misc]  # a lambda's defaults have no types


def test_many_small_blocks_of_empty_items_are_refused() -> None:
    """The budget holds over all blocks of a list, not for each."""
    event = event_with_roles(b"\x02\x00" * 400_000 + b"\x00")
    with within_a_second():
        assert read(codec.decode_event, event) == "undecodable_event"


@pytest.mark.parametrize("filler", [b"\x00", b"\x01", b"\x02", b"\x02\x00", b"\x7f", b"\xff"])
@pytest.mark.parametrize("name", ["", *WIRE_SCHEMAS])
def test_the_largest_message_of_one_byte_is_cheap(name: str, filler: bytes) -> None:
    """8 MiB of anything, behind any prefix, is decided within a second and 64 MiB."""
    start = prefix(name) if name else b""
    data = start + filler * ((codec.MAX_MESSAGE_BYTES - len(start)) // len(filler))
    for reader in READERS:
        with within_a_second():
            read(reader, data)
    assert peak_bytes(lambda: [read(reader, data) for reader in READERS]) < MAX_EXTRA_BYTES


def test_a_frame_full_of_empty_events_is_cheap() -> None:
    """Small events in great number: what a frame may hold fits the bounds, more is refused."""
    empty = codec.encode_event({})
    for side_by_side in (False, True):
        for count, wanted in ((10_000, ""), (10_001, "undecodable_frame")):
            events = [encode_varint(count), empty * count] if side_by_side else []
            events = events or [b"\x01" + encode_varint(len(empty)) + empty] * count
            frame = frame_with_events(b"".join(events) + b"\x00", count)
            with within_a_second():
                assert read(codec.open_frame, frame) == wanted
            assert peak_bytes(lambda f=frame: read(codec.open_frame, f)) < MAX_EXTRA_BYTES  # type: ignore[misc]  # a lambda's defaults have no types


def test_decoding_a_frame_whole_is_bounded_too() -> None:
    """`decode` of a frame builds every event, so it is bounded by values, not by events."""
    empty = codec.encode_event({})
    frame = frame_with_events(encode_varint(50_000) + empty * 50_000 + b"\x00", 10_000)
    assert len(frame) < codec.MAX_MESSAGE_BYTES
    with within_a_second():
        assert read(lambda m: codec.decode("frame.v2", m), frame) == "undecodable_frame"
    allowed = frame_with_events(encode_varint(1_600) + empty * 1_600 + b"\x00", 1_600)
    assert peak_bytes(lambda: codec.decode("frame.v2", allowed)) < MAX_EXTRA_BYTES


@pytest.mark.parametrize("size", [-1, 1, 10**6, 10**12, (1 << 63) - 1, -(1 << 63)])
def test_a_size_that_passes_the_end_is_rejected(size: int) -> None:
    """Of a string, of an event's block, of any block: nothing is read past the message."""
    item = b"\x02" + encode_varint(size) + b"\x00"
    assert read(codec.decode_event, event_with_roles(item)) == "undecodable_event"
    block = b"\x01" + encode_varint(size) + EVENT + b"\x00"
    assert read(codec.open_frame, frame_with_events(block)) == "undecodable_frame"


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_blocks_size_must_hold(wrong: int) -> None:
    """Readers that skip by size and readers that count items see the same list."""
    items = b"\x02a\x02b"
    for size, wanted in ((len(items), ""), (len(items) + wrong, "undecodable_event")):
        event = event_with_roles(encode_varint(-2) + encode_varint(size) + items + b"\x00")
        assert read(codec.decode_event, event) == wanted


@pytest.mark.parametrize(
    "number",
    [b"\x80\x00", b"\x80" * 9 + b"\x00", b"\xff" * 9 + b"\x02", b"\x80" * 10, b"\xff" * 11],
)
def test_overlong_and_cut_numbers_are_rejected(number: bytes) -> None:
    """One number has one spelling, of at most ten bytes."""
    with pytest.raises(Malformed):
        decode_varint(number, 0)
    assert read(codec.decode_event, number + codec.encode_event({})[1:]) == "undecodable_event"
    assert read(codec.open_frame, frame_with_events(number)) == "undecodable_frame"


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=3))
@example(-(1 << 63), b"")
@example((1 << 63) - 1, b"\x00")
def test_every_number_comes_back(number: int, rest: bytes) -> None:
    """Varints: what is written is read, and what follows is left alone."""
    written = encode_varint(number)
    assert decode_varint(written + rest, 0) == (number, len(written))
    assert decode_varint(b"\xff" + written, 1) == (number, len(written) + 1)


@pytest.mark.parametrize(
    "header",
    [
        {"count": -1},
        {"count": 10_001},
        {"first_sequence": -1},
        {"first_sequence": (1 << 63) - 1, "count": 1},
        {"losses": {"queue_full": -1}},
        {"producer_id": "p" * 70_000},
        {"losses": {f"reason {n}": 1 for n in range(500)}},
    ],
    ids=str,
)
def test_a_header_out_of_range_is_rejected(header: dict[str, Any]) -> None:
    """Numbers that cannot be counted with never reach the ledger."""
    fields = {"producer_id": "p", "epoch": 1, "first_sequence": 0, "count": 0, "sent_at": 2}
    frame = codec.build_frame(FrameHeader(**{**fields, **header}), [])
    assert read(codec.open_frame, frame) == "undecodable_frame"
    assert codec.peek_header(frame) is None


def test_a_frame_that_says_another_count_is_rejected_with_its_header() -> None:
    """The header of a frame that does not hold still tells how many events it stands for."""
    frame = codec.build_frame(FrameHeader("p", 1, 0, 3, 2), [EVENT, EVENT])
    with pytest.raises(RecordRejected, match="2 events, header says 3"):
        codec.open_frame(frame)
    header = codec.peek_header(frame)
    assert header is not None
    assert (header.producer_id, header.count) == ("p", 3)


def test_a_poison_event_leaves_its_neighbours_whole() -> None:
    """A frame opens although an event in it cannot be decoded; only that one is rejected."""
    for place in range(3):
        events = [EVENT, EVENT, EVENT]
        events[place] = b"\xff" * 50
        opened = codec.open_frame(codec.build_frame(FrameHeader("p", 1, 0, 3, 2), events))
        results = [read(codec.decode_event, event) for event in opened.events]
        wanted = ["", "", ""]
        wanted[place] = "undecodable_event"
        assert results == wanted


def test_limits_of_size_hold_in_both_directions() -> None:
    """A producer learns at once what intake would refuse."""
    event = {"content": b"x" * codec.MAX_EVENT_BYTES}
    with pytest.raises(RecordRejected, match="oversize"):
        codec.encode_event(event)
    assert read(codec.decode_event, b"\x00" * (codec.MAX_EVENT_BYTES + 1)) == "oversize"
    message = prefix("frame.v2") + b"\x00" * codec.MAX_MESSAGE_BYTES
    assert [read(r, message) for r in READERS if r not in (codec.decode_event, codec.peek_header)]
    assert read(codec.open_frame, message) == "oversize"
    document = {"id": "", "timestamp": 0, "principal": "", "hash": "", "body": message}
    source = {"source_topic": "", "source_partition": 0, "source_offset": 0}
    with pytest.raises(RecordRejected, match="oversize"):
        codec.encode("document_frame.v1", {**source, "documents": [document]})


def test_rejections_never_quote_what_they_reject() -> None:
    """A text that is no UTF-8 shows up in fastavro's error; not in ours."""
    event = event_with_roles(b"\x02\x10secret\xff\xff\x00")
    with pytest.raises(RecordRejected) as caught:
        codec.decode_event(event)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def smallest_size(kind: Any, above: tuple[str, ...] = ()) -> int:
    """The fewest bytes a value takes. AssertionError where a type holds itself."""
    if isinstance(kind, list):
        return 1 + min(smallest_size(branch, above) for branch in kind)
    if isinstance(kind, str):
        assert kind not in above, "recursive"
        return {"null": 0, "double": 8, "float": 4}.get(kind, 1)
    inner = kind.get("items", kind.get("values"))
    if inner is not None:
        assert smallest_size(inner, above) > 0 or kind["type"] == "map", "items of no size"
        return 1
    names = (*above, kind["name"], f"{kind.get('namespace', '')}.{kind['name']}")
    return sum(smallest_size(field["type"], names) for field in kind["fields"])


@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_no_schema_is_recursive_or_has_items_of_no_size(name: str) -> None:
    """Recursion is a stack overflow in fastavro, and empty items are memory for free."""
    assert smallest_size(load(name).raw) > 0


@pytest.mark.parametrize(
    "fields",
    [
        [{"name": "inner", "type": ["null", "Planted"]}],
        [{"name": "rows", "type": {"type": "array", "items": "null"}}],
        [
            {
                "name": "rows",
                "type": {
                    "type": "array",
                    "items": {"type": "record", "name": "Nothing", "fields": []},
                },
            }
        ],
    ],
    ids=["recursive", "array of null", "array of empty records"],
)
def test_the_check_for_dangerous_schemas_sees_them(fields: list[Any]) -> None:
    """The check of the test before can go red."""
    with pytest.raises(AssertionError, match=r"recursive|items of no size"):
        smallest_size({"type": "record", "name": "Planted", "fields": fields})


@pytest.mark.parametrize("kind", ["boolean", "double", "int"])
def test_values_of_other_types_are_checked_too(kind: str) -> None:
    """Neither 2 for a boolean, nor a cut double, nor an int of 33 bits."""
    data = {"boolean": b"\x02", "double": b"\x00" * 7, "int": encode_varint(1 << 31)}[kind]
    with pytest.raises(Malformed):
        compile_skip(kind)(data, 0, Budget(10))
