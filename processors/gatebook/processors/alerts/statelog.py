"""Reading the notify state: a compacted topic beside the findings, one partition each."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from gatebook.processors.alerts.desk import StateEntry

LOAD_POLL_SECONDS = 0.5
REQUEST_TIMEOUT_SECONDS = 30.0


def reader(properties: dict[str, Any], group: str) -> Consumer:
    """A consumer that commits nothing and says where a partition ends."""
    return Consumer(
        {
            **properties,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def partitions_of(
    client: Consumer, topic: str, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
) -> int:
    """How many partitions a topic has; 0: it does not exist."""
    found = client.list_topics(topic, timeout=timeout_seconds).topics[topic]
    return 0 if found.error is not None else len(found.partitions or ())


def end_of(client: Consumer, topic: str, partition: int) -> int:
    """The offset that the next message of a partition will have."""
    here = TopicPartition(topic, partition)
    _, high = client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
    return int(high)


def read_to_end(client: Consumer, topic: str, partition: int) -> list[StateEntry]:
    """Everything in a partition, oldest first."""
    here = TopicPartition(topic, partition)
    low, high = client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
    entries: list[StateEntry] = []
    if low == high:
        return entries
    client.assign([TopicPartition(topic, partition, low)])
    # To the end of the partition and not to an offset: compaction may have taken the last one.
    while True:
        message = client.poll(LOAD_POLL_SECONDS)
        error = message.error() if message is not None else None
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            return entries
        if message is not None and error is None:
            entries.append((message.key() or b"", message.value()))
