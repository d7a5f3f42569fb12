"""What an erasure needs of Kafka, of the workers, and of intake's keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    ConfigResource,
    ResourceType,
)

from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.reconcile import Barrier, Behind
from gatebook.processors.subjects.erasure import Privileged
from gatebook.schemas.errors import Fatal, GatebookError
from gatebook.schemas.keys import PUBLIC_NAME, FileSource, KeyFiles
from gatebook.schemas.topics import ACCESS, EVENT, topic_name

KAFKA_TIMEOUT_SECONDS = 10.0
# Producers look at the public keys once a second; a frame may linger and be retried for longer.
PRODUCERS_TAKE_KEY_SECONDS = 5.0
Recording = Callable[[Privileged], Awaitable[None]]


class WorkersBehind(GatebookError):
    """Intake or index have not worked off what was under way, so nothing can be promised yet."""

    exit_code = 5
    next_step = "see that the workers run, then run the same command again: it goes on from here"


@dataclass
class Pipeline:
    """The surroundings of the running pipeline. `recording` makes an event durable."""

    settings: WorkerSettings
    lease_seconds: float
    recording: Recording
    timeout_seconds: float = 120.0

    async def record(self, event: Privileged) -> None:
        """See erasure.Surroundings."""
        await self.recording(event)

    async def settle(self) -> None:
        """See erasure.Surroundings: leases end, then intake and index are waited for."""
        await asyncio.sleep(self.lease_seconds)
        for role, key in (("intake", ACCESS), ("index", EVENT)):
            await self._passed(role, key)

    async def _passed(self, role: str, key: str) -> None:
        barrier = Barrier(self.settings, self.timeout_seconds)
        try:
            await asyncio.to_thread(barrier.passed, role, key)
        except (Behind, KafkaException) as error:
            cause = str(error) if isinstance(error, Behind) else "Kafka does not answer"
            raise WorkersBehind(f"{cause}; the keys are destroyed already") from None

    async def kept_until(self, topic: str) -> str:
        """From the topic's own retention; where Kafka does not tell, so it says."""
        return await asyncio.to_thread(self._kept_until, topic)

    def _kept_until(self, topic: str) -> str:
        name = topic_name(self.settings.namespace, topic)
        resource = ConfigResource(ResourceType.TOPIC, name)
        admin = AdminClient(kafka_properties(self.settings.kafka_bootstrap))
        try:
            entries = admin.describe_configs([resource])[resource].result(KAFKA_TIMEOUT_SECONDS)
            kept_ms = int(entries["retention.ms"].value)
        except (KafkaException, TimeoutError, KeyError, TypeError, ValueError):
            return "the topic's retention, which Kafka did not tell"
        if kept_ms < 0:
            return "without end: the topic has no retention"
        return (datetime.now(UTC) + timedelta(milliseconds=kept_ms)).isoformat(timespec="seconds")

    async def begin_raw(self) -> list[str]:
        """Rotate intake's keys; ids of those there were."""
        files = self._key_files()
        before = [key.id for key in files.read().keys if not key.destroyed]
        await asyncio.to_thread(files.rotate)
        return before

    async def end_raw(self, key_ids: Sequence[str]) -> None:
        """Destroy them, once producers have the new one and intake has read what came before.

        What a producer still has in its spool, sealed under an old key, loses its content.
        """
        await asyncio.sleep(PRODUCERS_TAKE_KEY_SECONDS)
        await self._passed("intake", ACCESS)
        files = self._key_files()
        live = {key.id for key in files.read().keys if not key.destroyed}
        for key_id in key_ids:
            if key_id in live:
                await asyncio.to_thread(files.destroy, key_id)

    def _key_files(self) -> KeyFiles:
        source = self.settings.private_key_source()
        if not isinstance(source, FileSource):
            raise Fatal(
                "intake's keys are not in a file here",
                "rotate and destroy them where they are kept, then erase without --now",
            )
        return KeyFiles(source.path, source.path.with_name(PUBLIC_NAME))
