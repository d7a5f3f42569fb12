"""What is written comes back: records, frames, prefixes, and versions of schemas."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.schemas import codec, registry
from gatebook.schemas.codec import FrameHeader
from gatebook.schemas.errors import Fatal, RecordRejected
from gatebook.schemas.examples import examples
from gatebook.schemas.registry import WIRE_SCHEMAS, PackagedSchema, load
from gatebook.schemas.wire import AnyWire, SingleObject

from .strategies import records

MESSAGE_SCHEMAS = [name for name in WIRE_SCHEMAS if name != "frame.v2"]
EVENTS = st.lists(records("access_event.v2"), max_size=4)
LOSSES = st.dictionaries(st.text(max_size=20), st.integers(0, 1 << 40), max_size=4)


@pytest.mark.parametrize("name", MESSAGE_SCHEMAS)
def test_every_record_comes_back(name: str) -> None:
    """Whatever fits the schema is read as it was written, and written again to the same bytes."""

    @settings(max_examples=60)
    @given(records(name, complete=True))
    def check(record: dict[str, Any]) -> None:
        message = codec.encode(name, record)
        assert codec.decode(name, message) == record
        assert codec.encode(name, codec.decode(name, message)) == message

    check()


@settings(max_examples=60)
@given(EVENTS, LOSSES, st.integers(0, 1 << 62), st.sampled_from(["open", "closed"]))
def test_a_spliced_frame_opens_and_is_plain_avro(
    events: list[dict[str, Any]], losses: dict[str, int], first: int, state: str
) -> None:
    """Our reader cuts the same events out that any Avro reader sees in the array."""
    header = FrameHeader("producer", 17, first, len(events), 99, state, losses)
    encoded = [codec.encode_event(event) for event in events]
    message = codec.build_frame(header, encoded)
    opened = codec.open_frame(message)
    assert (opened.header, list(opened.events)) == (header, encoded)
    assert codec.peek_header(message) == header
    plain = fastavro.schemaless_reader(io.BytesIO(message[10:]), load("frame.v2").parsed, None)
    assert isinstance(plain, dict)
    assert plain["events"] == [codec.decode_event(event) for event in encoded]
    assert plain == codec.decode("frame.v2", message)
    assert codec.open_frame(codec.encode("frame.v2", plain)) == opened


@pytest.mark.parametrize("name", WIRE_SCHEMAS)
def test_a_message_of_one_schema_is_not_read_as_another(name: str) -> None:
    """A reader of a topic gets the records it asks for, or a rejection."""
    message = codec.encode(name, next(iter(examples(name).values())))
    for other in set(WIRE_SCHEMAS) - {name}:
        with pytest.raises(RecordRejected, match="unknown_schema"):
            codec.decode(other, message)


def crc_64_avro(text: str) -> int:
    """The fingerprint as the Avro specification defines it, written from its pseudo-code."""
    empty = 0xC15D213AA4D7A795
    crc = empty
    for byte in text.encode():
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (empty if crc & 1 else 0)
    return crc


@pytest.mark.parametrize("name", WIRE_SCHEMAS)
def test_the_prefix_is_avros_single_object_encoding(name: str) -> None:
    """C3 01 and the fingerprint of the canonical form, least significant byte first, so that any
    Avro implementation that holds our schema knows the message."""
    assert crc_64_avro('"int"') == 0x7275D51A3F395C8F  # a test vector of the specification
    wanted = b"\xc3\x01" + crc_64_avro(load(name).canonical).to_bytes(8, "little")
    assert SingleObject().prefix(name) == wanted
    assert AnyWire().identify(wanted + b"rest") == (load(name), 10)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("alert.v2", {"timestamp": "soon"}),
        ("alert.v2", {"event": {"id": None}}),
        ("alert.v2", {"timestamp": 1 << 63}),
        ("finding.v2", {"gatebook": {"evidence": 7}}),
        ("document_frame.v1", {}),
        ("document_frame.v1", {"source_topic": "t"}),
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_is_rejected(name: str, record: dict[str, Any]) -> None:
    """A programmer's mistake shows as a rejection that names the schema, not the value."""
    with pytest.raises(RecordRejected, match=f"invalid_event: does not fit {name}"):
        codec.encode(name, record)


def test_a_schema_that_is_not_packaged_stops_the_process() -> None:
    """Asking for an unknown schema is a mistake in the program, and says what there is."""
    with pytest.raises(Fatal, match=r"no schema 'nothing\.v1'") as caught:
        load("nothing.v1")
    assert "access_event.v2" in caught.value.next_step


@pytest.fixture
def predecessor(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackagedSchema]:
    """A version of the alert that came before the packaged one: without `gatebook` and `http`,
    and with a field that is gone since."""
    raw = json.loads(json.dumps(load("alert.v2").raw).replace("alert.v2", "alert.v0"))
    raw["fields"] = [f for f in raw["fields"] if f["name"] not in ("gatebook", "http")]
    raw["fields"].append({"name": "gone", "type": "string", "default": "", "doc": "Gone."})
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(raw), "CRC-64-AVRO"))
    older = PackagedSchema("alert.v0", raw, dict(fastavro.parse_schema(raw)), digest)  # type: ignore[arg-type]  # a record schema parses to a dict
    known = {**registry.by_fingerprint(), digest: older}
    load_any = registry.load
    monkeypatch.setattr("gatebook.schemas.wire.by_fingerprint", lambda: known)
    monkeypatch.setattr("gatebook.schemas.wire._by_prefix", lambda: _prefixes(known))
    monkeypatch.setattr(codec, "load", lambda name: older if name == "alert.v0" else load_any(name))
    yield older
    codec._skip.cache_clear()


def _prefixes(known: dict[bytes, PackagedSchema]) -> dict[bytes, PackagedSchema]:
    return {b"\xc3\x01" + digest: schema for digest, schema in known.items()}


def test_what_an_older_version_wrote_is_read_with_all_defaults(predecessor: PackagedSchema) -> None:
    """Records of a released version stay readable: new groups are filled in, to the last field,
    and no two records share them."""
    buffer = io.BytesIO()
    old = {"timestamp": 5, "event": {"id": "x"}, "gone": "yes"}
    fastavro.schemaless_writer(buffer, predecessor.parsed, old)
    message = b"\xc3\x01" + predecessor.fingerprint + buffer.getvalue()
    first, second = (codec.decode("alert.v2", message) for _ in range(2))
    assert first == codec.decode("alert.v2", codec.encode("alert.v2", old))
    assert first["gatebook"]["attempts"] is None
    first["gatebook"]["target"] = "changed"
    assert second["gatebook"]["target"] == ""


def older_frame(version: str) -> bytes:
    """A frame as a producer of an earlier version writes it."""
    frame = load(f"frame.{version}")
    record = {"producer_id": "p", "epoch": 1, "first_sequence": 0, "count": 1, "sent_at": 2}
    event = examples(f"access_event.{version}")["chat"]
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, frame.parsed, record | {"events": [event]})
    return SingleObject().prefix(f"frame.{version}") + buffer.getvalue()


def test_frames_of_the_version_before_are_still_read() -> None:
    """Producers are upgraded one by one: intake reads what older ones send, as the same events."""
    opened = codec.open_frame(older_frame("v1"))
    event = codec.decode_event(opened.events[0], opened.event_schema)
    current = codec.decode_event(codec.encode_event(examples("access_event.v2")["chat"]))
    assert event == current
    assert event["gatebook"]["retention"] == {"metadata": "", "redacted": "", "full": ""}


def test_findings_of_the_version_before_are_still_read() -> None:
    """A worker of the new version goes on with the findings an older one left in the topic."""
    record = next(iter(examples("finding.v1").values()))
    finding = codec.decode("finding.v2", codec.encode("finding.v1", record))
    assert finding["rule"]["id"] == record["rule"]["id"]
    assert finding["gatebook"]["incident"] == ""
