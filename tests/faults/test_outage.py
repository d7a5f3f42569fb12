"""A broker that is away while a service goes on at load: what is kept, what is counted, and where.

Shorter than tests/benchmarks/outage.py, which lasts ten minutes, and with a spool so small that the
degrade ladder is climbed to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.test_producer_faults import assert_without_gaps, create_topic, ids, read_all
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Counters, Recorder
from gatebook.schemas.codec import decode_event
from gatebook.schemas.topics import ACCESS, topic_name

FRAME_BYTES = 16 * 1024
SPOOL_BYTES = 40 * FRAME_BYTES
MEMORY_BYTES = 20 * FRAME_BYTES
EVENT = {"event": {"kind": "event"}, "url": {"path": "/" + "x" * 400}}


@pytest.fixture
def topic(engines: Any, namespace: str) -> str:
    name = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, name)
    return name


@pytest.fixture
def settings(engines: Any, namespace: str, tmp_path: Path) -> ProducerSettings:
    return ProducerSettings(
        kafka_bootstrap=engines.kafka_bootstrap,
        namespace=namespace,
        home=str(tmp_path),
        frame_max_bytes=FRAME_BYTES,
        spool_max_bytes=SPOOL_BYTES,
        memory_buffer_max_bytes=MEMORY_BYTES,
    )


@contextmanager
def load(recorder: Recorder) -> Iterator[list[str]]:
    """Two threads that emit all the time; the ids of what they emitted."""
    emitted: list[str] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            emitted.append(recorder.emit(EVENT))
            ended.wait(0.0005)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield emitted
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def until(recorder: Recorder, what: str, condition: Callable[[Counters], Any]) -> None:
    """Waits for it, and looks at each turn that the buffers stay within their bounds."""

    def holds() -> Any:
        found = recorder.counters()
        assert found.spool_bytes <= SPOOL_BYTES
        assert found.queued_bytes <= MEMORY_BYTES
        return condition(found)

    wait_until(what, holds, 120)


def test_an_outage_past_every_bound_loses_only_what_is_counted(
    engines: Any, topic: str, settings: ProducerSettings
) -> None:
    """emitted = acknowledged + counted losses; all that was spooled reaches the topic, once, and
    the loss stands in the last frame. The log of the ladder's steps tells what was given up."""
    recorder = Recorder(settings)
    with load(recorder) as emitted:
        until(recorder, "the load gets through", lambda c: c.acknowledged > 300)
        engines.kill_kafka()
        try:
            until(recorder, "the spool is full", lambda c: c.steps_entered.get("bare"))
            until(recorder, "events are refused", lambda c: sum(c.dropped.values()) > 200)
        finally:
            engines.start_kafka()
        before = recorder.counters()
        until(recorder, "it is caught up", lambda c: c.acknowledged > before.spooled)
        until(recorder, "all is recorded in full again", lambda c: c.step == 0)

    assert recorder.close(90).complete
    counters = recorder.counters()
    assert counters.emitted == len(emitted)
    assert counters.emitted == counters.acknowledged + sum(counters.dropped.values())
    assert counters.spooled == counters.acknowledged
    assert set(counters.dropped) <= {"spool_full", "buffer_full"}
    assert {"metadata", "bare", "counters", "full"} == set(counters.steps_entered)
    frames = read_all(engines.kafka_bootstrap, topic)
    assert_without_gaps(frames)
    found = ids(frames)
    assert len(found) == counters.acknowledged
    assert found <= set(emitted)
    assert frames[-1].header.state == "closed"
    assert dict(frames[-1].header.losses or {}) == counters.dropped


def test_an_outage_within_the_bounds_loses_nothing(
    engines: Any, topic: str, namespace: str, tmp_path: Path
) -> None:
    """What was emitted before, meanwhile and after stands on the topic, once, in full."""
    recorder = Recorder(
        ProducerSettings(
            kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace, home=str(tmp_path)
        )
    )
    with load(recorder) as emitted:
        wait_until("the load gets through", lambda: recorder.counters().acknowledged > 300)
        engines.kill_kafka()
        try:
            away = recorder.counters()
            wait_until("some wait", lambda: recorder.counters().spooled > away.spooled + 300)
        finally:
            engines.start_kafka()
        wait_until("it is caught up", lambda: recorder.counters().acknowledged > away.spooled)

    assert recorder.close(90).complete
    frames = read_all(engines.kafka_bootstrap, topic)
    assert_without_gaps(frames)
    assert ids(frames) == set(emitted)
    assert recorder.counters().dropped == {}
    events = [decode_event(data) for frame in frames for data in frame.events]
    assert {event["url"]["path"] for event in events} == {EVENT["url"]["path"]}
