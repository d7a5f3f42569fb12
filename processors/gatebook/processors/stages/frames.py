"""What intake tells detection of producers' frames: each of them, and how far their time has come.

Detection hears of every frame, so that it sees what is missing, who is silent and whose clock is
off. It hears up to when nothing more can come, too: while intake is down, no producer is silent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from confluent_kafka import KafkaException

from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Outgoing
from gatebook.processors.detect.observations import Outbox, Source, frame_access, pack_frame
from gatebook.processors.fenced import EndOffsets
from gatebook.processors.stages.base import Held, Incoming
from gatebook.schemas.codec import FrameHeader
from gatebook.schemas.topics import OBSERVATION, topic_name


class FrameReports:
    """Collects frames of a batch, and says what is to be sent of them."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._topic = topic_name(settings.namespace, OBSERVATION)
        self._progress: dict[int, int] = {}
        self._timed_at = 0.0

    async def start(self) -> None:
        """Ask how many partitions there are; waits for the broker."""
        properties = kafka_properties(self._settings.kafka_bootstrap)
        self._ends = EndOffsets(properties, f"{self._settings.namespace}-intake-ends")
        loop = asyncio.get_running_loop()
        self._gathered = await loop.run_in_executor(None, self._ends.partitions, self._topic)
        self._outbox = Outbox(self._gathered)

    def note(self, header: FrameHeader, message: Incoming) -> None:
        """A frame came. Its time is the broker's, so it is the same when it is read again."""
        received_ns = min(message.timestamp_ms * 1_000_000, time.time_ns())
        access = frame_access(
            header.producer_id,
            header.epoch,
            header.first_sequence,
            header.count,
            header.sent_at,
            header.state,
            header.losses or {},
            received_ns,
        )
        number, packed = pack_frame(access, self._gathered)
        self._outbox.add({number: packed})
        known = self._progress.get(message.partition, 0)
        self._progress[message.partition] = max(known, received_ns)

    def take(self) -> list[Outgoing]:
        """What was noted since the last call."""
        sources = [Source("frame", number, ns, ns, ns) for number, ns in self._progress.items()]
        self._progress = {}
        return self._outgoing(sources)

    def _outgoing(self, sources: Sequence[Source], everywhere: bool = False) -> list[Outgoing]:
        messages = self._outbox.take(sources, everywhere)
        return [Outgoing(self._topic, body, None, number) for number, body in messages]

    async def passing_of_time(self, held: Sequence[Held]) -> list[Outgoing]:
        """How far partitions have come that were read to their end; every few seconds."""
        if time.monotonic() - self._timed_at < self._settings.detect_idle_seconds:
            return []
        self._timed_at = time.monotonic()
        sources = await asyncio.get_running_loop().run_in_executor(None, self._ended, held)
        return self._outgoing(sources, everywhere=True) if sources else []

    def _ended(self, held: Sequence[Held]) -> list[Source]:
        # The clock before the ends: what is not there by then was written later.
        now_ns = time.time_ns() - round(self._settings.clock_margin_seconds * 1e9)
        try:
            ended = [h for h in held if self._ends.is_read(h.topic, h.partition, h.next_offset)]
        except KafkaException:  # the broker is away: time waits with it
            return []
        return [Source("frame", one.partition, now_ns) for one in ended]

    def close(self) -> None:
        """Close the client that asks for offsets."""
        self._ends.close()
