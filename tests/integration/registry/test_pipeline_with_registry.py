"""The whole way of an event in the Confluent format, from the recorder to the index."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.confluent import URL_VARIABLE
from gatebook.schemas.topics import ACCESS, EVENT, topic_name


def first_bytes(pipeline: Pipeline, key: str) -> set[int]:
    """The first byte of every message of a topic."""
    reader = Consumer(
        {
            "bootstrap.servers": pipeline.engines.kafka_bootstrap,
            "group.id": f"{pipeline.namespace}-first-bytes",
            "auto.offset.reset": "earliest",
        }
    )
    found: set[int] = set()
    reader.subscribe([topic_name(pipeline.namespace, key)])
    seen = 0
    try:
        while seen < pipeline.end(key):
            message = reader.poll(1)
            if message is not None and message.error() is None:
                seen += 1
                found.add(message.value()[0])
    finally:
        reader.close()
    return found


def test_with_a_registry_every_message_is_in_its_format(
    pipeline: Pipeline, schema_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorder, intake and index all take SCHEMA_REGISTRY_URL, and the event arrives once."""
    monkeypatch.setenv(URL_VARIABLE, schema_registry)
    pipeline.start("intake", "index", SCHEMA_REGISTRY_URL=schema_registry)
    recorder = Recorder(producer_settings(pipeline, tmp_path))
    ids = {
        recorder.emit({"timestamp": time.time_ns(), "event": {"kind": "event", "action": "chat"}})
        for _ in range(50)
    }

    assert recorder.close(30).complete
    pipeline.wait_indexed(50)

    assert {document["event"]["id"] for document in pipeline.documents()} == ids
    assert first_bytes(pipeline, ACCESS) == first_bytes(pipeline, EVENT) == {0}
    with SchemaRegistryClient({"url": schema_registry}) as client:
        assert f"{topic_name(pipeline.namespace, ACCESS)}-value" in client.get_subjects()


def test_events_wait_in_the_spool_for_a_registry_that_is_away(
    pipeline: Pipeline, schema_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the registry costs no request and no event; another process sends them."""
    settings = producer_settings(pipeline, tmp_path)
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9")
    away = Recorder(settings)
    for _ in range(5):
        away.emit_durable({"event": {"kind": "event"}})
    wait_until("the registry was asked", lambda: _last_error(away))
    report = away.close(0.5)
    assert (report.unspooled, report.unacknowledged) == (0, 5)
    assert away.counters().dropped == {}

    monkeypatch.setenv(URL_VARIABLE, schema_registry)
    back = Recorder(settings)
    back.start()
    wait_until("the spool is sent", lambda: back.counters().recovered == 5)
    back.close(30)

    assert first_bytes(pipeline, ACCESS) == {0}


def producer_settings(pipeline: Pipeline, home: Path) -> ProducerSettings:
    return ProducerSettings(
        kafka_bootstrap=pipeline.engines.kafka_bootstrap,
        namespace=pipeline.namespace,
        home=str(home / "producer"),
    )


def _last_error(recorder: Recorder) -> str:
    running: Any = recorder._running
    return str(running.courier.sender.last_error) if running else ""
