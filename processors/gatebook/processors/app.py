"""The Faust application of one worker role. The only file that imports faust.

Faust owns the consumer group: membership, rebalancing, fetching. What it must not own is when an
offset is committed (see progress.py), so its consumer asks our Progress instead of its own acks.
Nothing is ever acknowledged through Faust, agents yield nothing, and there is no web port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import Consumer, Transport

from gatebook.processors import metrics
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.ending import Ending
from gatebook.processors.progress import Admission, Progress
from gatebook.processors.stages.base import TICK_SECONDS, Held, Incoming, Stage
from gatebook.schemas.errors import Fatal, RegistryUnavailable

log = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE: nothing of the batch was committed; a supervisor restarts
# A batch waits for as long as Elasticsearch or the broker is away. Faust never comes back from a
# group that aiokafka left because nothing was fetched for so long; the watchdog sees a stall.
MAX_POLL_SECONDS = 365 * 86_400.0
METADATA_AGE_MS = 30_000  # how soon a topic made anew, or a partition added, is found
QUEUE_MESSAGES = 256
STREAM_MESSAGES = 32  # Faust's own queue, which knows no bytes
QUEUE_BYTES = 64 * 1024 * 1024
HEARTBEATS_PER_SESSION = 6
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
SECURITY_PROPERTIES = frozenset(
    {
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
    }
)
REGISTRY_PAUSE_SECONDS = 2.0
REQUEST_TIMEOUT_SECONDS = 90.0  # Faust's default; it refuses a session timeout above it


def _worker_of(app: Any) -> RoleWorker:
    """The worker that built a Faust app."""
    worker: RoleWorker = app.gatebook_worker
    return worker


class _NothingRead(defaultdict[Any, Any]):
    """Stands for Faust's offsets read so far, by which it drops lower ones and keeps a tree of
    gaps. Progress judges both: a lower offset is the first of a topic that was made anew."""

    def __getitem__(self, key: Any) -> None:
        return None


class ProgressConsumer(Consumer):
    """Faust's consumer, committing what Progress says is delivered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NothingRead()

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

    def _should_commit(self, tp: Any, offset: int) -> bool:
        return True  # Faust refuses a lower offset, and remembers commits that failed as done

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        committed = await super()._commit(offsets)
        if committed:
            for tp, offset in offsets.items():
                _worker_of(self.app).progress.note_committed((tp.topic, tp.partition), offset)
        return committed

    async def perform_seek(self) -> None:
        """Faust calls this after every assignment, before messages flow."""
        starts = dict(await self.seek_to_committed())
        unknown = [tp for tp, offset in starts.items() if not offset]
        if unknown:  # never committed: the consumer begins at the first of the log
            starts.update(await self.earliest_offsets(*unknown))
        _worker_of(self.app).on_assigned(starts)


class ProgressTransport(Transport):
    Consumer = ProgressConsumer


def credentials(properties: Mapping[str, str]) -> Any:
    """Faust's credentials from librdkafka's properties, so that one set of settings serves what
    consumes and what produces; None: plain text. Raises Fatal for what only librdkafka can do."""
    protocol = properties.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol not in ("SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise Fatal(
            "GATEBOOK_KAFKA_SECURITY_PROTOCOL is unknown", "use SSL, SASL_SSL, SASL_PLAINTEXT"
        )
    _refuse_unknown(properties)
    context = _tls_context(properties) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms", "PLAIN")
    if mechanism not in SASL_MECHANISMS:
        raise Fatal(
            "workers cannot use this GATEBOOK_KAFKA_SASL_MECHANISM",
            "use one of " + ", ".join(SASL_MECHANISMS),
        )
    for name in ("sasl.username", "sasl.password"):
        if not properties.get(name):
            raise Fatal(f"{_variable(name)} is not set", f"set it: {mechanism} needs both")
    return faust.SASLCredentials(
        username=properties.get("sasl.username"),
        password=properties.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )


def _variable(name: str) -> str:
    return "GATEBOOK_KAFKA_" + name.upper().replace(".", "_")


def _refuse_unknown(properties: Mapping[str, str]) -> None:
    """A worker must not read by other means than it writes."""
    for name in sorted(properties):
        if name.startswith(("ssl.", "sasl.")) and name not in SECURITY_PROPERTIES:
            raise Fatal(
                f"workers cannot use {_variable(name)}: their consumer does not know it",
                "use " + ", ".join(sorted(SECURITY_PROPERTIES)),
            )
    if properties.get("ssl.endpoint.identification.algorithm", "none") not in ("none", "https"):
        raise Fatal(
            f"{_variable('ssl.endpoint.identification.algorithm')} is unknown", "use https or none"
        )
    certificate, key = "ssl.certificate.location", "ssl.key.location"
    if bool(properties.get(certificate)) != bool(properties.get(key)):
        raise Fatal(
            f"{_variable(certificate)} and {_variable(key)} belong together", "set both or neither"
        )


def _tls_context(properties: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=properties.get("ssl.ca.location"))
        if certificate := properties.get("ssl.certificate.location"):
            key = properties.get("ssl.key.location")
            # Without a password Python would ask for one at the terminal.
            password = properties.get("ssl.key.password", "")
            context.load_cert_chain(certificate, key, password)
    except OSError as error:
        raise Fatal(
            f"a certificate or key of GATEBOOK_KAFKA_SSL_* cannot be used: {type(error).__name__}",
            "check GATEBOOK_KAFKA_SSL_CA_LOCATION, _CERTIFICATE_LOCATION, _KEY_LOCATION and "
            "_KEY_PASSWORD",
        ) from None
    if properties.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif properties.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    return context


class RoleWorker:
    """Runs one stage under Faust: messages in turn, batches as large as what waits."""

    def __init__(self, role: str, stage: Stage, settings: WorkerSettings) -> None:
        self.role = role
        self.stage = stage
        self.settings = settings
        self.progress = Progress()
        self.busy = False
        self._queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(maxsize=QUEUE_MESSAGES)
        self._queue_bytes = 0
        self._taken = asyncio.Event()
        self._ticked_at = time.monotonic()
        self.app = self._build_app()

    def _build_app(self) -> Any:
        brokers = self.settings.kafka_bootstrap.split(",")
        app: Any = faust.App(
            f"{self.settings.namespace}-{self.role}",
            broker=[f"kafka://{broker}" for broker in brokers],
            broker_credentials=credentials(kafka_properties(self.settings.kafka_bootstrap)),
            value_serializer="raw",
            key_serializer="raw",
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,  # topics are created by `gatebook setup`
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=16 * 1024 * 1024,
            broker_max_poll_interval=MAX_POLL_SECONDS,
            consumer_metadata_max_age_ms=METADATA_AGE_MS,
            broker_commit_interval=self.settings.commit_interval_seconds,
            broker_session_timeout=self.settings.session_timeout_seconds,
            broker_request_timeout=max(
                REQUEST_TIMEOUT_SECONDS, self.settings.session_timeout_seconds
            ),
            broker_heartbeat_interval=self.settings.session_timeout_seconds
            / HEARTBEATS_PER_SESSION,
            stream_buffer_maxsize=STREAM_MESSAGES,
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
            while self._queue_bytes > QUEUE_BYTES:
                self._taken.clear()
                await self._taken.wait()
            self._queue_bytes += len(event.message.value or b"")
            await self._queue.put((event.message.generation_id, event.message))

    def _took(self, message: Any) -> int:
        size = len(message.value or b"")
        self._queue_bytes -= size
        self._taken.set()
        return size

    async def _run(self, _app: Any) -> None:
        """Batches, one after the other, until the worker ends."""
        try:
            await self.stage.start()
            log.info("the %s worker is up, reading %s", self.role, ", ".join(self.stage.topics))
            while True:
                await self._batch()
                await self._tick()
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

    async def _tick(self) -> None:
        """Tell the stage that time has passed, about once a second."""
        if time.monotonic() - self._ticked_at < TICK_SECONDS:
            return
        if self.app.rebalancing:
            return
        held = self._held()
        self.busy = True
        try:
            await self.stage.tick(held)
        finally:
            self.busy = False
        self._ticked_at = time.monotonic()

    def _held(self) -> list[Held]:
        """The partitions that are ours. Faust seeks once more as it gives partitions up, so that
        `progress` may know of some that are another's by now."""
        known = self.progress.next_offset
        if not known:
            return []
        ours = {(tp.topic, tp.partition) for tp in self.app.consumer.assignment()}
        return [Held(*tp, offset) for tp, offset in known.items() if tp in ours]

    async def _batch(self) -> None:
        """What waits, up to a batch; nothing where nothing comes for a while."""
        try:
            generation, messages = await asyncio.wait_for(self._next_batch(), TICK_SECONDS)
        except TimeoutError:
            return
        admitted = [m for m in messages if await self._admit(m)]
        admitted = [m for m in admitted if self._holds(m)]  # a rebalance may have come between
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
        messages, size = [first], self._took(first)
        while not self._queue.empty() and len(messages) < self.settings.batch_messages:
            if size >= self.settings.batch_bytes:
                break
            if self._queue._queue[0][0] != generation:  # type: ignore[attr-defined]  # a look ahead
                break
            message = self._queue.get_nowait()[1]
            messages.append(message)
            size += self._took(message)
        return generation, messages

    def _holds(self, message: Any) -> bool:
        """Whether a message is of the assignment that holds now. Else whoever holds its partition
        fetches it again."""
        return (
            message.generation_id == self.app.consumer_generation_id
            and (message.topic, message.partition) in self.progress.next_offset
        )

    async def _admit(self, message: Any) -> bool:
        if not self._holds(message):
            return False
        partition = (message.topic, message.partition)
        admission = self.progress.admit(partition, message.offset)
        if admission is Admission.REFETCH:
            metrics.OFFSET_GAPS.labels(self.role).inc()
            await self._seek(message.tp, self.progress.next_offset[partition])
        elif admission is Admission.BEGIN_ANEW:
            metrics.OFFSET_GAPS.labels(self.role).inc()
            log.warning("%s partition %d begins anew at a lower offset", *partition)
            await self.stage.revoke([partition])
        return admission in (Admission.PROCESS, Admission.BEGIN_ANEW)

    async def _seek(self, tp: Any, offset: int) -> None:
        try:
            await self.app.consumer.seek(tp, offset)
        except KafkaError:
            # The partition was taken away meanwhile; whoever holds it begins where we committed.
            log.warning("cannot seek in %s partition %d", tp.topic, tp.partition)

    def on_assigned(self, starts: Mapping[Any, int | None]) -> None:
        """Begin each partition at its committed offset, else at the first of its log."""
        for tp, offset in starts.items():
            self.progress.assign((tp.topic, tp.partition), offset)

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


def _stop(runner: Any) -> None:
    runner.loop.call_soon_threadsafe(runner._on_sigterm)


def run(worker: RoleWorker, ending: Ending) -> int:
    """Run a worker until it is told to stop; the exit code. Where Faust fails, the process ends
    here and now: threads that wait for a dependency would keep it alive."""
    runner = faust.Worker(
        worker.app,
        loglevel=None,
        logging_config=None,
        redirect_stdouts=False,
        override_logging=False,
        quiet=True,
    )
    runner.spinner = None  # it writes to the terminal even where nothing is one
    ending.ask(partial(_stop, runner))
    try:
        runner.execute_from_commandline()
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:
        log.critical("the worker failed: %s", type(error).__name__)
        os._exit(EXIT_FAILED)
    return 0
