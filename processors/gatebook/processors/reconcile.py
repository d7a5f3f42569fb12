"""What an intent without an end becomes: an `incomplete` event under the id of the missing one.

Derived from the index alone, so there is no state to lose. A run does this, in this order:

1. note how far the raw topic goes, and wait until intake has committed that far; the same for the
   event topic and index. From then on every terminal event that was in Kafka is in the index.
2. take the intents that came in longer ago than the deadline, and look up the ids they announce.
3. write an `incomplete` event for each id that is not there, through the event topic like any
   other event. It depends on the intent alone: a run that is repeated, or two at once, write the
   same document, and the index takes it once.

A terminal event that comes still later (its request outlived the deadline, or stood in a spool)
meets the incomplete one under its id: it becomes a dead letter, id_conflict. The other way round
the incomplete one does. So there is one document an id, and every contradiction can be seen.

A later epoch of the same producer does not end an earlier one: the processes of a server share
their producer's id. Only time tells.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from gatebook.processors import metrics, render
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.detect.access import parse_time_ns
from gatebook.processors.intake import RenderedDocument, partition_of
from gatebook.processors.search import service
from gatebook.processors.sinks.connection import Connection, Unreachable
from gatebook.processors.subjects.layers import SEARCHED, without
from gatebook.schemas.codec import encode
from gatebook.schemas.documents import Document, timestamp_text
from gatebook.schemas.errors import GatebookError, RegistryUnavailable
from gatebook.schemas.intents import INCOMPLETE, INTENT, TERMINAL, terminal_id
from gatebook.schemas.topics import ACCESS, EVENT, topic_name
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)

KAFKA_TIMEOUT_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.5
# Times of intake are those of its machines' clocks.
CLOCK_MARGIN_NS = 300 * 10**9
SOURCE = {"source_topic": "", "source_partition": 0, "source_offset": 0}
# Written by intake or index anew, or true of the intent alone.
_OF_THE_INTENT_EVENT = ("hash", "ingested", "end", "duration")
_OF_THE_INTENT_OURS = ("sequence",)


# -- pure ---------------------------------------------------------------------------------------


def incomplete_document(intent: Mapping[str, Any]) -> Document:
    """The event that stands for the one an intent announced: who wanted what, and an unknown end.

    Without a sequence number: the producer never gave it one. Without searched text, which only
    the index may hold: what is sealed goes along, and index opens it again.
    """
    intent = without(intent, tuple(SEARCHED.values()))
    event = {k: v for k, v in intent["event"].items() if k not in _OF_THE_INTENT_EVENT}
    ours = {k: v for k, v in intent["gatebook"].items() if k not in _OF_THE_INTENT_OURS}
    event |= {"id": terminal_id(event["id"]), "outcome": "unknown", "reason": INCOMPLETE}
    return {**intent, "event": event, "gatebook": {**ours, "phase": TERMINAL}}


def rendered(document: Document, ingested_at_ns: int) -> RenderedDocument:
    """The document as intake would pass it on."""
    digest, body = render.render(document, ingested_at_ns)
    return RenderedDocument(
        id=document["event"]["id"],
        timestamp=parse_time_ns(document["@timestamp"]),
        principal=document["gatebook"]["principal"],
        hash=digest,
        body=body,
    )


def without_end(
    intents: Iterable[Mapping[str, Any]], present: frozenset[str]
) -> list[Mapping[str, Any]]:
    """Intents whose announced id is not present. What only looks like an intent is left out."""
    found = []
    for intent in intents:
        announced = terminal_id(intent.get("event", {}).get("id", ""))
        if announced and announced not in present and intent["gatebook"].get("phase") == INTENT:
            found.append(intent)
    return found


@dataclass(frozen=True)
class Window:
    """Intents that came in from `since_ns` to before `until_ns` are looked at."""

    since_ns: int
    until_ns: int


def next_window(now_ns: int, settings: WorkerSettings, done_until_ns: int | None) -> Window:
    """From where the last run ended, or the whole look-back in a process's first, up to the
    deadline before now. What was in Kafka before a run began was in the index when it looked, so
    nothing appears later behind its end but by a clock that is off."""
    until = now_ns - int(settings.reconcile_after_seconds * 10**9)
    earliest = until - int(settings.reconcile_lookback_seconds * 10**9)
    since = earliest if done_until_ns is None else done_until_ns - CLOCK_MARGIN_NS
    return Window(max(earliest, since), until)


# -- one run ------------------------------------------------------------------------------------


class Behind(GatebookError):
    """The workers have not worked off the topics, so nothing can be judged yet."""


@dataclass
class Found:
    """What a run saw: intents that are due, and those among them without an end."""

    intents: int = 0
    incomplete: int = 0


class Barrier:
    """Waits until a role has worked off what is in a topic now."""

    def __init__(self, settings: WorkerSettings, timeout_seconds: float) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self.stopping = threading.Event()

    def passed(self, role: str, topic_key: str) -> None:
        """Returns once the role has committed everything the topic held when this was called.
        Raises Behind at the time-out, KafkaException."""
        topic = topic_name(self._settings.namespace, topic_key)
        client = Consumer(
            {
                **kafka_properties(self._settings.kafka_bootstrap),
                "group.id": f"{self._settings.namespace}-{role}",
                "enable.auto.commit": False,
            }
        )
        try:
            self._wait(client, topic, role)
        finally:
            client.close()

    def _wait(self, client: Consumer, topic: str, role: str) -> None:
        known = client.list_topics(topic, timeout=KAFKA_TIMEOUT_SECONDS).topics[topic].partitions
        marks = {number: _watermarks(client, topic, number) for number in known}
        deadline = time.monotonic() + self._timeout_seconds
        while not _reached(client, topic, marks):
            if time.monotonic() >= deadline or self.stopping.wait(LOOK_AGAIN_SECONDS):
                raise Behind(f"{role} has not worked off {topic}")


def _watermarks(client: Consumer, topic: str, partition: int) -> tuple[int, int]:
    found = client.get_watermark_offsets(
        TopicPartition(topic, partition), timeout=KAFKA_TIMEOUT_SECONDS
    )
    return found[0], found[1]


def _reached(client: Consumer, topic: str, marks: Mapping[int, tuple[int, int]]) -> bool:
    parts = [TopicPartition(topic, number) for number in marks]
    for part in client.committed(parts, timeout=KAFKA_TIMEOUT_SECONDS):
        low, high = marks[part.partition]
        if high > low and part.offset < high:
            return False
    return True


class Reconciler:
    """Runs again and again in one process, or once. Belongs to one event loop."""

    def __init__(
        self,
        settings: WorkerSettings,
        connection: Connection,
        partitions: int,
        wire: WireFormat,
        barrier_timeout_seconds: float = 60.0,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._partitions = partitions
        self._wire = wire
        self._barrier = Barrier(settings, barrier_timeout_seconds)
        self._deliverer = Deliverer(kafka_properties(settings.kafka_bootstrap))
        self._done_until_ns: int | None = None

    async def run_once(self, say: Callable[[str], None] = log.debug) -> Found:
        """One run; `say` is told how far it is. Its incomplete events are in Kafka when it
        returns, not yet in the index.
        Raises Behind, KafkaException, Unreachable, SearchFailed, RegistryUnavailable."""
        window = next_window(time.time_ns(), self._settings, self._done_until_ns)
        for role, key in (("intake", ACCESS), ("index", EVENT)):
            say(f"waiting until {role} has worked off {topic_name(self._settings.namespace, key)}")
            await asyncio.to_thread(self._barrier.passed, role, key)
        await service.refresh(self._connection, self._settings.namespace)
        found = Found()
        first, last = timestamp_text(window.since_ns), timestamp_text(window.until_ns)
        say(f"looking at intents that came in from {first[:19]}Z to {last[:19]}Z")
        query = (
            f'gatebook.phase:{INTENT} and event.ingested >= "{first}" and event.ingested < "{last}"'
        )
        pages = service.search(
            self._connection,
            self._settings.namespace,
            query,
            size=None,
            sort="event.ingested:asc",
        )
        async for page in pages:
            await self._settle([hit.source for hit in page.hits], found)
        # If we die before this, the next process looks at everything again, and writes what the
        # index has already.
        self._done_until_ns = window.until_ns
        return found

    def stop(self) -> None:
        """Give up waiting; from any thread. The run under way raises Behind."""
        self._barrier.stopping.set()

    async def _settle(self, intents: Sequence[Mapping[str, Any]], found: Found) -> None:
        announced = [terminal_id(intent["event"]["id"]) for intent in intents]
        present = await service.existing(self._connection, self._settings.namespace, announced)
        missing = without_end(intents, present)
        now_ns = time.time_ns()
        documents = [rendered(incomplete_document(intent), now_ns) for intent in missing]
        await self._deliverer.deliver([self._outgoing(document) for document in documents])
        metrics.INCOMPLETE.inc(len(documents))
        found.intents += len(intents)
        found.incomplete += len(documents)

    def _outgoing(self, document: RenderedDocument) -> Outgoing:
        record = {**SOURCE, "documents": [vars(document)]}
        body = encode("document_frame.v1", record, self._wire)
        number = partition_of(document.principal, self._partitions)
        return Outgoing(topic_name(self._settings.namespace, EVENT), body, None, number)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


# -- again and again ----------------------------------------------------------------------------

PUT_OFF = (Behind, KafkaException, Unreachable, service.SearchFailed, RegistryUnavailable)


async def run_until(stopping: asyncio.Event, reconciler: Reconciler, seconds: float) -> None:
    """A run every so often, until told to stop. A run that cannot be made is put off."""
    while not stopping.is_set():
        try:
            found = await reconciler.run_once()
        except PUT_OFF as error:
            log.warning("reconciling is put off: %s", type(error).__name__)
        else:
            if found.incomplete:
                log.warning("%d of %d intents have no end", found.incomplete, found.intents)
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
            continue
    await reconciler.close()
