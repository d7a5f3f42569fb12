"""The loop somebody would write without us: one event a message, decoded, indexed in bulk.

confluent-kafka, fastavro and elasticsearch.helpers.streaming_bulk, with orjson and with the same
number of documents a request as our sink. Runs until it is killed; commits after each batch.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import fastavro
import msgspec
from confluent_kafka import Consumer
from elastic_transport import OrjsonSerializer
from elasticsearch import Elasticsearch, helpers

from gatebook.schemas.documents import to_document
from gatebook.schemas.registry import load

BATCH_EVENTS = 2_000
POLL_SECONDS = 0.2


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Where events come from and where documents go."""

    kafka_bootstrap: str
    elasticsearch_url: str
    topic: str
    index: str


def actions(messages: list[Any], index: str) -> Iterator[dict[str, Any]]:
    """One bulk action a message."""
    schema = load("access_event.v2").parsed
    for message in messages:
        assert message.error() is None, message.error()
        event = fastavro.schemaless_reader(io.BytesIO(message.value()), schema, None)
        document = to_document("access_event.v2", event)  # type: ignore[arg-type]  # a record
        yield {
            "_op_type": "create",
            "_index": index,
            "_id": document["event"]["id"],
            "_source": document,
        }


def run(task: Task) -> None:
    """Until somebody ends the process."""
    consumer = Consumer(
        {
            "bootstrap.servers": task.kafka_bootstrap,
            "group.id": f"{task.topic}-plain",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 300_000,
            "max.poll.interval.ms": 600_000,
        }
    )
    consumer.subscribe([task.topic])
    client = Elasticsearch(
        task.elasticsearch_url, serializer=OrjsonSerializer(), request_timeout=60
    )
    while True:
        messages = consumer.consume(BATCH_EVENTS, POLL_SECONDS)
        bulk = helpers.streaming_bulk(
            client,
            actions(messages, task.index),
            chunk_size=BATCH_EVENTS,
            max_chunk_bytes=4 * 1024 * 1024,
            max_retries=3,
        )
        for ok, item in bulk:
            assert ok, item
        if messages:
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Task))
