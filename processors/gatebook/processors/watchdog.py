"""A worker that lives but does not move must end, so that it is restarted.

Faust's consumer can stall while the process lives (faust-streaming #175, #523, #532, #549, #602).
Liveness is progress of committed offsets against the end of the log, looked at from a thread of
its own with a client of its own. A worker that waits for Kafka or Elasticsearch is not stalled.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from gatebook.processors import metrics

log = logging.getLogger(__name__)

EXIT_STALLED = 75  # EX_TEMPFAIL: a supervisor restarts
REQUEST_TIMEOUT_SECONDS = 5.0


class StallDetector:
    """Decides from what is seen; pure. `stalled` is true where work waited and nothing moved for
    `stall_seconds`."""

    def __init__(self, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self._committed: dict[tuple[str, int], int] = {}
        self._moved_at = 0.0

    def see(self, committed: dict[tuple[str, int], int], lag: int, busy: bool, now: float) -> bool:
        """One look at time `now` (seconds). `busy`: a batch is being delivered."""
        if committed != self._committed or lag == 0 or busy or self._moved_at == 0.0:
            self._committed, self._moved_at = committed, now
        return now - self._moved_at >= self.stall_seconds


class Watchdog(threading.Thread):
    """Looks every few seconds at the partitions this worker holds; ends the process on a stall."""

    def __init__(
        self,
        role: str,
        consumer_properties: dict[str, Any],
        assigned: Callable[[], list[tuple[str, int]]],
        busy: Callable[[], bool],
        clock: Callable[[], float],
        stall_seconds: float,
    ) -> None:
        super().__init__(name="gatebook-watchdog", daemon=True)
        self._role = role
        self._properties = {**consumer_properties, "enable.auto.commit": False}
        self._assigned = assigned
        self._busy = busy
        self._clock = clock
        self._detector = StallDetector(stall_seconds)
        self._interval_seconds = max(1.0, stall_seconds / 10)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread at its next look."""
        self._stopped.set()

    def run(self) -> None:
        client = Consumer(self._properties)
        while not self._stopped.wait(self._interval_seconds):
            try:
                committed, lag = self._look(client)
            except KafkaException:
                continue  # the broker is away: that is not a stall
            metrics.LAG.labels(self._role).set(lag)
            if self._detector.see(committed, lag, self._busy(), self._clock()):
                log.critical("no progress with work waiting; ending to be restarted")
                os._exit(EXIT_STALLED)  # nothing uncommitted is lost: it is fetched again
        client.close()

    def _look(self, client: Consumer) -> tuple[dict[tuple[str, int], int], int]:
        held = [TopicPartition(topic, number) for topic, number in self._assigned()]
        if not held:
            return {}, 0
        committed = {}
        lag = 0
        for found in client.committed(held, timeout=REQUEST_TIMEOUT_SECONDS):
            low, high = client.get_watermark_offsets(found, timeout=REQUEST_TIMEOUT_SECONDS)
            position = found.offset if found.offset >= 0 else low
            committed[(found.topic, found.partition)] = position
            lag += max(0, high - position)
        return committed, lag
