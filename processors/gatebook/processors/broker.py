"""Waiting for Kafka before a worker begins: one line says what is wrong and what to do, and is said
again once in a while. Faust would end the process instead, with a stack trace, again and again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from gatebook.processors.config import kafka_properties
from gatebook.schemas.kafka_trouble import Trouble, explain

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 3.0
TELL_AGAIN_SECONDS = 60.0


class _Admin(Protocol):
    def list_topics(self, topic: str, *, timeout: float) -> Any: ...

    def poll(self, timeout: float) -> Any: ...


class Broker:
    """Asks about topics; waits for as long as the broker is away. Blocks."""

    def __init__(
        self,
        bootstrap: str,
        admin: Callable[[dict[str, Any]], _Admin] = AdminClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._properties = kafka_properties(bootstrap)
        self._errors: list[KafkaError] = []
        self._admin = admin({**self._properties, "error_cb": self._errors.append})
        self._clock = clock
        self._told_at = -math.inf

    def topic(self, name: str) -> Any:
        """What the broker says of a topic, which may be that there is none of this name."""
        while True:
            try:
                found = self._admin.list_topics(name, timeout=ATTEMPT_SECONDS).topics[name]
            except KafkaException as error:
                self._tell(error.args[0])
            else:
                if self._told_at > -math.inf:
                    log.info("Kafka answers")
                return found

    def _tell(self, error: KafkaError) -> None:
        self._admin.poll(0)  # brings the errors that say why
        trouble = self._trouble(error)
        self._errors.clear()
        if self._clock() - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = self._clock()
            log.error("waiting for Kafka: %s; %s", trouble.reason, trouble.next_step)

    def _trouble(self, error: KafkaError) -> Trouble:
        # That all brokers are down is no reason; the error beside it is.
        reasons = [e for e in self._errors if e.code() != KafkaError._ALL_BROKERS_DOWN]
        why = reasons[-1] if reasons else error
        return explain(why.name(), why.str(), self._properties)
