"""The engines that the tests share: real, loopback only, and safe to kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported unmarked
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError

TIMEOUT_SECONDS = 60


@pytest.fixture
def healed(engines: Any) -> Iterator[Any]:
    """The engines, brought back after the test whatever happened in it."""
    yield engines
    engines.heal()


@pytest.fixture
def client(engines: Any) -> Iterator[Elasticsearch]:
    with Elasticsearch(engines.elasticsearch_url, request_timeout=TIMEOUT_SECONDS) as one:
        yield one


def create_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # held: its futures end with it
    for created in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        created.result(TIMEOUT_SECONDS)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Returns when the broker has acknowledged every value; raises if it did not."""
    errors: list[object] = []

    def delivered(error: object, message: object) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(TIMEOUT_SECONDS) == 0
    assert errors == []


def consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        messages = consumer.consume(count, timeout=TIMEOUT_SECONDS)
        return [message.value() for message in messages if message.error() is None]
    finally:
        consumer.close()


def listening_addresses(port: int) -> set[str]:
    """Every address on which the process that holds `port` listens, on any port."""
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    (pid,) = {c.pid for c in listening if c.laddr.port == port}
    return {c.laddr.ip for c in listening if c.pid == pid}


def test_acknowledged_messages_survive_a_killed_broker(healed: Any, namespace: str) -> None:
    """SIGKILL right after the acknowledgement, restart: same address, every message there."""
    values = [f"{number}".encode() for number in range(1000)]
    create_topic(healed.kafka_bootstrap, namespace)
    produce(healed.kafka_bootstrap, namespace, values)
    healed.kill_kafka()
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": healed.kafka_bootstrap}).list_topics(timeout=2)
    healed.start_kafka()
    assert consume(healed.kafka_bootstrap, namespace, len(values)) == values


def test_acknowledged_documents_survive_a_killed_node(
    healed: Any, client: Elasticsearch, namespace: str
) -> None:
    """SIGKILL right after the answer, restart: same address, every document there."""
    client.indices.create(index=namespace)
    for number in range(20):
        client.create(index=namespace, id=str(number), document={"number": number})
    healed.kill_elasticsearch()
    healed.start_elasticsearch()
    client.indices.refresh(index=namespace)
    assert client.count(index=namespace)["count"] == 20
    assert client.get(index=namespace, id="19")["_source"] == {"number": 19}


def test_a_killed_engine_can_be_healed_without_touching_the_other(healed: Any) -> None:
    """What a failing test leaves dead, the next one finds alive."""
    port = urlsplit(healed.elasticsearch_url).port
    before = {c.pid for c in psutil.net_connections("inet") if c.laddr.port == port and c.pid}
    healed.kill_kafka()
    healed.heal()
    after = {c.pid for c in psutil.net_connections("inet") if c.laddr.port == port and c.pid}
    assert AdminClient({"bootstrap.servers": healed.kafka_bootstrap}).list_topics(timeout=10)
    assert before & after


def test_the_engines_listen_on_loopback_only(engines: Any) -> None:
    """Nothing inside them asks who you are, so nobody outside may reach any of their ports."""
    kafka_port = int(engines.kafka_bootstrap.rsplit(":", 1)[1])
    elasticsearch_port = urlsplit(engines.elasticsearch_url).port
    assert elasticsearch_port is not None
    for port in (kafka_port, elasticsearch_port):
        assert listening_addresses(port) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_neither_topic_nor_index_comes_into_being_by_a_typo(
    engines: Any, client: Elasticsearch, namespace: str
) -> None:
    """Writing to what the setup did not make is an error, in both."""
    producer = Producer({"bootstrap.servers": engines.kafka_bootstrap, "message.timeout.ms": 3000})
    errors: list[object] = []
    producer.produce(namespace, b"x", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_SECONDS) == 0
    assert errors[0] is not None
    with pytest.raises(NotFoundError):
        client.create(index=namespace, id="1", document={})


def test_a_frame_of_eight_mebibytes_passes(engines: Any, namespace: str) -> None:
    """The broker's limit fits the largest frame."""
    value = bytes(8 * 1024 * 1024 - 1024)
    create_topic(engines.kafka_bootstrap, namespace)
    producer = Producer(
        {"bootstrap.servers": engines.kafka_bootstrap, "message.max.bytes": 8388608}
    )
    errors: list[object] = []
    producer.produce(namespace, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_SECONDS) == 0
    assert errors == [None]


def test_best_compression_works_where_it_is_said_to(
    engines: Any, client: Elasticsearch, namespace: str
) -> None:
    """An index with the codec that the engines recommend commits, and gives documents back."""
    codec = "best_compression" if engines.best_compression_available else "default"
    client.indices.create(index=namespace, settings={"index": {"codec": codec}})
    for number in range(50):
        client.create(index=namespace, id=str(number), document={"text": "again " * number})
    client.indices.forcemerge(index=namespace, max_num_segments=1)
    client.indices.flush(index=namespace, force=True)
    assert client.cluster.health(index=namespace, level="indices")["status"] != "red"
    assert client.get(index=namespace, id="2")["_source"] == {"text": "again again "}


def test_a_refused_document_leaves_nothing_of_itself_in_the_logs(
    engines: Any, engines_home: Path, client: Elasticsearch, namespace: str
) -> None:
    """The refusal quotes the value to the client; the engines' logs must not keep it."""
    canary = f"canary-{namespace}"
    client.indices.create(index=namespace, mappings={"properties": {"n": {"type": "integer"}}})
    with pytest.raises(BadRequestError, match=canary):
        client.create(index=namespace, id="1", document={"n": canary})
    logs = [file.read_text() for file in (engines_home / "engines" / "logs").glob("*.log")]
    assert any(namespace in log for log in logs)  # the index's creation is logged, so we do look
    assert not any(canary in log for log in logs)


def test_the_registry_refuses_an_incompatible_schema(schema_registry: str, namespace: str) -> None:
    """A real registry, speaking Confluent's protocol: versions, ids, and 409 for a break."""
    subject = f"{namespace}-value"
    first = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
    broken = '{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}'
    with SchemaRegistryClient({"url": schema_registry}) as registry:
        number = registry.register_schema(subject, Schema(first, "AVRO"))
        assert registry.get_latest_version(subject).schema_id == number
        registry.set_compatibility(subject, level="BACKWARD")
        with pytest.raises(SchemaRegistryError) as caught:
            registry.register_schema(subject, Schema(broken, "AVRO"))
    assert caught.value.http_status_code == 409
