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

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from gatebook.processors import metrics
from gatebook.processors.broker import AWAY, Complaint

log = logging.getLogger(__name__)

EXIT_STALLED = 75  # EX_TEMPFAIL: a supervisor restarts
REQUEST_TIMEOUT_SECONDS = 5.0


class StallDetector:
    """Decides from what is seen; pure. `stalled` is true where work waited and nothing moved for
    `stall_seconds`, looked at at least every `look_seconds`: time in which nobody looked (the
    broker was away, the process was stopped) says nothing and counts as one look."""

    def __init__(self, stall_seconds: float, look_seconds: float = float("inf")) -> None:
        self.stall_seconds = stall_seconds
        self._look_seconds = look_seconds
        self._committed: dict[tuple[str, int], int] | None = None
        self._seen_at = 0.0
        self._still_seconds = 0.0

    def see(self, committed: dict[tuple[str, int], int], lag: int, busy: bool, now: float) -> bool:
        """One look at time `now` (seconds). `busy`: a batch is being delivered."""
        if committed != self._committed or lag == 0 or busy:
            self._committed, self._still_seconds = committed, 0.0
        else:
            self._still_seconds += min(now - self._seen_at, self._look_seconds)
        self._seen_at = now
        return self._still_seconds >= self.stall_seconds

    def reset(self) -> None:
        """Begin anew: there was no work after all."""
        self._committed = None


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
        self._properties = {
            **consumer_properties,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
        self._admin_properties = {k: v for k, v in consumer_properties.items() if k != "group.id"}
        self._assigned = assigned
        self._busy = busy
        self._clock = clock
        self._interval_seconds = max(1.0, stall_seconds / 10)
        self._detector = StallDetector(stall_seconds, 2 * self._interval_seconds)
        self._complaint = Complaint(self._properties)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread at its next look."""
        self._stopped.set()

    def run(self) -> None:
        client = Consumer(self._properties)
        admin = AdminClient(self._admin_properties)
        while not self._stopped.wait(self._interval_seconds):
            try:
                if self._stalled(client, admin):
                    log.critical("no progress with work waiting; ending to be restarted")
                    os._exit(EXIT_STALLED)  # nothing uncommitted is lost: it is fetched again
            except KafkaException as error:  # the broker is away: that is not a stall
                self._complain(error.args[0])
        client.close()

    def _complain(self, error: KafkaError) -> None:
        if error.code() in AWAY:
            self._complaint.make(error)
        else:
            log.warning("cannot see the progress: %s", error.name())

    def _stalled(self, client: Consumer, admin: AdminClient) -> bool:
        committed, lag = self._look(client)
        if not committed and not self._group_is_served(admin):
            lag = 1  # nobody works, and we have nothing: we cannot get back into the group
        metrics.LAG.labels(self._role).set(lag)
        if not self._detector.see(committed, lag, self._busy(), self._clock()):
            return False
        if not committed or any(_has_message(client, *held) for held in committed.items()):
            return True
        self._detector.reset()  # the offsets left hold no message: markers of transactions
        return False

    def _group_is_served(self, admin: AdminClient) -> bool:
        """Whether the group has settled, with members: then others hold the partitions."""
        group = self._properties["group.id"]
        found = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_SECONDS)
        described = found[group].result()
        return bool(described.members) and described.state is ConsumerGroupState.STABLE

    def _look(self, client: Consumer) -> tuple[dict[tuple[str, int], int], int]:
        held = [TopicPartition(topic, number) for topic, number in self._assigned()]
        if not held:
            return {}, 0
        committed = {}
        lag = 0
        for found in client.committed(held, timeout=REQUEST_TIMEOUT_SECONDS):
            low, high = client.get_watermark_offsets(found, timeout=REQUEST_TIMEOUT_SECONDS)
            # Nothing committed, or of a log that is gone: deleted by retention, or made anew.
            position = found.offset if low <= found.offset <= high else low
            committed[(found.topic, found.partition)] = position
            lag += high - position
        return committed, lag


def _has_message(client: Consumer, held: tuple[str, int], position: int) -> bool:
    """Whether there is a message to read from `position` on."""
    client.assign([TopicPartition(*held, position)])
    try:
        message = client.poll(2 * REQUEST_TIMEOUT_SECONDS)
        return message is not None and message.error() is None
    finally:
        client.unassign()
