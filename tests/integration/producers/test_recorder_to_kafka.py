"""The recorder against a real broker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event
from gatebook.schemas.topics import ACCESS, topic_name

sys.path.insert(0, str(Path(__file__).parent))
from kafka_reading import closed, create_topic, read_frames, sequences


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
