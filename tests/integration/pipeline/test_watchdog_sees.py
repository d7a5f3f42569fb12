"""What the watchdog takes for a stall, on a real broker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from gatebook.processors.watchdog import EXIT_STALLED

LOOKS_SECONDS = 8.0
PROGRAM = """
import sys, time
from gatebook.processors.watchdog import Watchdog
bootstrap, group, topic, held = sys.argv[1:]
properties = {"bootstrap.servers": bootstrap, "group.id": group}
assigned = [(topic, 0)] if held == "held" else []
Watchdog("index", properties, lambda: assigned, lambda: False, time.monotonic, 3).run()
"""


@pytest.fixture
def topic(engines: Any, namespace: str) -> str:
    """A topic with one partition."""
    admin = AdminClient({"bootstrap.servers": engines.kafka_bootstrap})
    admin.create_topics([NewTopic(namespace, 1, 1)])[namespace].result(30)
    return namespace


@contextmanager
def watchdog(engines: Any, topic: str, held: str) -> Iterator[subprocess.Popen[bytes]]:
    """A watchdog in a process of its own, looking at a group named like the topic."""
    command = [sys.executable, "-c", PROGRAM, engines.kafka_bootstrap, topic, topic, held]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write(engines: Any, topic: str, transactional: bool) -> None:
    """One message; with a transaction its marker follows."""
    properties = {"bootstrap.servers": engines.kafka_bootstrap}
    if transactional:
        properties["transactional.id"] = topic
    producer = Producer(properties)
    if transactional:
        producer.init_transactions(30)
        producer.begin_transaction()
    producer.produce(topic, b"x")
    if transactional:
        producer.commit_transaction(30)
    assert producer.flush(30) == 0


def commit(engines: Any, topic: str, offset: int) -> None:
    """Commit an offset for the group."""
    client = Consumer({"bootstrap.servers": engines.kafka_bootstrap, "group.id": topic})
    client.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    client.close()


def test_a_message_nobody_takes_is_a_stall(engines: Any, topic: str) -> None:
    """A partition is held, a message waits in it, and no offset moves: the process ends."""
    write(engines, topic, transactional=False)
    with watchdog(engines, topic, "held") as process:
        assert process.wait(60) == EXIT_STALLED


def test_the_marker_of_a_transaction_is_no_stall(engines: Any, topic: str) -> None:
    """What lies between the committed offset and the end holds no message: nothing can be done,
    so the process goes on."""
    write(engines, topic, transactional=True)
    commit(engines, topic, 1)
    with watchdog(engines, topic, "held") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(LOOKS_SECONDS)
        write(engines, topic, transactional=False)
        assert process.wait(60) == EXIT_STALLED


def test_a_worker_outside_its_group_is_a_stall(engines: Any, topic: str) -> None:
    """No partition is held, and the group has no members: the process ends to join it anew."""
    with watchdog(engines, topic, "none") as process:
        assert process.wait(60) == EXIT_STALLED


def test_a_worker_without_partitions_in_a_served_group_waits(engines: Any, topic: str) -> None:
    """Others hold all partitions: a spare worker stays."""
    member = Consumer({"bootstrap.servers": engines.kafka_bootstrap, "group.id": topic})
    try:
        member.subscribe([topic])
        while not member.assignment():
            member.poll(0.2)
        with watchdog(engines, topic, "none") as process, pytest.raises(subprocess.TimeoutExpired):
            process.wait(LOOKS_SECONDS)
    finally:
        member.close()
