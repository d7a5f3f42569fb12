"""A worker that waits for Kafka says so, and what to do, without filling a log."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from gatebook.processors.broker import Broker, Complaint


class Absent:
    """A client of a broker that comes back at an attempt; each takes three seconds."""

    def __init__(self, properties: dict[str, Any], back_at: int, now: list[float]) -> None:
        self._on_error = properties["error_cb"]
        self._back_at, self._now = back_at, now
        self._attempts = 0

    def list_topics(self, topic: str, *, timeout: float) -> Any:
        self._attempts += 1
        self._now[0] += timeout
        if self._attempts < self._back_at:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata"))
        return SimpleNamespace(topics={topic: "what it is"})

    def poll(self, timeout: float) -> None:
        self._on_error(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
        self._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))


def test_waiting_is_told_once_a_minute_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred and twenty seconds without a broker are two lines, and one when it is back."""
    caplog.set_level(logging.INFO)
    now = [0.0]
    broker = Broker("127.0.0.1:1", lambda given: Absent(given, 41, now), lambda: now[0])
    assert broker.topic("t") == "what it is"
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["ERROR", "ERROR", "INFO"]
    assert lines[0] == lines[1]
    assert lines[0][1].startswith("waiting for Kafka: the broker refuses our user name or password")
    assert "GATEBOOK_KAFKA_SASL_USERNAME" in lines[0][1]


def test_nothing_is_told_where_the_broker_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """What is as it should be needs no line."""
    caplog.set_level(logging.INFO)
    broker = Broker("127.0.0.1:1", lambda given: Absent(given, 1, [0.0]))
    assert broker.topic("t") == "what it is"
    assert caplog.records == []


def test_a_broker_that_goes_away_is_told_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker under way says it as one that has not begun; the watchdog looks far more often."""
    now = [0.0]
    complaint = Complaint({}, lambda: now[0])
    assert not complaint.made
    for now[0] in range(0, 121, 10):
        complaint.make(KafkaError(KafkaError._TIMED_OUT, ""))
    assert complaint.made
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert all("see that it runs at GATEBOOK_KAFKA_BOOTSTRAP" in line for line in said)
