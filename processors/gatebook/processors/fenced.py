"""A partition of a compacted topic that has one writer at a time.

Whoever takes a partition over opens a transactional producer under the partition's name. From that
moment the broker refuses what the writer before it sends, even where that one does not know yet
that it lost the partition: it was stopped, or cut off, and goes on where it was. A write is one
transaction: it is there whole or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from gatebook.schemas.codec import MAX_MESSAGE_BYTES
from gatebook.schemas.errors import Fatal

log = logging.getLogger(__name__)

Entry = tuple[bytes, bytes | None]
POLL_SECONDS = 0.5
REQUEST_TIMEOUT_SECONDS = 30.0
OVERHEAD_BYTES = 64 * 1024
FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)


class FencedWriter:
    """Writes to one partition. Blocks; waits for as long as the broker is away. Not thread-safe."""

    def __init__(self, properties: dict[str, Any], name: str, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._producer = Producer(
            {
                "compression.type": "lz4",
                "linger.ms": 0,
                **properties,
                "acks": "all",
                "enable.idempotence": True,
                "transactional.id": name,
                "message.max.bytes": MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
            }
        )

    def open(self) -> None:
        """Shut out every writer before this one. Only what is read after this is the last word."""
        try:
            self._insist(lambda: self._producer.init_transactions(REQUEST_TIMEOUT_SECONDS))
        except KafkaException as error:
            raise self._fatal(error) from None

    def write(self, entries: Sequence[Entry]) -> None:
        """Returns when all entries are there for good. Raises Fatal where another writer has
        taken the partition over: then none of them is."""
        while not self._try(entries):
            log.warning("a transaction on %s was aborted; trying again", self._topic)

    def _try(self, entries: Sequence[Entry]) -> bool:
        """Whether the transaction was committed; False: it was aborted and may be repeated."""
        try:
            self._producer.begin_transaction()
            for key, value in entries:
                self._produce(key, value)
            self._insist(lambda: self._producer.commit_transaction(REQUEST_TIMEOUT_SECONDS))
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise self._fatal(error) from None
            try:
                self._insist(lambda: self._producer.abort_transaction(REQUEST_TIMEOUT_SECONDS))
            except KafkaException as second:
                raise self._fatal(second) from None
            return False
        return True

    def _produce(self, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, self._partition)
            except BufferError:  # the local queue is full: let it drain
                self._producer.poll(POLL_SECONDS)
            else:
                return

    def _insist(self, call: Callable[[], Any]) -> None:
        """Call until it is done or cannot be done; a broker that is away is waited for."""
        while True:
            try:
                call()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                log.warning("Kafka does not answer: %s; waiting", error.args[0].name())
            else:
                return

    def _fatal(self, error: KafkaException) -> Fatal:
        inner = error.args[0]
        if inner.code() in FENCED or inner.fatal():
            return Fatal(
                f"another worker has taken over {self._topic} partition {self._partition}",
                "none; this worker ends and comes back",
            )
        return Fatal(f"Kafka refused a transaction: {inner.name()}", "see `gatebook doctor`")


def read_to_end(properties: dict[str, Any], topic: str, partition: int) -> list[Entry]:
    """Everything that was committed to a partition, oldest first. Blocks."""
    client = Consumer(
        {
            **properties,
            "group.id": f"{topic}-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        here = TopicPartition(topic, partition)
        low, high = client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
        if low == high:
            return []
        client.assign([TopicPartition(topic, partition, low)])
        return list(_poll_to_end(client))
    finally:
        client.close()


def _poll_to_end(client: Consumer) -> list[Entry]:
    # To the end of the partition and not to an offset: compaction may have taken the last one.
    entries: list[Entry] = []
    while True:
        message = client.poll(POLL_SECONDS)
        error = message.error() if message is not None else None
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            return entries
        if message is not None and error is None:
            entries.append((message.key() or b"", message.value()))


def nothing_left(low: int, high: int, next_offset: int) -> bool:
    """Whether a log from `low` to before `high` holds nothing that was not read. A log that was
    emptied before it was read holds nothing either, although the reader never comes to its end:
    waiting for that would hold up the time of all who wait for the slowest partition."""
    return next_offset == high or low == high


class EndOffsets:
    """Asks where the logs of partitions end. Blocks; keeps one client."""

    def __init__(self, properties: dict[str, Any], name: str) -> None:
        self._client = Consumer({**properties, "group.id": name, "enable.auto.commit": False})

    def end(self, topic: str, partition: int) -> int:
        """The offset the next message will have. Raises KafkaException."""
        here = TopicPartition(topic, partition)
        _, high = self._client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
        return int(high)

    def is_read(self, topic: str, partition: int, next_offset: int) -> bool:
        """Whether nothing is there to be read from this offset on. Raises KafkaException."""
        here = TopicPartition(topic, partition)
        low, high = self._client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
        return nothing_left(int(low), int(high), next_offset)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; waits for the broker. Fatal where it does not exist."""
        while True:
            try:
                listed = self._client.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS)
                break
            except KafkaException as error:
                log.warning("Kafka does not answer: %s; waiting", error.args[0].name())
        found = listed.topics[topic]
        if found.error is not None or not found.partitions:
            raise Fatal(f"topic {topic} does not exist", "run `gatebook setup`")
        return len(found.partitions)

    def close(self) -> None:
        """Close the client."""
        self._client.close()
