"""The generated codec of the access event does, bit for bit, what its references do."""

from __future__ import annotations

import collections
import io
import types
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.schemas import codec, generate_codec
from gatebook.schemas.avro import Budget, Malformed, compile_skip
from gatebook.schemas.documents import render_by_plan, to_document
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.examples import examples
from gatebook.schemas.generated import access_codec
from gatebook.schemas.registry import load

from .strategies import records

SCHEMA = load("access_event.v2")
SKIP = compile_skip(SCHEMA.raw)
EVENTS = records("access_event.v2") | st.sampled_from(list(examples("access_event.v2").values()))


def reference_encode(event: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA.parsed, event)
    return buffer.getvalue()


def reference_decode(data: bytes, values: int) -> Any:
    """What decoding meant before there was generated code: walk within the budget, then read."""
    if SKIP(data, 0, Budget(values)) != len(data):
        raise Malformed("bytes left over after the record")
    return fastavro.schemaless_reader(io.BytesIO(data), SCHEMA.parsed, None)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or that it failed: which error it was is not compared."""
    try:
        return call()
    except Exception:
        return "failed"


@settings(max_examples=300)
@given(EVENTS)
def test_events_are_written_as_fastavro_writes_them(event: dict[str, Any]) -> None:
    """Byte for byte, whatever is missing and whatever is set."""
    assert access_codec.encode(event) == reference_encode(event)


@settings(max_examples=200)
@given(EVENTS)
def test_events_are_read_as_fastavro_reads_them(event: dict[str, Any]) -> None:
    """The same record comes out, with every default filled in."""
    data = reference_encode(event)
    assert access_codec.decode(data, 5_000) == reference_decode(data, 5_000)


@settings(max_examples=500)
@given(EVENTS, st.data())
def test_damaged_events_are_refused_or_read_alike(
    event: dict[str, Any], data: st.DataObject
) -> None:
    """On damaged bytes both readers fail, or both give the same record."""
    damaged = bytearray(reference_encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        new = data.draw(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 129, 255]) | st.integers(0, 255))
        change = data.draw(st.sampled_from(["set", "insert", "cut"]))
        damaged[place : place + (change != "insert")] = b"" if change == "cut" else bytes([new])
    found = outcome(lambda: access_codec.decode(bytes(damaged), 5_000))
    wanted = outcome(lambda: reference_decode(bytes(damaged), 5_000))
    assert repr(found) == repr(wanted)  # as text, for NaN is not equal to itself


@given(EVENTS, st.integers(130, 180))
def test_the_budget_of_values_is_counted_alike(event: dict[str, Any], values: int) -> None:
    """Both readers refuse an event at exactly the same number of values."""
    data = reference_encode(event)
    found = outcome(lambda: access_codec.decode(data, values))
    assert found == outcome(lambda: reference_decode(data, values))


@settings(max_examples=200)
@given(EVENTS)
def test_documents_are_rendered_as_the_plan_says(event: dict[str, Any]) -> None:
    """The same document, from what was recorded and from what travelled."""
    wanted = render_by_plan("access_event.v2", event)
    assert to_document("access_event.v2", event) == wanted
    travelled = codec.decode_event(codec.encode_event(event))
    assert to_document("access_event.v2", travelled) == wanted


UNUSUAL: list[Any] = [
    {"timestamp": 1.0},
    {"timestamp": True},
    {"timestamp": None},
    {"timestamp": "1"},
    {"timestamp": 1 << 63},
    {"timestamp": -(1 << 63) - 1},
    {"event": None},
    {"event": []},
    {"event": {"id": None}},
    {"event": {"id": 7}},
    {"event": {"id": b"bytes"}},
    {"event": {"id": "\ud800"}},
    {"event": {"duration": "1"}},
    {"event": {"duration": 1 << 63}},
    {"event": collections.OrderedDict(id="x")},
    {"user": {"roles": ("a", "b")}},
    {"user": {"roles": None}},
    {"user": {"roles": "text"}},
    {"user": {"roles": ["a", 7]}},
    {"user": {"roles": ["a", "\ud800"]}},
    {"attributes": {"a": 7}},
    {"attributes": {7: "a"}},
    {"attributes": [("a", "b")]},
    {"gen_ai": {"request": {"temperature": 1}}},
    {"gen_ai": {"request": {"temperature": True}}},
    {"gen_ai": {"request": {"temperature": "warm"}}},
    {"gen_ai": {"request": {"stream": 1}}},
    {"gen_ai": {"request": {"seed": True}}},
    {"gen_ai": {"request": {"max_tokens": 5.0}}},
    {"content": "text"},
    {"content": bytearray(b"x")},
    {"content": 7},
    {"unheard": 1},
    types.MappingProxyType({"timestamp": 5}),
    [],
    None,
    "text",
]


@pytest.mark.parametrize("event", UNUSUAL, ids=repr)
def test_what_is_unusual_ends_as_fastavro_ends_it(event: Any) -> None:
    """Odd types are converted or refused by fastavro alone, so there is one opinion."""
    wanted = outcome(lambda: reference_encode(event))
    if wanted == "failed":
        with pytest.raises(RecordRejected, match="invalid_event"):
            codec.encode_event(event)
    else:
        assert codec.encode_event(event) == wanted


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_json_cannot_hold_are_left_out(value: float) -> None:
    """NaN and infinity are valid Avro; no index takes them, and they say nothing."""
    event = {"gen_ai": {"request": {"temperature": value, "top_p": 0.0}}}
    travelled = codec.decode_event(codec.encode_event(event))
    for render in (to_document, render_by_plan):
        assert render("access_event.v2", travelled) == {"gen_ai": {"request": {"top_p": 0.0}}}


@pytest.mark.parametrize(
    "field",
    [
        {"name": "planted", "type": "float", "default": 0},
        {"name": "planted", "type": ["null", "string", "long"], "default": None},
        {"name": "planted", "type": ["null", "float"], "default": None},
        {"name": "planted", "type": {"type": "array", "items": "long"}, "default": []},
        {"name": "planted", "type": {"type": "map", "values": "long"}, "default": {}},
        {"name": "planted", "type": "string", "default": "set"},
        {"name": "planted", "type": "string"},
    ],
    ids=str,
)
def test_no_code_is_generated_for_what_was_never_tried(field: dict[str, Any]) -> None:
    """A schema beyond the generator stops it, instead of being written wrongly."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        generate_codec._encode_field(generate_codec.Writer(), 0, field, "event")
