"""`gatebook doctor --producer`: one event's way from here to the index, hop by hop.

    spool -> kafka -> intake -> index

The probe goes the way of every event: the producer's settings of this environment, its spool, the
workers. It stays in the index, marked event.action=probe.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from gatebook.schemas.codec import decode
from gatebook.schemas.confluent import wire_from_env
from gatebook.schemas.documents import day_text
from gatebook.schemas.errors import Fatal, GatebookError
from gatebook.schemas.topics import ACCESS, DEAD_LETTER, EVENT, topic_name

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

    from gatebook.engines.check import Verdict
    from gatebook.engines.settings import EngineSettings
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

ACTION = "probe"
WAIT_SECONDS = 30.0
KAFKA_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.2
DEFAULT_ELASTICSEARCH = "http://127.0.0.1:19200"


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One hop: `seconds` since the event was emitted, None where it did not get there."""

    name: str
    verdict: Verdict
    detail: str
    next_step: str = ""
    seconds: float | None = None
    event_id: str = ""


def check_producer(wait_seconds: float = WAIT_SECONDS) -> list[Hop]:
    """Send a probe and follow it; ends at the hop where it stops. `wait_seconds` is for each hop.
    The probe has no content: that keys are missing for that of others is told before it.
    Raises nothing for what it finds."""
    from gatebook.producers.config import ProducerSettings

    hops = list(_missing_keys())
    try:
        for hop in _Probe(ProducerSettings.from_env(), wait_seconds).run():
            hops.append(hop)
    except Fatal as error:
        hops.append(_stopped("settings", str(error), error.next_step))
    return hops


def _missing_keys() -> Iterator[Hop]:
    """Content is dropped, or cannot be opened; the events themselves come through."""
    from gatebook.cli.sealing_checks import check_sealing

    for row in check_sealing():
        if row.verdict != "ok":
            yield Hop(
                name=row.name, verdict=row.verdict, detail=row.detail, next_step=row.next_step
            )


class _Probe:
    """The probe under way."""

    def __init__(self, settings: ProducerSettings, wait_seconds: float) -> None:
        self._settings = settings
        self._wait = wait_seconds
        self._begun = 0.0
        self._day = ""
        self._id = ""

    def run(self) -> Iterator[Hop]:
        """Hops, up to the first that fails."""
        for hop in self._hops():
            yield hop
            if hop.verdict == "fail":
                return

    def _hops(self) -> Iterator[Hop]:
        from gatebook.producers.recorder import Recorder

        with _listening() as said, _reading(self._settings) as reader:
            recorder = Recorder(self._settings)
            try:
                yield self._emit(recorder)
                yield self._publish(recorder, said)
            finally:
                recorder.close(0)  # what Kafka has not taken stays in the spool
            yield self._enriched(reader)
        yield self._indexed()

    def _emit(self, recorder: Recorder) -> Hop:
        from gatebook.producers.recorder import NotDurable

        event = _event(self._settings)
        self._day = day_text(event["timestamp"])
        self._begun = time.monotonic()
        if self._settings.delivery_mode == "best_effort":
            self._id = recorder.emit(event)
            return self._came("spool", "in memory: the delivery mode is best_effort")
        try:
            self._id = recorder.emit_durable(event, self._wait)
        except NotDurable as error:
            return _stopped("spool", *_SPOOL_TROUBLE.get(error.reason, _SPOOL_OTHER))
        return self._came("spool", f"fsynced below {self._settings.spool_path}")

    def _publish(self, recorder: Recorder, said: list[str]) -> Hop:
        complete = recorder.flush(self._wait).complete
        counters = recorder.counters()
        topic = topic_name(self._settings.namespace, ACCESS)
        if complete and not counters.dropped:
            return self._came("kafka", f"acknowledged by all replicas of {topic}")
        if counters.dropped:
            detail = f"dropped: {', '.join(sorted(counters.dropped))}"
            return _stopped("kafka", detail, "see GATEBOOK_FRAME_MAX_BYTES and the topic's limits")
        return _stopped("kafka", *_kafka_trouble(self._settings, said))

    def _enriched(self, reader: _Reader | None) -> Hop:
        """Seen on the event topic; where we may not read there, the index alone will tell."""
        if reader is None:
            return Hop(
                name="intake",
                verdict="warn",
                detail="cannot look: this user may not read the event topic",
                next_step="no harm: the index tells whether the event came through",
            )
        found = reader.wait_for(self._id, self._wait)
        if found == EVENT:
            return self._came("intake", "enriched and redacted, on the event topic")
        if found:
            step = f"gatebook search --kind deadletter {found.event_id}"
            return _stopped("intake", f"became a dead letter: {found.reason}", step)
        return _stopped(
            "intake",
            f"not on the event topic after {self._wait:g} s",
            "is the worker running? gatebook worker, or gatebook worker intake; its lag is in "
            "gatebook doctor",
        )

    def _indexed(self) -> Hop:
        from gatebook.engines import http

        url, login = _elasticsearch(self._settings)
        path = f"/{self._settings.namespace}-access-{self._day}/_doc/{self._id}"
        answer = _until(lambda: _found(http.get(url, path, login)), self._wait)
        if answer is True:
            return self._came("index", f"{path.split('/')[1]} at {_shown(url)}")
        last = http.get(url, path, login)
        if last is None:
            detail = f"nothing answers at {_shown(url)}"
            step = "set GATEBOOK_ELASTICSEARCH_URL to where the documents go, or gatebook up"
            return _stopped("index", detail, step)
        if last.status in (401, 403):
            detail = "Elasticsearch does not let us look"
            step = "set GATEBOOK_ELASTICSEARCH_API_KEY, or look there: gatebook show " + self._id
            return _stopped("index", detail, step)
        return _stopped(
            "index",
            f"not in the index after {self._wait:g} s",
            "is the worker running? gatebook worker, or gatebook worker index; gatebook doctor "
            "shows its lag and whether writes are blocked",
        )

    def _came(self, name: str, detail: str) -> Hop:
        seconds = time.monotonic() - self._begun
        text = f"{detail}, {seconds * 1000:.0f} ms after it was emitted"
        return Hop(name=name, verdict="ok", detail=text, seconds=seconds, event_id=self._id)


_SPOOL_TROUBLE = {
    "spool_full": (
        "the spool is full",
        "Kafka has been away for long: see below whether it answers; GATEBOOK_SPOOL_MAX_BYTES",
    ),
    "spool_unavailable": (
        "the spool cannot be written",
        "check GATEBOOK_HOME or GATEBOOK_SPOOL_DIR: rights, free space, read-only file system",
    ),
}
_SPOOL_OTHER = ("the event could not be made durable", "see the log lines above")


def _event(settings: ProducerSettings) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "timestamp": now,
        "event": {
            "kind": "event",
            "category": "api",
            "type": "access",
            "action": ACTION,
            "outcome": "success",
            "end": now,
            "duration": 0,
        },
        "gatebook": {"phase": "terminal", "capture": {"level": settings.capture_level}},
    }


def _stopped(name: str, detail: str, next_step: str) -> Hop:
    return Hop(name=name, verdict="fail", detail=detail, next_step=next_step)


def _until(condition: Callable[[], Any], wait_seconds: float) -> Any:
    deadline = time.monotonic() + wait_seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


# -- Kafka --------------------------------------------------------------------------------------


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the producer logs meanwhile: why the broker does not let it in, for example."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, listener = logging.getLogger("gatebook.producers"), Listener(logging.WARNING)
    log.addHandler(listener)
    try:
        yield said
    finally:
        log.removeHandler(listener)


def _kafka_trouble(settings: ProducerSettings, said: list[str]) -> tuple[str, str]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    topic = topic_name(settings.namespace, ACCESS)
    reason = f" ({said[-1]})" if said else ""
    try:
        admin = AdminClient(_client(settings))
        topics = admin.list_topics(timeout=KAFKA_TIMEOUT_SECONDS).topics
    except KafkaException:
        return (
            f"no broker lets us in at {settings.kafka_bootstrap}{reason}",
            "check GATEBOOK_KAFKA_BOOTSTRAP, the network, and the GATEBOOK_KAFKA_* variables for "
            "TLS and SASL; the event waits in the spool",
        )
    if topic not in topics:
        return f"there is no topic {topic}", "run gatebook setup, or check GATEBOOK_NAMESPACE"
    return (
        f"{topic} does not acknowledge{reason}",
        "may this user write to the topic? Are enough replicas in sync? The event waits in the "
        "spool",
    )


def _client(settings: ProducerSettings) -> dict[str, Any]:
    return {**settings.kafka_properties, "bootstrap.servers": settings.kafka_bootstrap,
            "log_level": 2}  # fmt: skip


@contextmanager
def _reading(settings: ProducerSettings) -> Iterator[_Reader | None]:
    """A reader of what comes after now; None where the broker does not let us read."""
    from confluent_kafka import Consumer, KafkaException

    consumer = Consumer(
        {
            **_client(settings),
            "group.id": f"{settings.namespace}-probe",
            "enable.auto.commit": False,
        }
    )
    try:
        try:
            reader = _Reader(consumer, settings.namespace)
        except (KafkaException, KeyError):
            reader = None
        yield reader
    finally:
        consumer.close()


class _DeadLetter(msgspec.Struct, frozen=True):
    """What became of the probe instead."""

    event_id: str
    reason: str


class _Reader:
    """The event topic and the dead letters, from their ends at the time it is made."""

    def __init__(self, consumer: Consumer, namespace: str) -> None:
        self._consumer = consumer
        self._keys = {topic_name(namespace, key): key for key in (EVENT, DEAD_LETTER)}
        self._wire = wire_from_env()
        consumer.assign([part for topic in self._keys for part in self._ends(topic)])

    def _ends(self, topic: str) -> list[TopicPartition]:
        from confluent_kafka import TopicPartition

        timeout = KAFKA_TIMEOUT_SECONDS
        partitions = self._consumer.list_topics(topic, timeout=timeout).topics[topic].partitions
        return [
            TopicPartition(
                topic,
                number,
                self._consumer.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=timeout
                )[1],
            )
            for number in partitions
        ]

    def wait_for(self, event_id: str, wait_seconds: float) -> Any:
        """EVENT where the event is on the event topic, a _DeadLetter, or None after the time."""
        deadline = time.monotonic() + wait_seconds
        while time.monotonic() < deadline:
            message = self._consumer.poll(POLL_SECONDS)
            if message is None or message.error() is not None:
                continue
            key = self._keys[message.topic() or ""]
            found = self._judge(key, message.value() or b"", event_id)
            if found:
                return found
        return None

    def _judge(self, key: str, value: bytes, event_id: str) -> Any:
        if event_id.encode() not in value:  # an id stands in a message as it is
            return None
        if key == EVENT:
            return EVENT
        try:
            letter = decode("dead_letter.v2", value, self._wire)
        except GatebookError:
            return _DeadLetter(event_id, "unreadable")
        return _DeadLetter(event_id, str(letter["event"]["reason"]))


# -- Elasticsearch ------------------------------------------------------------------------------


def _elasticsearch(settings: ProducerSettings) -> tuple[str, EngineSettings]:
    """Where the documents go, as the environment says or the engines on this machine."""
    from gatebook.engines.settings import EngineSettings

    url = os.environ.get("GATEBOOK_ELASTICSEARCH_URL") or _own_elasticsearch()
    both: Mapping[str, str] = {
        **os.environ,
        "GATEBOOK_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "GATEBOOK_ELASTICSEARCH_URL": url,
    }
    return url, EngineSettings.from_environment(both)


def _own_elasticsearch() -> str:
    """Of the engines that `gatebook up` started here."""
    from gatebook.engines import selection
    from gatebook.engines.settings import EngineSettings

    try:
        found = selection.status(EngineSettings.from_environment())
    except GatebookError:
        return DEFAULT_ELASTICSEARCH
    addresses = [one.address for one in found.engines if one.name == "elasticsearch"]
    return addresses[0] if addresses and addresses[0] else DEFAULT_ELASTICSEARCH


def _found(answer: Any) -> bool:
    return answer is not None and answer.status == 200 and bool((answer.body or {}).get("found"))


def _shown(url: str) -> str:
    """Without a user and password that somebody wrote into it."""
    return ",".join(
        f"{one.partition('://')[0]}://{one.partition('://')[2].rpartition('@')[2]}"
        for one in url.split(",")
    )
