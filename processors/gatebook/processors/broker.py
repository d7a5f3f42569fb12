"""Waiting for Kafka: one line says what is wrong and what to do, and is said again once in a while.
Where a worker begins without a broker, Faust would end it with a stack trace, again and again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from gatebook.processors.config import kafka_properties
from gatebook.schemas.kafka_trouble import explain

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 3.0
TELL_AGAIN_SECONDS = 60.0
AWAY = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})


class _Admin(Protocol):
    def list_topics(self, topic: str, *, timeout: float) -> Any: ...

    def poll(self, timeout: float) -> Any: ...


class Complaint:
    """Says that Kafka is away and what to do, once in a while."""

    def __init__(
        self, properties: dict[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._properties = properties
        self._clock = clock
        self._told_at = -math.inf

    @property
    def made(self) -> bool:
        """Whether it was said at all."""
        return self._told_at > -math.inf

    def make(self, error: KafkaError) -> None:
        """Say it, unless it was said just now."""
        if self._clock() - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = self._clock()
            trouble = explain(error.name(), error.str(), self._properties)
            log.error("waiting for Kafka: %s; %s", trouble.reason, trouble.next_step)


class Broker:
    """Asks about topics; waits for as long as the broker is away. Blocks."""

    def __init__(
        self,
        bootstrap: str,
        admin: Callable[[dict[str, Any]], _Admin] = AdminClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        properties = kafka_properties(bootstrap)
        self._errors: list[KafkaError] = []
        self._admin = admin({**properties, "error_cb": self._errors.append})
        self._complaint = Complaint(properties, clock)

    def topic(self, name: str) -> Any:
        """What the broker says of a topic, which may be that there is none of this name."""
        while True:
            try:
                found = self._admin.list_topics(name, timeout=ATTEMPT_SECONDS).topics[name]
            except KafkaException as error:
                self._complaint.make(self._why(error.args[0]))
            else:
                if self._complaint.made:
                    log.info("Kafka answers")
                return found

    def _why(self, error: KafkaError) -> KafkaError:
        """The error behind one of a request that was not answered."""
        self._admin.poll(0)  # brings the errors that say why
        # That all brokers are down is no reason; the error beside it is.
        reasons = [e for e in self._errors if e.code() != KafkaError._ALL_BROKERS_DOWN]
        self._errors.clear()
        return reasons[-1] if reasons else error
