"""notify: findings to the alert targets, and a record of every delivery."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

from gatebook.processors import metrics
from gatebook.processors.alerts.base import AlertTarget, Delivery
from gatebook.processors.alerts.plan import Plan
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.stages.base import Held, Incoming
from gatebook.schemas.codec import SINGLE_OBJECT, Record, decode, encode
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.topics import ALERT, FINDING, topic_name
from gatebook.schemas.wire import WireFormat

NAMESPACE_ALERT = uuid.UUID("0f5a0c52-3b0e-4c84-9d1c-7c3b8f5b6a10")


class NotifyStage:
    """Every finding to every target. At least once: a target's own deduplication key makes the
    second delivery the same alert."""

    def __init__(
        self,
        settings: WorkerSettings,
        plan: Plan,
        wire: WireFormat = SINGLE_OBJECT,
    ) -> None:
        self._settings = settings
        self._targets = tuple(plan.targets.values())
        self._wire = wire
        self.topics = (topic_name(settings.namespace, FINDING),)
        self._alert_topic = topic_name(settings.namespace, ALERT)

    async def start(self) -> None:
        self._deliverer = Deliverer(kafka_properties(self._settings.kafka_bootstrap))

    async def process(self, batch: Sequence[Incoming]) -> None:
        findings = [f for f in map(self._finding, batch) if f is not None]
        jobs = [self._deliver(target, f) for f in findings for target in self._targets]
        await self._deliverer.deliver(await asyncio.gather(*jobs))

    def _finding(self, message: Incoming) -> Record | None:
        try:
            return decode("finding.v2", message.value, self._wire)
        except RecordRejected:
            return None  # index, which reads the same message, writes the dead letter

    async def _deliver(self, target: AlertTarget, finding: Record) -> Outgoing:
        delivery = await target.deliver(finding)
        metrics.ALERTS.labels(target.name, delivery.outcome).inc()
        record = alert_record(target, finding, delivery, time.time_ns())
        key = finding["gatebook"]["dedup_key"].encode()
        return Outgoing(self._alert_topic, encode("alert.v2", record, self._wire), key)

    async def tick(self, held: Sequence[Held]) -> None:
        """Time alone brings about nothing here."""

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Nothing is kept between batches."""

    async def stop(self) -> None:
        for target in self._targets:
            await target.close()


def alert_record(target: AlertTarget, finding: Record, delivery: Delivery, now_ns: int) -> Record:
    """The record of one delivery, as alert.v1. Its id is the same for the same finding, target
    and state: a delivery repeated after a crash is the same alert."""
    ours, event = finding["gatebook"], finding["event"]
    return {
        "timestamp": now_ns,
        "event": {
            "id": str(
                uuid.uuid5(NAMESPACE_ALERT, f"{event['id']}|{target.name}|{event['action']}")
            ),
            "kind": "alert",
            "action": event["action"],
            "outcome": delivery.outcome,
            "reason": delivery.reason,
            "duration": delivery.duration_ns,
        },
        "rule": {"id": finding["rule"]["id"], "name": finding["rule"]["name"]},
        "http": {"response": {"status_code": delivery.status_code}},
        "gatebook": {
            "target": target.name,
            "target_type": target.type,
            "finding_id": event["id"],
            "dedup_key": ours["dedup_key"],
            "severity": ours["severity"],
            "attempts": delivery.attempts,
        },
    }
