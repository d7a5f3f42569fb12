"""Producer processes that die, brokers that do not answer: nothing that was called durable is lost.

One broker proves crash recovery, not the loss of a replica.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tests.sealed import make_keys
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import KafkaPublisher
from gatebook.producers.recorder import Recorder
from gatebook.producers.sender import recover_abandoned
from gatebook.producers.spool import abandoned_spools
from gatebook.schemas.codec import OpenedFrame, decode_event, open_frame
from gatebook.schemas.topics import ACCESS, topic_name

CHILD = Path(__file__).with_name("producer_child.py")
KILLS = 6
EVENT = {"event": {"kind": "event"}}


def create_topic(bootstrap: str, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)


def read_all(bootstrap: str, topic: str) -> list[OpenedFrame]:
    """Every frame that is on the topic now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    try:
        partition = TopicPartition(topic, 0, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=30)
        consumer.assign([partition])
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < end and time.monotonic() < deadline:
            found = consumer.consume(end - len(values), timeout=1)
            values += [message.value() for message in found if message.value() is not None]
        assert len(values) == end
        return [open_frame(value) for value in values]
    finally:
        consumer.close()


def by_epoch(frames: list[OpenedFrame]) -> dict[int, dict[int, str]]:
    """Epoch -> sequence -> event id. Fails where one number stands for two events."""
    found: dict[int, dict[int, str]] = defaultdict(dict)
    for frame in frames:
        for index, data in enumerate(frame.events):
            number = frame.header.first_sequence + index
            event_id = decode_event(data)["event"]["id"]
            assert found[frame.header.epoch].setdefault(number, event_id) == event_id
    return found


def ids(frames: list[OpenedFrame]) -> set[str]:
    return {event_id for numbers in by_epoch(frames).values() for event_id in numbers.values()}


def assert_without_gaps(frames: list[OpenedFrame]) -> None:
    for numbers in by_epoch(frames).values():
        assert sorted(numbers) == list(range(len(numbers)))


@pytest.fixture
def topic(engines: Any, namespace: str) -> str:
    name = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, name)
    return name


@pytest.fixture
def settings(engines: Any, namespace: str, tmp_path: Path) -> ProducerSettings:
    return ProducerSettings(
        kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace, home=str(tmp_path)
    )


@contextmanager
def child(settings: ProducerSettings, mode: str, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "GATEBOOK_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "GATEBOOK_NAMESPACE": settings.namespace,
        "GATEBOOK_HOME": settings.home,
        **extra,
    }
    process = subprocess.Popen(
        [sys.executable, str(CHILD), mode], env=environment, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_lines(process: subprocess.Popen[bytes]) -> list[str]:
    """What the process said until its end; a line that was cut does not count."""
    assert process.stdout is not None
    return [line[:-1].decode() for line in process.stdout if line.endswith(b"\n")]


def test_a_producer_killed_under_load_loses_nothing_it_called_durable(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """SIGKILL at a random moment, several times: after recovery each epoch is on the topic without
    a gap, with every event whose caller was told that it is durable."""
    chance = random.Random(7)
    told: set[str] = set()
    for _ in range(KILLS):
        with child(settings, "killed") as process:
            assert process.stdout is not None
            told.add(process.stdout.readline().strip().decode())
            time.sleep(chance.uniform(0.05, 0.8))  # waits: the moment of death is the input
            process.kill()
            told.update(read_lines(process))

    report = recover_abandoned(settings, KafkaPublisher(settings), 60)

    frames = read_all(engines.kafka_bootstrap, topic)
    assert report.left == 0
    assert report.lost == 0
    assert abandoned_spools(settings.spool_path) == []
    assert len(by_epoch(frames)) == KILLS
    assert_without_gaps(frames)
    assert len(told) > KILLS * 5
    assert told <= ids(frames)


def test_a_producer_killed_while_the_broker_is_away_loses_nothing_either(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """Everything comes from the spool."""
    with child(settings, "killed", GATEBOOK_KAFKA_BOOTSTRAP="127.0.0.1:1") as process:
        assert process.stdout is not None
        told = {process.stdout.readline().strip().decode() for _ in range(50)}
        process.kill()
        told.update(read_lines(process))

    report = recover_abandoned(settings, KafkaPublisher(settings), 60)

    frames = read_all(engines.kafka_bootstrap, topic)
    assert report.events == sum(frame.header.count for frame in frames)
    assert_without_gaps(frames)
    assert told <= ids(frames)


def test_two_sigterms_end_a_producer_once_and_in_good_order(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """The second signal comes while the first is being served."""
    with child(settings, "terminated") as process:
        assert process.stdout is not None
        told = []
        while (line := process.stdout.readline().strip().decode()) != "ready":
            told.append(line)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    frames = read_all(engines.kafka_bootstrap, topic)
    assert [frame.header.state for frame in frames].count("closed") == 1
    assert frames[-1].header.state == "closed"
    assert [e for _, e in sorted(next(iter(by_epoch(frames).values())).items())] == told
    assert abandoned_spools(settings.spool_path) == []


def test_an_end_with_a_full_queue_and_too_short_a_deadline_keeps_the_rest_spooled(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """The broker is away when the process ends; the next process sends what is left."""
    extra = {
        "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "GATEBOOK_FLUSH_DEADLINE_SECONDS": "0.5",
    }
    with child(settings, "terminated", **extra) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != b"ready":
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    report = recover_abandoned(settings, KafkaPublisher(settings), 60)

    frames = read_all(engines.kafka_bootstrap, topic)
    assert report.events == 200
    assert_without_gaps(frames)
    assert frames[-1].header.state == "closed"


def test_workers_forked_from_a_preloaded_application_are_producers_of_their_own(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """As with gunicorn --preload: parent and workers have an epoch each, none hangs at its end,
    and each says that it is closed."""
    with child(settings, "preloaded") as process:
        assert process.wait(120) == 0
        lines = read_lines(process)

    frames = read_all(engines.kafka_bootstrap, topic)
    assert lines[-1] == "workers [0, 0, 0, 0]"
    assert ids(frames) == set(lines[:-1])
    assert sorted(len(numbers) for numbers in by_epoch(frames).values()) == [2, 50, 50, 50, 50]
    assert_without_gaps(frames)
    assert [f.header.state for f in frames].count("closed") == 5


def test_a_broker_that_is_down_at_the_start_gets_everything_later(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """Emitting does not wait for it."""
    engines.kill_kafka()
    try:
        recorder = Recorder(settings)
        begun = time.monotonic()
        for _ in range(500):
            recorder.emit(EVENT)
        assert time.monotonic() - begun < 5
        wait_until("the counters", lambda: recorder.counters().spooled == 500)
        assert recorder.counters().acknowledged == 0
    finally:
        engines.start_kafka()

    assert recorder.close(60).complete
    frames = read_all(engines.kafka_bootstrap, topic)
    assert_without_gaps(frames)
    assert len(ids(frames)) == 500


def test_a_broker_that_dies_under_load_gets_everything_once_when_it_is_back(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """What was in flight when it died is sent again under the same numbers."""
    recorder = Recorder(settings)
    emitted = set()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            emitted.add(recorder.emit(EVENT))
            stop.wait(0.001)

    thread = threading.Thread(target=load)
    thread.start()
    wait_until("the counters", lambda: recorder.counters().acknowledged > 200)
    engines.kill_kafka()
    try:
        before = recorder.counters().spooled
        wait_until("the counters", lambda: recorder.counters().spooled > before + 200)
    finally:
        engines.start_kafka()
    stop.set()
    thread.join()

    assert recorder.close(90).complete
    frames = read_all(engines.kafka_bootstrap, topic)
    assert_without_gaps(frames)
    assert ids(frames) == emitted
    assert frames[-1].header.losses == {}


def test_a_broker_that_accepts_and_never_answers_holds_nothing_up(
    settings: ProducerSettings, engines: Any, topic: str
) -> None:
    """Emitting goes on, closing keeps its deadline, the spool keeps the events."""
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        address = f"127.0.0.1:{black_hole.getsockname()[1]}"
        lost = ProducerSettings(
            kafka_bootstrap=address, namespace=settings.namespace, home=settings.home
        )
        recorder = Recorder(lost)
        recorder.emit_durable(EVENT, 10)
        begun = time.monotonic()
        report = recorder.close(1)
        assert time.monotonic() - begun < 10
        assert report.unacknowledged == 1

    assert recover_abandoned(settings, KafkaPublisher(settings), 60).events == 1


def test_a_frame_above_the_brokers_limit_is_sent_in_parts(
    engines: Any, namespace: str, settings: ProducerSettings
) -> None:
    """And an event that alone is above it goes without its content."""
    topic = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, topic, **{"max.message.bytes": "20000"})
    make_keys(Path(settings.home))
    recorder = Recorder(msgspec.structs.replace(settings, capture_level="redacted"))
    for number in range(60):
        size = 100_000 if number == 30 else 2000
        content = json.dumps({"input_messages": random.Random(number).randbytes(size // 2).hex()})
        recorder.emit({**EVENT, "content": content.encode(), "content_encoding": "json"})

    assert recorder.close(60).complete
    frames = read_all(engines.kafka_bootstrap, topic)
    assert_without_gaps(frames)
    events = [decode_event(data) for frame in frames for data in frame.events]
    assert len(events) == 60
    without = [e for e in events if e["content"] is None]
    assert [e["gatebook"]["capture"]["degraded_reason"] for e in without] == ["broker_limit"]
    assert recorder.counters().dropped == {}


def test_a_topic_that_is_not_there_yet_is_waited_for(
    engines: Any, namespace: str, settings: ProducerSettings
) -> None:
    """Where the broker does not create topics by itself, events wait in the spool."""
    recorder = Recorder(settings)
    recorder.emit_durable(EVENT, 10)
    topic = topic_name(namespace, ACCESS)
    admin = AdminClient({"bootstrap.servers": engines.kafka_bootstrap})
    if topic not in admin.list_topics(timeout=30).topics:
        create_topic(engines.kafka_bootstrap, topic)

    assert recorder.close(60).complete
    assert len(ids(read_all(engines.kafka_bootstrap, topic))) == 1
