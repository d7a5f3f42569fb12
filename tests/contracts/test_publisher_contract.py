"""What every publisher promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import (
    KafkaPublisher,
    MemoryPublisher,
    MessageRefused,
    Publisher,
)
from gatebook.schemas.topics import ACCESS, topic_name

LIMIT_BYTES = 1_000_000


def kafka(engines: Any, namespace: str, home: Path) -> tuple[Publisher, Callable[[], list[Any]]]:
    topic = topic_name(namespace, ACCESS)
    admin = AdminClient({"bootstrap.servers": engines.kafka_bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    settings = ProducerSettings(
        kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace, home=str(home)
    )

    def read() -> list[tuple[bytes, bytes]]:
        consumer = Consumer({"bootstrap.servers": engines.kafka_bootstrap, "group.id": "unused"})
        partition = TopicPartition(topic, 0, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=30)
        consumer.assign([partition])
        found = consumer.consume(end, timeout=30)
        consumer.close()
        return [(message.key(), message.value()) for message in found]

    return KafkaPublisher(settings), read


@pytest.fixture(params=["kafka", "memory"])
def made(
    request: pytest.FixtureRequest, namespace: str, tmp_path: Path
) -> Iterator[tuple[Publisher, Callable[[], list[Any]]]]:
    """A publisher, and what arrived."""
    if request.param == "kafka":
        pair = kafka(request.getfixturevalue("engines"), namespace, tmp_path)
    else:
        memory = MemoryPublisher(LIMIT_BYTES)
        pair = memory, lambda: memory.messages
    yield pair
    pair[0].close(1)


def publish(publisher: Publisher, message: bytes) -> None:
    publisher.submit(message, b"key")
    assert publisher.wait(60)


def test_messages_arrive_once_in_order_with_their_key(made: Any) -> None:
    """What `wait` confirmed is there."""
    publisher, read = made
    for number in range(5):
        publish(publisher, str(number).encode())

    assert read() == [(b"key", str(number).encode()) for number in range(5)]


def test_a_message_that_is_too_large_is_refused_and_the_next_one_goes(made: Any) -> None:
    """Refused for good: sending it again would not help."""
    publisher, read = made
    with pytest.raises(MessageRefused):
        publish(publisher, b"x" * (LIMIT_BYTES + 1))
    publish(publisher, b"small")

    assert read() == [(b"key", b"small")]


def test_a_confirmed_message_survives_the_close(made: Any) -> None:
    """Closing twice is harmless."""
    publisher, read = made
    publish(publisher, b"kept")
    publisher.close(5)
    publisher.close(5)

    assert read() == [(b"key", b"kept")]
