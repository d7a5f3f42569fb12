"""A worker process and what is taken away from it: its topic, its broker, its supervisor."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import psutil
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.pipeline import TERM, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.processors.worker import ROLES
from gatebook.schemas.topics import ACCESS, topic_name


def remake_topic(pipeline: Pipeline, bootstrap: str) -> None:
    """Delete the access topic and make it anew, with other offsets and another id."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = topic_name(pipeline.namespace, ACCESS)
    admin.delete_topics([topic])[topic].result(30)

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
        except KafkaException:  # its deletion is still under way
            return False
        return True

    wait_until("the topic made anew", made)


def send_once_more(bootstrap: str, pipeline: Pipeline, count: int) -> None:
    """Events by a producer that never knew the old topic."""
    producer = Producer({"bootstrap.servers": bootstrap})
    topic = topic_name(pipeline.namespace, ACCESS)
    for number in range(count):
        producer.produce(topic, pipeline.frame([make_event()], "p2"), partition=number % 2)
    assert producer.flush(60) == 0


def test_a_topic_made_anew_is_read_from_its_start(engines: Any, pipeline: Pipeline) -> None:
    """Offsets begin at 0 again, below those committed: no event of the new topic is skipped."""
    pipeline.start("intake", "index")
    for _ in range(30):
        pipeline.publish([make_event()])
    pipeline.wait_indexed(30)
    wait_until("the commit", lambda: pipeline.committed("intake") == 30)
    remake_topic(pipeline, engines.kafka_bootstrap)
    send_once_more(engines.kafka_bootstrap, pipeline, 40)
    pipeline.wait_indexed(70, timeout_seconds=120)
    assert pipeline.indexed() == 70


def test_messages_that_no_reader_understands_stop_nothing(pipeline: Pipeline) -> None:
    """No frame, a null count, an absurd count, an event that grows beyond every limit: each is
    accounted for, and the next event is indexed by the same worker."""
    (intake, _) = pipeline.start("intake", "index")
    for headers in ({}, {"gatebook-count": None}, {"gatebook-count": "9" * 30}):
        pipeline.send(b"not a frame", "p1", headers)  # type: ignore[arg-type]  # a null is the point
    pipeline.publish([make_event(attributes={f"a{n}": "\x01" * 60_000 for n in range(15)})])
    pipeline.publish([make_event()])
    pipeline.wait_indexed(1)
    pipeline.wait_indexed(4, "deadletter")
    assert intake.poll() is None
    letters = pipeline.documents("deadletter")
    assert sorted(letter["gatebook"]["count"] for letter in letters) == [1, 1, 1, 10_000]


def test_a_worker_that_cannot_finish_ends_at_its_deadline(engines: Any, pipeline: Pipeline) -> None:
    """The broker is gone in the middle of a delivery, so the batch cannot end: SIGTERM ends the
    process all the same, and its successor delivers what it left."""
    (intake,) = pipeline.start("intake", GATEBOOK_STOP_DEADLINE_SECONDS="4")
    pipeline.publish([make_event()])
    wait_until("the first event passed on", lambda: pipeline.end("event.v1") == 1)
    for _ in range(50):
        pipeline.publish([make_event() for _ in range(200)])
    engines.kill_kafka()
    try:
        began = time.monotonic()
        code = pipeline.kill(intake, TERM)
        assert time.monotonic() - began < 10
        assert code in (0, 124)
    finally:
        engines.start_kafka()
    pipeline.start("intake", "index")
    pipeline.wait_indexed(10_001, timeout_seconds=150)
    assert pipeline.indexed() == 10_001


def test_workers_started_before_kafka_wait_for_it(engines: Any, pipeline: Pipeline) -> None:
    """Without a broker each says in one line what is wrong and what to do; nothing is printed with
    a stack trace. Once the broker is there they work."""
    pipeline.publish([make_event()])
    engines.kill_kafka()
    try:
        workers = pipeline.start("intake", "index", "notify")
        wait_until(
            "all say that they wait", lambda: pipeline.logs().count("waiting for Kafka") == 3, 60
        )
        assert all(worker.poll() is None for worker in workers)
        assert "stack_trace" not in pipeline.logs()
    finally:
        engines.start_kafka()
    pipeline.wait_indexed(1)


def test_a_second_signal_ends_a_worker_at_once(engines: Any, pipeline: Pipeline) -> None:
    """Whoever presses Ctrl-C twice does not wait for the deadline."""
    (intake,) = pipeline.start("intake", GATEBOOK_STOP_DEADLINE_SECONDS="50")
    pipeline.wait_members("intake", 1)
    engines.kill_kafka()
    try:
        began = time.monotonic()
        intake.send_signal(TERM)
        time.sleep(0.2)  # waits: two signals of a kind that wait at once are one
        pipeline.kill(intake, TERM)
        assert time.monotonic() - began < 10
    finally:
        engines.start_kafka()


def test_workers_end_with_a_killed_supervisor(pipeline: Pipeline) -> None:
    """SIGKILL leaves the supervisor no time to end its workers: they end by themselves."""
    command = [sys.executable, "-m", "gatebook.cli.main", "worker"]
    with (pipeline.home / "supervisor.log").open("wb") as log:
        supervisor = subprocess.Popen(command, env=pipeline.environment(), stdout=log, stderr=log)
    pipeline.workers.append(supervisor)
    for role in ROLES:
        pipeline.wait_members(role, 1)
    children = psutil.Process(supervisor.pid).children()
    assert len(children) >= len(ROLES)
    pipeline.kill(supervisor)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert "Fatal" not in (pipeline.home / "supervisor.log").read_text()
