"""What waits in a topic: messages that a group of workers has not read yet.

A topic whose retention is shortened loses them before anybody has seen them, so that is asked for
before it is shortened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import ACCESS, ALERT, DEAD_LETTER, EVENT, FINDING

TIMEOUT_SECONDS = 10.0
# As long as a broker makes itself, or another, the one who knows a group.
PASSING = {"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"}
RETRY_SECONDS = 0.5
# Workers that run read a message within seconds; what waits for longer waits for a worker.
PATIENCE_SECONDS = 60.0
# These read a topic as soon as there are workers at all: without a commit they have read nothing.
READERS = {ACCESS: "intake", EVENT: "index", FINDING: "index", ALERT: "index", DEAD_LETTER: "index"}


def who_waits(
    namespace: str,
    key: str,
    name: str,
    properties: Mapping[str, Any],
    patience_seconds: float = PATIENCE_SECONDS,
) -> str:
    """The group of the namespace's that has not read a message which is there for longer than
    `patience_seconds`; "" where there is none. Raises Fatal where Kafka does not tell."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            for group, is_needed in _groups(namespace, key, properties):
                if _is_behind(group, name, is_needed, properties, patience_seconds):
                    return group
            return ""
        except KafkaException as error:
            fault = error.args[0]
            if fault.name() in PASSING and time.monotonic() < deadline:
                time.sleep(RETRY_SECONDS)
                continue
            raise Fatal(
                f"Kafka does not tell what was read of {name} ({fault.name()})",
                "see that it runs, and that the user may describe and read groups and topics",
            ) from None


def _groups(namespace: str, key: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Groups of the namespace's, and whether each reads this topic wherever workers run."""
    admin = AdminClient(dict(properties))
    found = admin.list_consumer_groups(request_timeout=TIMEOUT_SECONDS).result()
    needed = f"{namespace}-{READERS[key]}"
    others = {one.group_id for one in found.valid if one.group_id.startswith(f"{namespace}-")}
    yield needed, True
    yield from ((one, False) for one in sorted(others - {needed}))


def _is_behind(
    group: str, name: str, is_needed: bool, properties: Mapping[str, Any], patience_seconds: float
) -> bool:
    client = Consumer(
        {
            **properties,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        },
        logger=_QUIET,
    )
    try:
        known = client.list_topics(name, timeout=TIMEOUT_SECONDS).topics[name].partitions
        parts = [TopicPartition(name, number) for number in known]
        committed = client.committed(parts, timeout=TIMEOUT_SECONDS)
        if not is_needed and all(one.offset < 0 for one in committed):
            return False  # a group that reads other topics
        return any(_waits(client, one, patience_seconds) for one in committed)
    finally:
        client.close()


def _waits(client: Consumer, committed: TopicPartition, patience_seconds: float) -> bool:
    """Whether the first message that was not read has been there for so long."""
    low, high = client.get_watermark_offsets(committed, timeout=TIMEOUT_SECONDS)
    # Nothing committed, or of a log that is gone.
    position = committed.offset if low <= committed.offset <= high else low
    if position == high:
        return False
    client.assign([TopicPartition(committed.topic, committed.partition, position)])
    try:
        message = client.poll(TIMEOUT_SECONDS)
    finally:
        client.unassign()
    if message is None:
        return True  # not known: then nothing is shortened
    if message.error() is not None:
        return False  # the end: what is left are markers of transactions
    return message.timestamp()[1] / 1000 < time.time() - patience_seconds


_QUIET = logging.getLogger("gatebook.librdkafka")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
