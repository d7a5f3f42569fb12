"""What waits in Kafka for each role of the worker, for the overview of `gatebook serve`."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from gatebook.engines.pipeline_checks import Group
    from gatebook.processors.config import WorkerSettings
    from gatebook.processors.serve.models import RoleState

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0
BROKER_TIMEOUT_SECONDS = 2.0


class Waiting:
    """Asks Kafka, at most every few seconds however many pages are open. Belongs to one loop."""

    def __init__(self, worker: WorkerSettings) -> None:
        self._worker = worker
        self._asked_at = float("-inf")
        self._known: list[RoleState] | None = None
        self._asking = asyncio.Lock()

    async def roles(self) -> list[RoleState] | None:
        """Each role, in the order of the flow; None where Kafka does not tell."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._known = await asyncio.to_thread(self._ask)
                self._asked_at = time.monotonic()
            return self._known

    def _ask(self) -> list[RoleState] | None:
        from confluent_kafka import KafkaException

        from gatebook.engines.pipeline_checks import groups
        from gatebook.processors.config import kafka_properties
        from gatebook.processors.serve.models import RoleState

        properties = kafka_properties(self._worker.kafka_bootstrap)
        bootstrap = properties["bootstrap.servers"]
        try:
            found = groups(bootstrap, self._worker.namespace, properties, BROKER_TIMEOUT_SECONDS)
        except (KafkaException, GatebookError) as error:
            log.warning("Kafka does not tell what waits: %s", type(error).__name__)
            return None
        return None if found is None else [RoleState(**_told(group)) for group in found]


def _told(group: Group) -> dict[str, Any]:
    names = {"role": group.role, "members": group.members, "state": group.state}
    return {**names, "waiting_messages": group.lag}
