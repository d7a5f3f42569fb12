"""The Faust application of one worker role. The only file that imports faust.

Faust owns the consumer group: membership, rebalancing, fetching. What it must not own is when an
offset is committed (see progress.py), so its consumer asks our Progress instead of its own acks.
Nothing is ever acknowledged through Faust, agents yield nothing, and there is no web port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport

from gatebook.processors import metrics
from gatebook.processors.config import WorkerSettings
from gatebook.processors.progress import Admission, Progress
from gatebook.processors.stages.base import Incoming, Stage
from gatebook.schemas.errors import Fatal, RegistryUnavailable

log = logging.getLogger(__name__)

EXIT_KILLED_AT_DEADLINE = 124
EXIT_FAILED = 70  # EX_SOFTWARE: nothing of the batch was committed; a supervisor restarts
QUEUE_MESSAGES = 256
HEARTBEATS_PER_SESSION = 6
REGISTRY_PAUSE_SECONDS = 2.0
REQUEST_TIMEOUT_SECONDS = 90.0  # Faust's default; it refuses a session timeout above it


def _worker_of(app: Any) -> RoleWorker:
    """The worker that built a Faust app."""
    worker: RoleWorker = app.gatebook_worker
    return worker


class ProgressConsumer(Consumer):
    """Faust's consumer, committing what Progress says is delivered."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        progress = _worker_of(self.app).progress
        return (
            tp
            for tp in self.assignment()
            if progress.committable((tp.topic, tp.partition)) is not None
        )

    def _new_offset(self, tp: Any) -> int | None:
        progress = _worker_of(self.app).progress
        return progress.committable((tp.topic, tp.partition))

    async def perform_seek(self) -> None:
        await super().perform_seek()
        _worker_of(self.app).on_assigned(dict(self._committed_offset), self.assignment())


class ProgressTransport(Transport):
    Consumer = ProgressConsumer


class RoleWorker:
    """Runs one stage under Faust: messages in turn, batches as large as what waits."""

    def __init__(self, role: str, stage: Stage, settings: WorkerSettings) -> None:
        self.role = role
        self.stage = stage
        self.settings = settings
        self.progress = Progress()
        self.busy = False
        self._queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(maxsize=QUEUE_MESSAGES)
        self.app = self._build_app()

    def _build_app(self) -> Any:
        brokers = self.settings.kafka_bootstrap.split(",")
        app: Any = faust.App(
            f"{self.settings.namespace}-{self.role}",
            broker=[f"kafka://{broker}" for broker in brokers],
            value_serializer="raw",
            key_serializer="raw",
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,  # topics are created by `gatebook setup`
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=16 * 1024 * 1024,
            broker_commit_interval=self.settings.commit_interval_seconds,
            broker_session_timeout=self.settings.session_timeout_seconds,
            broker_request_timeout=max(
                REQUEST_TIMEOUT_SECONDS, self.settings.session_timeout_seconds
            ),
            broker_heartbeat_interval=self.settings.session_timeout_seconds
            / HEARTBEATS_PER_SESSION,
            stream_buffer_maxsize=QUEUE_MESSAGES,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
            datadir=str(self.settings.home_path / "faust"),
        )
        app.gatebook_worker = self
        app.transport = ProgressTransport(app.conf.broker, app, loop=app.loop)
        topic = app.topic(*self.stage.topics, value_serializer="raw", key_serializer="raw")
        app.agent(topic, name=f"gatebook.{self.role}", concurrency=1)(self._receive)
        app.task(self._run)
        app.on_partitions_revoked.connect(self._on_revoked)
        return app

    async def _receive(self, stream: Any) -> None:
        """The agent: hands messages on. It yields nothing, so no reply can be asked of it."""
        async for event in stream.noack().events():
            await self._queue.put((event.message.generation_id, event.message))

    async def _run(self, _app: Any) -> None:
        """Batches, one after the other, until the worker ends."""
        try:
            await self.stage.start()
            while True:
                await self._batch()
        except asyncio.CancelledError:
            await self.stage.stop()
            raise
        except Fatal as error:
            log.critical("%s; %s", error, error.next_step)
            os._exit(EXIT_FAILED)
        except Exception as error:
            # If we die here, nothing of the batch is committed and all of it is read again.
            log.critical("the %s stage failed: %s", self.role, type(error).__name__, exc_info=True)
            os._exit(EXIT_FAILED)

    async def _batch(self) -> None:
        generation, messages = await self._next_batch()
        admitted = [m for m in messages if self._admit(m)]
        if not admitted:
            return
        started = time.monotonic()
        self.busy = True
        try:
            await self._process([_incoming(m) for m in admitted])
        finally:
            self.busy = False
        metrics.BATCH_SECONDS.labels(self.role).observe(time.monotonic() - started)
        if generation == self.app.consumer_generation_id:
            for message in admitted:
                self.progress.done((message.topic, message.partition), message.offset)

    async def _process(self, batch: list[Incoming]) -> None:
        """The stage's work, begun anew for as long as the schema registry is away: an outage of
        the registry is waited out and never becomes a dead letter."""
        while True:
            try:
                return await self.stage.process(batch)
            except RegistryUnavailable:
                log.warning("the schema registry does not answer; waiting")
                await asyncio.sleep(REGISTRY_PAUSE_SECONDS)

    async def _next_batch(self) -> tuple[int, list[Any]]:
        """What waits, up to the limits, all of one generation of the consumer group."""
        generation, first = await self._queue.get()
        messages, size = [first], len(first.value or b"")
        while not self._queue.empty() and len(messages) < self.settings.batch_messages:
            if size >= self.settings.batch_bytes:
                break
            if self._queue._queue[0][0] != generation:  # type: ignore[attr-defined]  # a look ahead
                break
            message = self._queue.get_nowait()[1]
            messages.append(message)
            size += len(message.value or b"")
        return generation, messages

    def _admit(self, message: Any) -> bool:
        if message.generation_id != self.app.consumer_generation_id:
            return False  # of an assignment that is gone; it is fetched again by whoever holds it
        partition = (message.topic, message.partition)
        admission = self.progress.admit(partition, message.offset)
        if admission is Admission.REFETCH:
            metrics.OFFSET_GAPS.labels(self.role).inc()
            expected = self.progress.next_offset[partition]
            asyncio.ensure_future(self.app.consumer.seek(message.tp, expected))  # noqa: RUF006
        return admission is Admission.PROCESS

    def on_assigned(self, committed: dict[Any, int | None], assigned: Any) -> None:
        """Begin each partition at its committed offset."""
        for tp in assigned:
            self.progress.assign((tp.topic, tp.partition), committed.get(tp))

    async def _on_revoked(self, _app: Any, revoked: Any, **_: Any) -> None:
        partitions = [(tp.topic, tp.partition) for tp in revoked]
        await self.stage.revoke(partitions)
        for partition in partitions:
            self.progress.revoke(partition)

    def assigned(self) -> list[tuple[str, int]]:
        """Partitions this worker holds now."""
        return list(self.progress.next_offset)


def _incoming(message: Any) -> Incoming:
    headers = message.headers or {}
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=int((message.timestamp or 0) * 1000),
        value=message.value or b"",
        headers=dict(headers),
    )


def end_on_signal(runner: Any, deadline_seconds: float) -> None:
    """On SIGTERM or SIGINT stop in good order, and end after the deadline whatever is under way.

    A thread of its own waits for the signal, so that a blocked event loop cannot keep the process
    alive. What was not committed is read again by the next worker.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # threads started later inherit it

    def wait_and_end() -> None:
        signal.sigwait(signals)
        runner.loop.call_soon_threadsafe(runner._on_sigterm)
        time.sleep(deadline_seconds)
        log.critical("did not stop in time; ending")
        os._exit(EXIT_KILLED_AT_DEADLINE)

    threading.Thread(target=wait_and_end, name="gatebook-signals", daemon=True).start()


def run(worker: RoleWorker) -> int:
    """Run a worker until it is told to stop; the exit code."""
    runner = faust.Worker(
        worker.app,
        loglevel=None,
        logging_config=None,
        redirect_stdouts=False,
        override_logging=False,
        quiet=True,
    )
    runner.spinner = None  # it writes to the terminal even where nothing is one
    end_on_signal(runner, worker.settings.stop_deadline_seconds)
    try:
        runner.execute_from_commandline()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
