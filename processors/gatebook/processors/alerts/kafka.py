"""A Kafka topic, for whatever else wants findings: CloudEvents as the Kafka binding has them.

The key is the dedup key, so that all steps of one problem come in order. A step that is sent
again has the same event id.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from gatebook.processors.alerts.base import Delivery, Finding
from gatebook.processors.alerts.cloudevents import CONTENT_TYPE, event_of
from gatebook.processors.alerts.http import UNUSABLE
from gatebook.processors.alerts.options import TargetOptions
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.schemas.errors import Fatal

POLL_SECONDS = 0.02
MILLISECONDS = 1000
_REASONS = {
    KafkaError._MSG_TIMED_OUT: "timeout",
    KafkaError._ALL_BROKERS_DOWN: "unreachable",
    KafkaError._TRANSPORT: "unreachable",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "unauthorized",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "unauthorized",
}


class KafkaOptions(TargetOptions, frozen=True, tag="kafka", kw_only=True):
    """A target of type kafka. It goes to the brokers the workers use, with their credentials."""

    topic: str
    """Name of the topic, in full; it must be there."""
    source: str = "/gatebook"
    """Attribute `source` of the events: which Gatebook this is."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> KafkaTarget:
        """The target; `seams` must hold `kafka`, the properties of librdkafka."""
        if not self.topic:
            raise Fatal("it has no topic", "name one in `topic`")
        return KafkaTarget(name, self, settings, seams["kafka"])


class KafkaTarget:
    """Sends findings to one topic; success is a delivery report with acks=all."""

    type = "kafka"
    resends = False
    updates = True
    calls = False

    def __init__(
        self, name: str, options: KafkaOptions, settings: AlertSettings, kafka: dict[str, Any]
    ) -> None:
        self.name = name
        self.settings = settings
        self._options = options
        self._properties = {
            **kafka,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": round(settings.alert_deadline_seconds * MILLISECONDS),
        }
        self._producer: Producer | None = None

    async def deliver(self, finding: Finding) -> Delivery:
        """See AlertTarget."""
        started = time.monotonic_ns()
        try:
            key = finding["gatebook"]["dedup_key"].encode("utf-8", "replace")
            body = orjson.dumps(event_of(finding, self.settings, self._options.source))
        except UNUSABLE:
            return Delivery(outcome="failure", reason="unusable_finding")
        loop = asyncio.get_running_loop()
        reason = await loop.run_in_executor(None, self._send, key, body)
        return Delivery(
            outcome="failure" if reason else "success",
            attempts=1,
            reason=reason,
            duration_ns=time.monotonic_ns() - started,
        )

    def _send(self, key: bytes, body: bytes) -> str:
        """Why it failed; empty: the brokers have it."""
        told: list[KafkaError | None] = []
        if self._producer is None:
            self._producer = Producer(self._properties)
        try:
            self._producer.produce(
                self._options.topic,
                value=body,
                key=key,
                headers={"content-type": CONTENT_TYPE},
                on_delivery=lambda error, _message: told.append(error),
            )
        except (KafkaException, BufferError):
            return "unreachable"
        while not told:
            self._producer.poll(POLL_SECONDS)
        error = told[0]
        return "" if error is None else _REASONS.get(error.code(), "rejected")

    async def close(self) -> None:
        """Give the connections back; `deliver` opens new ones."""
        self._producer = None
