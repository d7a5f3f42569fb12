"""Publishers: hand one message at a time to the broker and say what became of it.

One frame is in flight at a time. That keeps the order whatever fails, and makes frames adapt by
themselves: while one is under way the next one gathers.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from gatebook.producers.config import ProducerSettings
from gatebook.schemas.errors import Fatal, GatebookError
from gatebook.schemas.kafka_trouble import explain
from gatebook.schemas.topics import ACCESS, COUNT_HEADER, topic_name

log = logging.getLogger("gatebook.producers")

LIBRDKAFKA_DEFAULT_MESSAGE_BYTES = 1_000_000
_POLL_SECONDS = 0.1
_TELL_AGAIN_SECONDS = 60.0
# They say that the client failed; the error before them says why.
_SAY_NOTHING = frozenset({"_FATAL", "_PURGE_QUEUE", "_PURGE_INFLIGHT"})


class MessageRefused(GatebookError):
    """The broker or its client will never take this message: too large, or refused as invalid."""


class PublishFailed(GatebookError):
    """Not acknowledged. The same message may be submitted again; the broker may have it already."""


class Publisher(Protocol):
    """At most one message is undecided. Used by one thread."""

    def submit(self, message: bytes, key: bytes, count: int = 1) -> None:
        """Start sending. Says nothing about arrival. `count`: events in the message, told in a
        header for whoever cannot read the message itself. Raises MessageRefused, PublishFailed."""

    def wait(self, timeout_seconds: float) -> bool:
        """True once the submitted message is acknowledged by all in-sync replicas; False while it
        is undecided. Raises MessageRefused, PublishFailed."""

    def close(self, timeout_seconds: float) -> None:
        """End. An undecided message may or may not arrive. A second call is harmless."""

    def leave_after_fork(self) -> None:
        """In a child process: forget what belongs to the parent without ending it there."""


class MemoryPublisher:
    """Keeps messages in a list, for tests of what stands before it. `down` leaves messages
    undecided, as a broker that does not answer; `max_bytes` refuses larger ones."""

    def __init__(self, max_bytes: int = LIBRDKAFKA_DEFAULT_MESSAGE_BYTES) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.down = False
        self.max_bytes = max_bytes
        self._undecided: tuple[bytes, bytes] | None = None

    def submit(self, message: bytes, key: bytes, count: int = 1) -> None:
        if len(message) > self.max_bytes:
            raise MessageRefused(f"{len(message)} bytes")
        self._undecided = key, message

    def wait(self, timeout_seconds: float) -> bool:
        if self.down:
            time.sleep(min(timeout_seconds, _POLL_SECONDS))
            return False
        assert self._undecided is not None, "nothing was submitted"
        self.messages.append(self._undecided)
        self._undecided = None
        return True

    def close(self, timeout_seconds: float) -> None:
        """Nothing to end."""

    def leave_after_fork(self) -> None:
        """Nothing is shared."""


def kafka_configuration(settings: ProducerSettings) -> dict[str, str | int | bool]:
    """librdkafka properties: ours, those the operator passes through, and those that are fixed."""
    return {
        "client.id": settings.effective_producer_id,
        "compression.type": "lz4",
        "linger.ms": 0,  # a frame is a batch already
        "message.max.bytes": max(LIBRDKAFKA_DEFAULT_MESSAGE_BYTES, settings.frame_max_bytes),
        "reconnect.backoff.max.ms": 2000,
        "log_level": 2,  # what librdkafka would print at each reconnect comes through error_cb
        **settings.kafka_properties,
        "bootstrap.servers": settings.kafka_bootstrap,
        "acks": "all",
        "enable.idempotence": True,
    }


class KafkaPublisher:
    """confluent-kafka, idempotent, acks=all. The client is made on the first message, in the
    process and thread that send: it does not survive a fork."""

    def __init__(self, settings: ProducerSettings) -> None:
        self._topic = topic_name(settings.namespace, ACCESS)
        self._configuration = kafka_configuration(settings)
        self._producer: Any = None
        self._outcome: KafkaError | bool | None = None
        self._attempt = 0
        self._told_at: dict[str, float] = {}

    def check(self) -> None:
        """Refuse properties that librdkafka does not take, before there is anything to send. Does
        not say that a broker answers. Leaves no client behind. Raises Fatal."""
        self._make()

    def submit(self, message: bytes, key: bytes, count: int = 1) -> None:
        if self._producer is None:
            self._producer = self._make()
        self._outcome = None
        self._attempt += 1
        try:
            self._producer.produce(
                self._topic,
                value=message,
                key=key,
                headers={COUNT_HEADER: str(count)},
                on_delivery=self._deliver(self._attempt),
            )
        except KafkaException as error:
            self._raise(error.args[0])
        except BufferError:
            raise PublishFailed("the client's queue is full") from None

    def wait(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self._outcome is None:
            left = deadline - time.monotonic()
            try:
                self._producer.poll(max(0.0, min(left, _POLL_SECONDS)))
            except KafkaException as error:  # a fatal one, for example at the request of an id
                self._raise(error.args[0])
            if left <= 0:
                break
        if isinstance(self._outcome, KafkaError):
            self._raise(self._outcome)
        return self._outcome is True

    def close(self, timeout_seconds: float) -> None:
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        with suppress(KafkaException):  # of a client that is broken: there is nothing to wait for
            producer.flush(timeout_seconds)
        producer.purge()  # what is undecided stays in the spool

    def leave_after_fork(self) -> None:
        """In a child process: forget the parent's client without destroying it.

        Its threads do not exist here, so what its destructor would do is undefined; one more
        reference keeps it from running, at the interpreter's end too.
        """
        if self._producer is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
            self._producer = None

    def _make(self) -> Any:
        try:
            return Producer({**self._configuration, "error_cb": self._tell})
        except KafkaException as error:
            raise Fatal(
                f"Kafka refuses the configuration: {error.args[0].str()}",
                "check the GATEBOOK_KAFKA_* variables",
            ) from None

    def _deliver(self, attempt: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if attempt == self._attempt:  # else: of a message that was given up
                self._outcome = error or True

        return delivered

    def _raise(self, error: KafkaError) -> None:
        if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD):
            raise MessageRefused(error.name())
        self._tell(error)
        if error.fatal() or error.code() == KafkaError._FATAL:
            # The idempotent client is broken for good, for example after its topic was deleted and
            # made again, or by a missing right. A new one starts afresh; the frame is sent again
            # from the spool.
            log.warning("the Kafka client is replaced after a fatal error: %s", error.name())
            self._producer.purge()
            self._producer = None
        raise PublishFailed(error.name())

    def _tell(self, error: KafkaError) -> None:
        """Say each kind of error once a minute: librdkafka repeats them at every reconnect."""
        code = error.name()
        if code in _SAY_NOTHING or not self._due(code):
            return
        if code == "_ALL_BROKERS_DOWN" and len(self._told_at) > 1:
            return  # it was said why
        trouble = explain(code, error.str(), self._configuration)
        if self._due(trouble.reason):
            log.warning("kafka: %s; %s", trouble.reason, trouble.next_step)

    def _due(self, subject: str) -> bool:
        now = time.monotonic()
        if now - self._told_at.get(subject, float("-inf")) < _TELL_AGAIN_SECONDS:
            return False
        self._told_at[subject] = now
        return True
