"""Sending to Kafka and knowing that it arrived: acks=all, idempotent, in order.

Faust only consumes (its confluent driver is a stub); everything that is produced goes through
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, Producer

from gatebook.schemas.codec import MAX_MESSAGE_BYTES
from gatebook.schemas.errors import Fatal

POLL_SECONDS = 0.05
OVERHEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Outgoing:
    """A message to send. `partition` -1 lets the key choose."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int = -1


class Deliverer:
    """Delivers batches. Not thread-safe: one batch at a time."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self._producer = Producer(
            {
                "compression.type": "lz4",
                "linger.ms": 5,
                **properties,
                # What the promise rests on is no setting.
                "acks": "all",
                "enable.idempotence": True,
                "message.max.bytes": MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
                "message.timeout.ms": 0,  # a broker outage is waited out, never a loss
            }
        )

    async def deliver(self, messages: Sequence[Outgoing]) -> None:
        """Returns when every message has a delivery report with acks=all; raises Fatal where one
        can never be delivered. Waits for as long as the broker is away."""
        if messages:
            await asyncio.get_running_loop().run_in_executor(None, self._deliver, messages)

    def _deliver(self, messages: Sequence[Outgoing]) -> None:
        errors: list[str] = []
        waiting = len(messages)

        def on_delivery(error: Any, _message: Any) -> None:
            nonlocal waiting
            waiting -= 1
            if error is not None:
                errors.append(error.name())

        for message in messages:
            self._produce(message, on_delivery)
        while waiting:
            self._producer.poll(POLL_SECONDS)
        if errors:
            raise Fatal(
                f"Kafka refused {len(errors)} messages: {errors[0]}", "see `gatebook doctor`"
            )

    def _produce(self, message: Outgoing, on_delivery: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    value=message.value,
                    key=message.key,
                    partition=message.partition,
                    on_delivery=on_delivery,
                )
            except BufferError:  # the local queue is full: serve reports and try again
                self._producer.poll(POLL_SECONDS)
            except KafkaException as error:
                raise Fatal(
                    f"Kafka refused a message: {error.args[0].name()}", "see `gatebook doctor`"
                ) from None
            else:
                return
