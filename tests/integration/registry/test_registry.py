"""Messages in the Confluent format against a real schema registry."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from gatebook.schemas import codec
from gatebook.schemas.confluent import ConfluentWire, wire_from_env
from gatebook.schemas.errors import Fatal, RecordRejected
from gatebook.schemas.examples import examples
from gatebook.schemas.registry import WIRE_SCHEMAS, load
from gatebook.schemas.topics import all_topics
from gatebook.schemas.wire import AnyWire

ON_TOPICS = [topic.schema for topic in all_topics().values() if topic.schema]


@pytest.mark.parametrize("name", ON_TOPICS)
def test_each_message_comes_back_in_another_process(
    schema_registry: str, namespace: str, name: str
) -> None:
    """The id the writer got is all the reader needs, with caches of its own."""
    writer, reader = (AnyWire(ConfluentWire(schema_registry, namespace)) for _ in range(2))
    for record in examples(name).values():
        message = codec.encode(name, record, writer)
        assert message[0] == 0
        assert codec.decode(name, message, reader) == codec.decode(name, codec.encode(name, record))


def test_a_frame_of_spliced_events_is_read_by_confluents_own_deserializer(
    schema_registry: str, namespace: str
) -> None:
    """Any Confluent consumer reads our frames; it needs none of our code."""
    events = list(examples("access_event.v2").values())
    header = codec.FrameHeader("p", 1, 0, len(events), 2, losses={"queue_full": 3})
    wire = ConfluentWire(schema_registry, namespace)
    message = codec.build_frame(header, map(codec.encode_event, events), wire)
    with SchemaRegistryClient({"url": schema_registry}) as client:
        context = SerializationContext(f"{namespace}.access.v1", MessageField.VALUE)
        frame = AvroDeserializer(client)(message, context)
    assert [event["event"]["id"] for event in frame["events"]] == [e["event"]["id"] for e in events]
    assert frame["losses"] == [{"reason": "queue_full", "count": 3}]
    opened = codec.open_frame(message, wire)
    assert [codec.decode_event(event, opened.event_schema) for event in opened.events] == frame[
        "events"
    ]


def test_one_reader_takes_both_formats(schema_registry: str, namespace: str) -> None:
    """Switching a fleet to a registry needs no pause: old and new messages mix on a topic."""
    wire = wire_from_env(namespace, {"SCHEMA_REGISTRY_URL": schema_registry})
    record = examples("alert.v2")["delivered"]
    confluent = codec.encode("alert.v2", record, wire)
    single = codec.encode("alert.v2", record)
    assert (confluent[0], single[0]) == (0x00, 0xC3)
    assert codec.decode("alert.v2", confluent, wire) == codec.decode("alert.v2", single, wire)


def test_two_producers_get_the_same_id(schema_registry: str, namespace: str) -> None:
    """Registering what is registered changes nothing: no version per process start."""
    first, second = (ConfluentWire(schema_registry, namespace) for _ in range(2))
    assert first.prefix("finding.v2") == second.prefix("finding.v2")
    with SchemaRegistryClient({"url": schema_registry}) as client:
        assert client.get_versions(first.subject("finding.v2")) == [1]


def test_every_wire_schema_is_registered_as_it_is_packaged(
    schema_registry: str, namespace: str
) -> None:
    """The registry shows the documented schema, with the fingerprint of the packaged one."""
    wire = ConfluentWire(schema_registry, namespace)
    with SchemaRegistryClient({"url": schema_registry}) as client:
        for name in ON_TOPICS:
            number = int.from_bytes(wire.prefix(name)[1:], "big")
            assert json.loads(client.get_schema(number).schema_str or "") == load(name).raw
    assert {*ON_TOPICS, "access_event.v2"} == set(WIRE_SCHEMAS)


def test_an_id_of_a_foreign_schema_is_rejected(schema_registry: str, namespace: str) -> None:
    """Somebody else's schema in the same registry does not become ours."""
    foreign = Schema('{"type": "record", "name": "Frame", "fields": []}', "AVRO")
    with SchemaRegistryClient({"url": schema_registry}) as client:
        number = client.register_schema(f"{namespace}-foreign-value", foreign)
    wire = ConfluentWire(schema_registry, namespace)
    with pytest.raises(RecordRejected, match="not a packaged one"):
        wire.identify(b"\x00" + number.to_bytes(4, "big"))


def test_an_id_that_was_never_given_is_rejected(schema_registry: str, namespace: str) -> None:
    """The registry's own "no such schema" is an answer, not an outage."""
    with pytest.raises(RecordRejected, match="no such id"):
        ConfluentWire(schema_registry, namespace).identify(b"\x00\x7f\xff\xff\xff")


def test_an_incompatible_subject_stops_the_producer(schema_registry: str, namespace: str) -> None:
    """Where the subject holds something our schema cannot read, nothing is written."""
    wire = ConfluentWire(schema_registry, namespace)
    subject = wire.subject("alert.v2")
    other = load("alert.v2").raw | {"fields": [{"name": "timestamp", "type": "string"}]}
    with SchemaRegistryClient({"url": schema_registry}) as client:
        client.register_schema(subject, Schema(json.dumps(other), "AVRO"))
        client.set_compatibility(subject_name=subject, level="BACKWARD")
    with pytest.raises(Fatal, match="HTTP 409"):
        wire.prefix("alert.v2")
