"""detect: documents in, findings out; state in a compacted topic beside the events.

The state of partition p of the event topic lives in partition p of the state topic. Order of
delivery: findings, then state, then the offset. If we die between them, the messages are read
again: a finding has the same id the second time, and an entry remembers the last offset it has
seen, so nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from gatebook.processors import metrics
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.detect.engine import DetectionEngine, StateEntry
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.registry import all_detectors, load_limits, load_overrides
from gatebook.processors.stages.base import Held, Incoming
from gatebook.schemas.codec import SINGLE_OBJECT, decode, encode
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.topics import DETECTOR_STATE, EVENT, FINDING, topic_name
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)
LOAD_POLL_SECONDS = 0.5
REQUEST_TIMEOUT_SECONDS = 30.0


class DetectStage:
    """One engine per partition, loaded from the state topic when its first message comes."""

    def __init__(self, settings: WorkerSettings, wire: WireFormat = SINGLE_OBJECT) -> None:
        self._settings = settings
        self._wire = wire
        self.topics = (topic_name(settings.namespace, EVENT),)
        self._finding_topic = topic_name(settings.namespace, FINDING)
        self._state_topic = topic_name(settings.namespace, DETECTOR_STATE)
        overrides = load_overrides(settings.detectors_file, settings.rules_path)
        self._limits = load_limits(overrides)
        self._detectors = all_detectors(overrides, settings.rules_path)
        self._engines: dict[int, DetectionEngine] = {}
        self._batch_under_way = asyncio.Lock()

    async def start(self) -> None:
        self._deliverer = Deliverer(kafka_properties(self._settings.kafka_bootstrap))

    async def process(self, batch: Sequence[Incoming]) -> None:
        async with self._batch_under_way:
            await self._process(batch)

    async def _process(self, batch: Sequence[Incoming]) -> None:
        touched = {message.partition for message in batch}
        try:
            findings: list[Finding] = []
            for message in batch:
                engine = await self._engine(message.partition)
                findings += engine.process(
                    message.offset, self._documents(message), message.timestamp_ms * 1_000_000
                )
                await asyncio.sleep(0)
            await self._deliverer.deliver([self._finding(f) for f in findings])
            await self._deliverer.deliver([o for p in sorted(touched) for o in self._state(p)])
        except BaseException:
            # The engines have counted what was not delivered; a second try would pass it over.
            for partition in touched:
                self._engines.pop(partition, None)
            raise

    def _documents(self, message: Incoming) -> list[dict[str, Any]]:
        try:
            frame = decode("document_frame.v1", message.value, self._wire)
            return [orjson.loads(d["body"]) for d in frame["documents"]]
        except (RecordRejected, orjson.JSONDecodeError):
            # index, which reads the same message, writes the dead letter
            log.warning("a message of the event topic cannot be read")
            return []

    def _finding(self, finding: Finding) -> Outgoing:
        metrics.FINDINGS.labels(finding["rule"]["id"]).inc()
        key = finding["gatebook"]["dedup_key"].encode()
        return Outgoing(self._finding_topic, encode("finding.v2", finding, self._wire), key)

    def _state(self, partition: int) -> list[Outgoing]:
        entries = self._engines[partition].drain_state()
        return [Outgoing(self._state_topic, value, key, partition) for key, value in entries]

    async def _engine(self, partition: int) -> DetectionEngine:
        engine = self._engines.get(partition)
        if engine is None:
            engine = DetectionEngine(self._detectors, self._limits)
            loop = asyncio.get_running_loop()
            engine.load(*await loop.run_in_executor(None, self._read_state, partition))
            self._engines[partition] = engine
        return engine

    def _read_state(self, partition: int) -> tuple[list[StateEntry], int]:
        """Everything in a partition of the state topic, oldest first, and the end of the event
        topic's partition."""
        properties = {
            **kafka_properties(self._settings.kafka_bootstrap),
            "group.id": f"{self._settings.namespace}-detect-state",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        client = Consumer(properties)
        try:
            events = TopicPartition(self.topics[0], partition)
            _, end = client.get_watermark_offsets(events, timeout=REQUEST_TIMEOUT_SECONDS)
            return _read_to_end(client, self._state_topic, partition), end
        finally:
            client.close()

    async def tick(self, held: Sequence[Held]) -> None:
        """Time alone brings about nothing yet."""

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        # Wait for the batch under way: the next owner reads the state only after we have left the
        # group, and must find all of it or none.
        async with self._batch_under_way:
            for _topic, number in partitions:
                self._engines.pop(number, None)

    async def stop(self) -> None:
        """Nothing to close: deliver() leaves nothing behind."""


def _read_to_end(client: Consumer, topic: str, partition: int) -> list[StateEntry]:
    here = TopicPartition(topic, partition)
    low, high = client.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_SECONDS)
    entries: list[StateEntry] = []
    if low == high:
        return entries
    client.assign([TopicPartition(topic, partition, low)])
    # To the end of the partition and not to an offset: compaction may have taken the last one.
    while True:
        message = client.poll(LOAD_POLL_SECONDS)
        error = message.error() if message is not None else None
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            return entries
        if message is not None and error is None:
            entries.append((message.key() or b"", message.value()))
