"""The recorder against a real broker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.producers.kafka_reading import closed, create_topic, read_frames, sequences

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import ACCESS, topic_name


def test_events_arrive_once_numbered_without_a_gap(
    engines: Any, namespace: str, tmp_path: Path
) -> None:
    """What is emitted stands on the topic once, in order, and the epoch is said to be closed."""
    topic = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, topic)
    settings = ProducerSettings(
        kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace, home=str(tmp_path)
    )
    recorder = Recorder(settings)
    ids = [recorder.emit({"attributes": {"number": str(n)}}) for n in range(2000)]

    report = recorder.close(30)

    assert report.complete
    frames = read_frames(engines.kafka_bootstrap, topic, closed)
    events = [decode_event(data) for frame in frames for data in frame.events]
    assert sequences(frames) == list(range(2000))
    assert [event["event"]["id"] for event in events] == ids
    assert frames[-1].header.first_sequence == 2000


def test_a_property_that_librdkafka_does_not_take_is_refused_at_the_start(tmp_path: Path) -> None:
    """Not by a log line after the first event; and nothing is left running."""
    settings = ProducerSettings(
        home=str(tmp_path), kafka_properties={"security.protocol": "no such protocol"}
    )
    begun = time.monotonic()
    with pytest.raises(Fatal, match="configuration"):
        Recorder(settings)
    Recorder(ProducerSettings(home=str(tmp_path), kafka_properties={"client.rack": "r1"}))
    assert time.monotonic() - begun < 5
