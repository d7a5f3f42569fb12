"""detect: documents in, findings out; state in compacted topics beside what it is made from.

Rules that count by principal run where the event topic is read: it is partitioned by principal. For
all others, what they look at is passed on to the observation topic, partitioned by their key, which
the same role reads. The state of partition p of a topic lives in partition p of its state topic.

Order of delivery: findings and observations, then the state in one transaction, then the offset. If
we die between them, the messages are read again: a finding and an observation have the same id the
second time, and the state says which messages are in it, so nothing is counted twice. A worker
that lost a partition and does not know it yet can still send findings, which are those its
successor makes of the same messages; its state is refused by the broker, and it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from confluent_kafka import KafkaException

from gatebook.processors import metrics
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.detect.base import Clock, Detector
from gatebook.processors.detect.engine import DetectionEngine, StateEntry
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.limits import Counts, Limits
from gatebook.processors.detect.observations import Outbox, Router, Source, unpack_message
from gatebook.processors.detect.registry import all_detectors, load_limits, load_overrides
from gatebook.processors.detect.scopes import LOCAL, SCOPES
from gatebook.processors.fenced import EndOffsets, FencedWriter, read_to_end
from gatebook.processors.stages.base import Held, Incoming
from gatebook.schemas.codec import SINGLE_OBJECT, decode, encode
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.topics import (
    ACCESS,
    DETECTOR_STATE,
    EVENT,
    FINDING,
    OBSERVATION,
    OBSERVATION_STATE,
    topic_name,
)
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)
Place = tuple[str, int]
ELSEWHERE = frozenset(SCOPES) - {LOCAL}


@dataclass
class _Partition:
    """A partition at work: its engine, the writer of its state, and what was told of its counts.
    `progress_ns` is the time up to which nothing more can come, `event_ns` the greatest event time
    that was seen, `seen_ns` the progress at the last event."""

    engine: DetectionEngine
    writer: FencedWriter
    progress_ns: int = -1
    event_ns: int = -1
    seen_ns: int = -1
    told: Counts = field(default_factory=Counts)


class DetectStage:
    """One engine per partition, loaded from its state when the partition is first needed."""

    def __init__(self, settings: WorkerSettings, wire: WireFormat = SINGLE_OBJECT) -> None:
        self._settings = settings
        self._wire = wire
        self._events = topic_name(settings.namespace, EVENT)
        self._observations = topic_name(settings.namespace, OBSERVATION)
        self.topics = (self._events, self._observations)
        self._finding_topic = topic_name(settings.namespace, FINDING)
        overrides = load_overrides(settings.detectors_file, settings.rules_path)
        self._limits: Limits = load_limits(overrides)
        self._detectors: list[Detector] = all_detectors(overrides, settings.rules_path)
        self._working: dict[Place, _Partition] = {}
        self._batch_under_way = asyncio.Lock()
        self._timed_at = 0.0

    async def start(self) -> None:
        properties = kafka_properties(self._settings.kafka_bootstrap)
        self._deliverer = Deliverer(properties)
        self._ends = EndOffsets(properties, f"{self._settings.namespace}-detect-ends")
        await asyncio.get_running_loop().run_in_executor(None, self._count_partitions)

    def _count_partitions(self) -> None:
        """How many partitions there are of what is gathered, and where it is gathered."""
        gathered = self._ends.partitions(self._observations)
        access = self._ends.partitions(topic_name(self._settings.namespace, ACCESS))
        self._awaited: dict[Clock, int] = {
            "event": self._ends.partitions(self._events),
            "frame": access,
        }
        self._router = Router(self._detectors, gathered)
        self._outbox = Outbox(gathered)

    async def process(self, batch: Sequence[Incoming]) -> None:
        async with self._batch_under_way:
            places = {(message.topic, message.partition) for message in batch}
            try:
                findings: list[Finding] = []
                for message in batch:
                    findings += await self._take(message)
                    await asyncio.sleep(0)  # let heartbeats through between messages
                await self._deliver(findings, sorted(places))
            except BaseException:
                self._drop(places)
                raise

    async def _take(self, message: Incoming) -> list[Finding]:
        own = await self._partition((message.topic, message.partition))
        if message.topic == self._observations:
            return self._gather(own, message)
        accesses = own.engine.read(self._documents(message))
        written_ns = message.timestamp_ms * 1_000_000
        own.progress_ns = own.seen_ns = max(own.progress_ns, written_ns)
        if message.offset > own.engine.checkpoint:  # else its observations were delivered, too
            for access in accesses:
                if access is not None:
                    own.event_ns = max(own.event_ns, access.timestamp_ns)
                    self._outbox.add(self._router.route(access))
        return own.engine.take(message.offset, accesses, written_ns)

    def _gather(self, own: _Partition, message: Incoming) -> list[Finding]:
        try:
            told = unpack_message(message.value)
        except msgspec.MsgspecError:
            log.warning("a message of the observation topic cannot be read")
            return []
        return own.engine.observe(message.offset, told.observations, told.sources)

    def _documents(self, message: Incoming) -> list[dict[str, Any]]:
        try:
            frame = decode("document_frame.v1", message.value, self._wire)
            return [orjson.loads(d["body"]) for d in frame["documents"]]
        except (RecordRejected, orjson.JSONDecodeError):
            # index, which reads the same message, writes the dead letter
            log.warning("a message of the event topic cannot be read")
            return []

    async def _deliver(
        self, findings: Sequence[Finding], places: Sequence[Place], everywhere: bool = False
    ) -> None:
        outgoing = [self._finding(finding) for finding in findings]
        await self._deliverer.deliver(outgoing + self._passed_on(places, everywhere))
        # If we die here, the messages come again and lead to the same findings and observations.
        await asyncio.gather(*(self._store(self._working[place]) for place in places))

    def _passed_on(self, places: Sequence[Place], everywhere: bool) -> list[Outgoing]:
        events = [number for topic, number in places if topic == self._events]
        sources = [_source(number, self._working[self._events, number]) for number in events]
        if not sources:
            return []
        messages = self._outbox.take(sources, everywhere)
        return [Outgoing(self._observations, body, None, number) for number, body in messages]

    async def _store(self, own: _Partition) -> None:
        entries = own.engine.drain_state()
        if entries:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, own.writer.write, entries)

    def _finding(self, finding: Finding) -> Outgoing:
        metrics.FINDINGS.labels(finding["rule"]["id"]).inc()
        key = finding["gatebook"]["dedup_key"].encode("utf-8", "surrogatepass")
        return Outgoing(self._finding_topic, encode("finding.v2", finding, self._wire), key)

    async def _partition(self, place: Place) -> _Partition:
        own = self._working.get(place)
        if own is None:
            began = time.monotonic()
            loop = asyncio.get_running_loop()
            own = await loop.run_in_executor(None, self._take_over, place)
            self._working[place] = own
            metrics.DETECT_RECOVERY_SECONDS.observe(time.monotonic() - began)
        return own

    def _take_over(self, place: Place) -> _Partition:
        """Shut out whoever wrote the state before, then read it: nothing can be added to it."""
        topic, number = place
        state_key = DETECTOR_STATE if topic == self._events else OBSERVATION_STATE
        state_topic = topic_name(self._settings.namespace, state_key)
        properties = kafka_properties(self._settings.kafka_bootstrap)
        writer = FencedWriter(properties, f"{state_topic}-{number}", state_topic, number)
        writer.open()
        engine = self._engine(topic)
        entries: list[StateEntry] = read_to_end(properties, state_topic, number)
        engine.load(entries, self._ends.end(topic, number))
        return _Partition(engine, writer, engine.progress_ns())

    def _engine(self, topic: str) -> DetectionEngine:
        if topic == self._events:
            return DetectionEngine(self._detectors, self._limits, {LOCAL})
        return DetectionEngine(self._detectors, self._limits, ELSEWHERE, self._awaited)

    async def tick(self, held: Sequence[Held]) -> None:
        """Partitions in which nothing more is to read go on in time."""
        self._tell_metrics()
        if time.monotonic() - self._timed_at < self._settings.detect_idle_seconds:
            return
        self._timed_at = time.monotonic()
        async with self._batch_under_way:
            places: list[Place] = []
            try:
                findings: list[Finding] = []
                for one in held:
                    if one.topic == self._events:
                        places.append((one.topic, one.partition))
                        findings += await self._pass_time(one)
                if places:
                    await self._deliver(findings, places, everywhere=True)
            except BaseException:
                self._drop(places)
                raise

    async def _pass_time(self, held: Held) -> list[Finding]:
        """Advance a partition that was read to its end. The clock is read before the end is asked
        for: whatever comes after that was written later, even if this process stands still in
        between for as long as you like."""
        own = await self._partition((held.topic, held.partition))
        now_ns = time.time_ns() - round(self._settings.clock_margin_seconds * 1e9)
        loop = asyncio.get_running_loop()
        try:
            is_read = await loop.run_in_executor(
                None, self._ends.is_read, held.topic, held.partition, held.next_offset
            )
        except KafkaException as error:  # the broker is away: time waits with it
            log.warning("cannot see the end of a partition: %s", error.args[0].name())
            return []
        if not is_read:
            return []
        own.progress_ns = max(own.progress_ns, now_ns)
        return own.engine.advance(now_ns)

    def _tell_metrics(self) -> None:
        keys: dict[str, int] = {}
        for own in self._working.values():
            for scope, number in own.engine.keys.items():
                keys[scope] = keys.get(scope, 0) + number
            now = msgspec.structs.replace(own.engine.counts)
            for name in Counts.__struct_fields__:
                metrics.DETECT_COUNTS.labels(name).inc(getattr(now, name) - getattr(own.told, name))
            own.told = now
            for rule, failure in own.engine.take_failures().items():
                log.error("rule %s failed at an access (%s); the others go on", rule, failure)
        for scope in SCOPES:
            metrics.DETECT_KEYS.labels(scope).set(keys.get(scope, 0))
        metrics.DETECT_STATE_BYTES.set(sum(w.engine.state_bytes for w in self._working.values()))
        times = [w.progress_ns for p, w in self._working.items() if p[0] == self._events]
        if times and min(times) > 0:
            metrics.DETECT_BEHIND_SECONDS.set(time.time() - min(times) / 1e9)

    def _drop(self, places: Sequence[Place] | set[Place]) -> None:
        """The engines have counted what was not delivered; a second try would pass it over."""
        self._outbox.take(())
        for place in places:
            self._working.pop(place, None)

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        # Wait for the batch under way: the next owner should find all of it.
        async with self._batch_under_way:
            for place in partitions:
                self._working.pop(place, None)

    async def stop(self) -> None:
        """Close the client that asks for offsets; deliver() leaves nothing behind."""
        self._ends.close()


def _source(number: int, own: _Partition) -> Source:
    return Source("event", number, own.progress_ns, own.event_ns, own.seen_ns)
