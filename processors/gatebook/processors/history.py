"""Accesses of the past in order of time: from the index, or from the event topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from heapq import merge
from operator import attrgetter
from typing import Any

import msgspec
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from gatebook.processors.search.service import PAGE_DOCUMENTS, search
from gatebook.processors.sinks.connection import Connection
from gatebook.schemas.codec import SINGLE_OBJECT, decode
from gatebook.schemas.errors import GatebookError, RecordRejected
from gatebook.schemas.topics import EVENT, topic_name
from gatebook.schemas.wire import WireFormat

REQUEST_TIMEOUT_SECONDS = 15.0
POLL_SECONDS = 1.0
# What a partition's reader keeps ready; there are as many readers as partitions.
QUEUED_KILOBYTES = 4096
SECOND_CHARACTERS = len("2026-11-23T10:15:00")


class HistoryUnreadable(GatebookError):
    """Kafka does not give what was asked for."""

    exit_code = 3
    next_step = "see `gatebook status`; without Kafka use --source index"


class Batch(msgspec.Struct, frozen=True):
    """Some documents, and when they were written; -1: not known."""

    documents: Sequence[dict[str, Any]]
    written_ns: int = -1


async def from_index(
    connection: Connection, namespace: str, since: str | None, until: str | None, query: str = ""
) -> AsyncIterator[Batch]:
    """Documents of one point in time by their own time; a batch holds those of one second, so that
    what ends because of time ends in between. Raises SearchFailed, Unreachable and the like."""
    waiting: list[dict[str, Any]] = []
    pages = search(connection, namespace, query, since, until, size=None, sort="@timestamp:asc")
    async for page in pages:
        for hit in page.hits:
            if waiting and _second(waiting[0]) != _second(hit.source):
                yield Batch(waiting)
                waiting = []
            waiting.append(hit.source)
            if len(waiting) >= PAGE_DOCUMENTS:
                yield Batch(waiting)
                waiting = []
    if waiting:
        yield Batch(waiting)


def _second(document: dict[str, Any]) -> str:
    return str(document.get("@timestamp", ""))[:SECOND_CHARACTERS]


class _Written(msgspec.Struct, frozen=True):
    written_ms: int
    value: bytes


def from_kafka(
    properties: dict[str, Any],
    namespace: str,
    since_ms: int,
    until_ms: int | None = None,
    wire: WireFormat = SINGLE_OBJECT,
) -> Iterator[Batch]:
    """Messages of the event topic that were written in a span of time, all partitions merged by
    when they were written, up to where they end now. Blocks. Raises HistoryUnreadable.

    What retention has removed is not there, nor is what cannot be read.
    """
    topic = topic_name(namespace, EVENT)
    try:
        readers = [_read(properties, part) for part in _starts(properties, topic, since_ms)]
        for message in merge(*readers, key=attrgetter("written_ms")):
            if until_ms is not None and message.written_ms >= until_ms:
                return
            documents = _documents(message.value, wire)
            if documents:
                yield Batch(documents, message.written_ms * 1_000_000)
    except KafkaException as error:
        raise HistoryUnreadable(f"Kafka does not give the past: {error.args[0].name()}") from None


def _consumer(properties: dict[str, Any], group: str) -> Consumer:
    return Consumer(
        {
            **properties,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": QUEUED_KILOBYTES,
        }
    )


def _starts(properties: dict[str, Any], topic: str, since_ms: int) -> list[TopicPartition]:
    """Where each partition's first message since then is; partitions without one are left out."""
    client = _consumer(properties, f"{topic}-backtest")
    try:
        found = client.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        asked = [TopicPartition(topic, number, since_ms) for number in sorted(found.partitions)]
        starts = client.offsets_for_times(asked, timeout=REQUEST_TIMEOUT_SECONDS)
        return [part for part in starts if part.offset >= 0]
    finally:
        client.close()


def _read(properties: dict[str, Any], start: TopicPartition) -> Iterator[_Written]:
    """One partition up to its end as it is now: what comes meanwhile is not waited for."""
    client = _consumer(properties, f"{start.topic}-backtest")
    try:
        _, end = client.get_watermark_offsets(start, timeout=REQUEST_TIMEOUT_SECONDS)
        client.assign([start])
        while True:
            message = client.poll(POLL_SECONDS)
            if message is None:
                continue
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return
                raise KafkaException(error)
            if _offset(message) >= end:
                return
            yield _Written(message.timestamp()[1], message.value() or b"")
    finally:
        client.close()


def _offset(message: Message) -> int:
    return int(message.offset() or 0)


def _documents(value: bytes, wire: WireFormat) -> list[dict[str, Any]]:
    try:
        frame = decode("document_frame.v1", value, wire)
        return [orjson.loads(document["body"]) for document in frame["documents"]]
    except (RecordRejected, orjson.JSONDecodeError):
        return []  # index wrote a dead letter of it
