"""The application of the overhead benchmark, and the middlewares that record its accesses.

Each is given the same application and the same requests. What they do beyond passing messages on
is what is measured; where their records go and how many arrived is checked by `finish`.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import fastavro
import httpx
import msgspec
from confluent_kafka import Producer
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from tests.benchmarks.caller import ANSWER_BODY, ANSWER_HEADERS, FLUSH_SECONDS, REQUEST_HEADERS
from tests.benchmarks.events import events

from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import CaptureLevel, Intents, ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.registry import load
from gatebook.schemas.topics import ACCESS, topic_name

Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Receive, Send], Awaitable[None]]

JSON_PATH, STREAM_PATH = "/v1/chat/completions", "/v1/chat/completions/stream"
STREAM_CHUNKS = 50
STREAM_HEADERS = [(b"content-type", b"text/event-stream")]
OTEL_QUEUE_RECORDS = 1_000_000  # by default it keeps 2,048, and drops the oldest of more


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One contender, and how much it is asked to do."""

    contender: str
    scale: float
    kafka_bootstrap: str
    namespace: str
    home: str


def _chunk(delta: dict[str, Any], finish_reason: str | None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    part = {
        "id": "chatcmpl-91d2", "object": "chat.completion.chunk", "created": 1_790_000_000,
        "model": "qwen2.5-1.5b-instruct", "choices": [choice],
    }  # fmt: skip
    if usage:
        part["usage"] = usage
    return b"data: " + json.dumps(part, separators=(",", ":")).encode() + b"\n\n"


def _chunks() -> tuple[bytes, ...]:
    words = [_chunk({"content": f" word{number}"}, None) for number in range(STREAM_CHUNKS - 3)]
    usage = {"prompt_tokens": 31, "completion_tokens": len(words), "total_tokens": 31 + len(words)}
    first, last = _chunk({"role": "assistant"}, None), _chunk({}, "stop", usage)
    return (first, *words, last, b"data: [DONE]\n\n")


CHUNKS = _chunks()


class Probe:
    """Where the application notes what passing on a chunk took, and what had arrived by then."""

    def __init__(self) -> None:
        self.active = False
        self.wall_ns: list[int] = []
        self.cpu_ns: list[int] = []
        self.received: list[Message] = []


PROBE = Probe()


async def model_service(scope: Any, receive: Receive, send: Send) -> None:
    """The smallest application that reads a request and answers, at once or in chunks."""
    await receive()
    if scope["path"] == JSON_PATH:
        await send({"type": "http.response.start", "status": 200, "headers": ANSWER_HEADERS})
        await send({"type": "http.response.body", "body": ANSWER_BODY})
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    if PROBE.active:
        await _send_timed(send)
    else:
        for chunk in CHUNKS:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_timed(send: Send) -> None:
    """Time every chunk; each must have reached the server before the next is sent."""
    for number, chunk in enumerate(CHUNKS):
        message = {"type": "http.response.body", "body": chunk, "more_body": True}
        cpu = time.thread_time_ns()
        begun = time.perf_counter_ns()
        await send(message)
        PROBE.wall_ns.append(time.perf_counter_ns() - begun)
        PROBE.cpu_ns.append(time.thread_time_ns() - cpu)
        assert len(PROBE.received) == number + 2, "a chunk was held back"
        assert PROBE.received[-1]["body"] == chunk


class Contender(Protocol):
    """An application; `finish` returns once all records of so many accesses and chunks arrived."""

    app: AsgiApp

    def finish(self, accesses: int, chunks: int) -> None: ...


class Alone:
    """The application without any middleware."""

    def __init__(self, _job: Job) -> None:
        self.app: AsgiApp = model_service

    def finish(self, accesses: int, chunks: int) -> None:
        """Nothing is recorded."""


class Gatebook:
    """GatebookMiddleware in mode buffered: with spool and fsync, to Kafka."""

    def __init__(self, job: Job, level: CaptureLevel, intents: Intents) -> None:
        settings = ProducerSettings(
            kafka_bootstrap=job.kafka_bootstrap,
            namespace=job.namespace,
            home=job.home,
            producer_id=f"bench-{uuid.uuid4().hex[:8]}",
            service_name="bench",
            key_digest_secret="bench-secret-0123456789",
            delivery_mode="buffered",
            capture_level=level,
            intents=intents,
        ).check()
        self.records_each = 2 if intents == "on" else 1
        self.recorder = Recorder(settings)
        self.app: AsgiApp = GatebookMiddleware(model_service, self.recorder)

    def finish(self, accesses: int, chunks: int) -> None:
        report, counters = self.recorder.flush(FLUSH_SECONDS), self.recorder.counters()
        assert report.complete, report
        assert counters.acknowledged == accesses * self.records_each, counters
        assert (counters.dropped, counters.reduced) == ({}, {}), counters


class Watched:
    """What any middleware must note to write one record of an access."""

    def __init__(self, scope: Any, send: Send) -> None:
        self.scope = scope
        self._send = send
        self.started_ns = time.time_ns()
        self.begun = time.perf_counter_ns()
        self.status = 0
        self.parts: list[bytes] = []
        self.first_chunk_ns = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.first_chunk_ns = self.first_chunk_ns or time.perf_counter_ns() - self.begun
            self.parts.append(message["body"])
        await self._send(message)

    @property
    def duration_ns(self) -> int:
        return time.perf_counter_ns() - self.begun


class Produce:
    """One prepared event per access, encoded with fastavro and produced in the request.

    The event is there already but for its id, times, status and caller's address: headers,
    identity and bodies cost this contender nothing.
    """

    def __init__(self, job: Job) -> None:
        self.app: AsgiApp = self._app
        self._schema = load("access_event.v2").parsed
        self._event = next(events(1))
        self._topic = topic_name(job.namespace, ACCESS)
        self._delivered = 0
        self._producer = Producer(
            {
                "bootstrap.servers": job.kafka_bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
            }
        )

    async def _app(self, scope: Any, receive: Receive, send: Send) -> None:
        seen = Watched(scope, send)
        await model_service(scope, receive, seen.send)
        self._produce(self._filled(seen))

    def _filled(self, seen: Watched) -> dict[str, Any]:
        event = self._event
        taken = seen.duration_ns
        event["timestamp"] = seen.started_ns
        event["event"]["id"] = str(uuid.uuid4())
        event["event"]["duration"] = taken
        event["event"]["end"] = event["event"]["created"] = seen.started_ns + taken
        event["source"]["ip"] = seen.scope["client"][0]
        event["http"]["response"]["status_code"] = seen.status
        return event

    def _produce(self, event: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._schema, event)
        self._producer.produce(
            self._topic, value=buffer.getvalue(), key=b"bench", on_delivery=self._on_delivery
        )
        self._producer.poll(0)

    def _on_delivery(self, error: object, _message: object) -> None:
        self._delivered += error is None

    def finish(self, accesses: int, chunks: int) -> None:
        self._producer.flush(FLUSH_SECONDS)
        assert self._delivered == accesses, (self._delivered, accesses)


class Receiver:
    """A local OTLP receiver in a process of its own (see otlp_receiver)."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.otlp_receiver"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def records(self) -> int:
        """Log records that arrived."""
        return int(httpx.get(self.url, trust_env=False, timeout=FLUSH_SECONDS).text)


class OpenTelemetry:
    """One log record per access through OpenTelemetry, set up as its documentation does: a
    LoggerProvider, a BatchLogRecordProcessor with its defaults, and the OTLP exporter over HTTP to
    a receiver on this machine. But for the queue: a full one drops records by default.

    `reads_bodies`: with the attributes of GenAI (model, tokens, finish reason) as well, read in
    the request, where OpenTelemetry's instrumentations read them.
    """

    def __init__(self, _job: Job, reads_bodies: bool) -> None:
        self.app: AsgiApp = self._app
        self._reads_bodies = reads_bodies
        self._receiver = Receiver()
        exporter = OTLPLogExporter(endpoint=f"{self._receiver.url}/v1/logs")
        self._provider = LoggerProvider(Resource.create({"service.name": "bench"}))
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(exporter, max_queue_size=OTEL_QUEUE_RECORDS)
        )
        self._logger = self._provider.get_logger("bench")

    async def _app(self, scope: Any, receive: Receive, send: Send) -> None:
        seen = Watched(scope, send)
        request: list[bytes] = []

        async def listen() -> Message:
            message = await receive()
            request.append(message.get("body", b""))
            return message

        await model_service(scope, listen, seen.send)
        attributes = _http_attributes(seen)
        if self._reads_bodies:
            attributes |= _genai_attributes(b"".join(request), seen.parts)
        self._logger.emit(
            timestamp=seen.started_ns,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            event_name="gen_ai.client.inference.operation.details",
            attributes=attributes,
        )

    def finish(self, accesses: int, chunks: int) -> None:
        assert self._provider.force_flush(int(FLUSH_SECONDS * 1000))
        found = self._receiver.records()
        assert found == accesses, (found, accesses)


def _http_attributes(seen: Watched) -> dict[str, Any]:
    headers = {name.decode("latin-1"): value for name, value in seen.scope["headers"]}
    return {
        "http.request.method": seen.scope["method"],
        "url.path": seen.scope["path"],
        "server.address": headers["host"].decode("latin-1"),
        "user_agent.original": headers["user-agent"].decode("latin-1"),
        "http.request.header.x-request-id": headers["x-request-id"].decode("latin-1"),
        "client.address": seen.scope["client"][0],
        "client.port": seen.scope["client"][1],
        "http.response.status_code": seen.status,
        "http.response.body.size": sum(map(len, seen.parts)),
        "chunks": len(seen.parts),
        "time_to_first_chunk_ns": seen.first_chunk_ns,
        "duration_ns": seen.duration_ns,
    }


def _genai_attributes(request: bytes, parts: list[bytes]) -> dict[str, Any]:
    asked = json.loads(request)
    answers = [json.loads(part.removeprefix(b"data: ")) for part in parts if b"[DONE]" not in part]
    last = answers[-1]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": asked["model"],
        "gen_ai.request.max_tokens": asked["max_tokens"],
        "gen_ai.request.temperature": asked["temperature"],
        "gen_ai.response.id": last["id"],
        "gen_ai.response.model": last["model"],
        "gen_ai.response.finish_reasons": [last["choices"][0]["finish_reason"]],
        "gen_ai.usage.input_tokens": last["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": last["usage"]["completion_tokens"],
    }


class Awaited:
    """A callback as LiteLLM's: awaited in the request for every access and for every chunk, it
    writes JSON and awaits that Kafka has it."""

    def __init__(self, job: Job) -> None:
        self.app: AsgiApp = self._app
        self._topic = topic_name(job.namespace, ACCESS)
        self._delivered = 0
        self._producer = Producer(
            {"bootstrap.servers": job.kafka_bootstrap, "acks": "all", "linger.ms": 0}
        )
        threading.Thread(target=self._serve, name="delivery-reports", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._producer.poll(0.5)

    async def _app(self, scope: Any, receive: Receive, send: Send) -> None:
        async def send_after_callback(message: Message) -> None:
            if message.get("body") and scope["path"] == STREAM_PATH:
                await self._callback({"event": "chunk", "chunk": message["body"].decode()})
            await send(message)

        seen = Watched(scope, send_after_callback)
        await model_service(scope, receive, seen.send)
        await self._callback({"event": "success", **_http_attributes(seen)})

    async def _callback(self, payload: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def on_delivery(error: object, _message: object) -> None:
            assert error is None, error
            loop.call_soon_threadsafe(done.set_result, None)

        self._producer.produce(
            self._topic, value=json.dumps(payload).encode(), on_delivery=on_delivery
        )
        await done
        self._delivered += 1

    def finish(self, accesses: int, chunks: int) -> None:
        assert self._delivered == accesses + chunks, (self._delivered, accesses, chunks)


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "alone": Alone,
    "metadata": lambda job: Gatebook(job, "metadata", "off"),
    "redacted": lambda job: Gatebook(job, "redacted", "off"),
    "metadata+intents": lambda job: Gatebook(job, "metadata", "on"),
    "redacted+intents": lambda job: Gatebook(job, "redacted", "on"),
    "produce": Produce,
    "otel_http": lambda job: OpenTelemetry(job, reads_bodies=False),
    "otel_genai": lambda job: OpenTelemetry(job, reads_bodies=True),
    "awaited": Awaited,
}


def scope_of(number: int, path: str) -> dict[str, Any]:
    """An ASGI scope of request `number`."""
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": REQUEST_HEADERS,
        "client": (f"10.20.4.{number % 200}", 40_000 + number % 20_000),
        "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn's
    }
