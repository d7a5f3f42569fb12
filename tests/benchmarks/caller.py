"""One contender at the call site, in a process of its own, so that its threads disturb no other.

Started with a job as JSON; prints what every call took. Ends with an error where an event was not
acknowledged.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import fastavro
import msgspec
from confluent_kafka import Producer
from tests.benchmarks.events import events
from tests.benchmarks.report import percentile

from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft
from gatebook.producers.recorder import Draft, Recorder
from gatebook.producers.tape import Tape
from gatebook.schemas.registry import load
from gatebook.schemas.topics import ACCESS, topic_name

WARM_UP_CALLS = 300
FLUSH_SECONDS = 60.0
REQUEST_BODY = (
    b'{"model":"assistant-small","max_tokens":256,"temperature":0.2,"messages":['
    b'{"role":"system","content":"You are a helpful assistant of the support team."},'
    b'{"role":"user","content":"Where can I see when my order will be delivered, please?"}]}'
)
ANSWER_BODY = (
    b'{"id":"chatcmpl-91d2","object":"chat.completion","model":"qwen2.5-1.5b-instruct","choices":['
    b'{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"You find the day '
    b'of delivery on the page of the order, below the address."}}],'
    b'"usage":{"prompt_tokens":31,"completion_tokens":17,"total_tokens":48}}'
)
REQUEST_HEADERS = [
    (b"host", b"models.acme.example"),
    (b"user-agent", b"OpenAI/Python 2.9.0"),
    (b"authorization", b"Bearer sk-bench-0123456789abcdef"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"x-request-id", b"req-7c1f"),
]
ANSWER_HEADERS = [(b"content-type", b"application/json")]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to call and how often; `rate_per_second` 0 means as fast as it goes."""

    contender: str
    rate_per_second: int
    calls: int
    kafka_bootstrap: str
    namespace: str
    home: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds a call at the call site; `late`: how much later than planned a paced caller
    got to run; `cpu`: of the whole process a call, until all was acknowledged."""

    p50: float
    p99: float
    late_p99: float
    cpu: float
    calls_with_warm_up: int


class Contender(Protocol):
    """Takes items one by one; `finish` returns once all are acknowledged, or raises."""

    def items(self, count: int) -> Sequence[Any]: ...

    def call(self, item: Any) -> object: ...

    def finish(self, expected: int) -> None: ...


class Bare:
    """What somebody would write without us: encode, produce, serve reports."""

    def __init__(self, job: Job) -> None:
        self._schema = load("access_event.v2").parsed
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

    def items(self, count: int) -> Sequence[Any]:
        return list(events(count))

    def call(self, event: Any) -> object:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._schema, event)
        self._producer.produce(
            self._topic, value=buffer.getvalue(), key=b"bench", on_delivery=self._on_delivery
        )
        self._producer.poll(0)
        return None

    def _on_delivery(self, error: object, _message: object) -> None:
        self._delivered += error is None

    def finish(self, expected: int) -> None:
        self._producer.flush(FLUSH_SECONDS)
        assert self._delivered == expected, (self._delivered, expected)


class Emit:
    """Recorder.emit of an event as a dict; buffered mode, the default, with its spool."""

    def __init__(self, job: Job) -> None:
        self.settings = _settings(job)
        self.recorder = Recorder(self.settings)

    def items(self, count: int) -> Sequence[Any]:
        return list(events(count))

    def call(self, event: Any) -> object:
        return self.recorder.emit(event)

    def finish(self, expected: int) -> None:
        report = self.recorder.flush(FLUSH_SECONDS)
        counters = self.recorder.counters()
        assert report.complete, report
        assert (counters.acknowledged, counters.dropped) == (expected, {}), counters


class EmitDraft(Emit):
    """Recorder.emit of what the middleware hands over."""

    def items(self, count: int) -> Sequence[Any]:
        return [self._draft() for _ in range(count)]

    def _draft(self) -> AccessDraft:
        request, answer = Tape(self.settings.body_max_bytes), Tape(self.settings.body_max_bytes)
        request.add(REQUEST_BODY)
        answer.add(ANSWER_BODY)
        return AccessDraft(
            settings=self.settings, content_key=b"bench-key-0123456789", started_ns=time.time_ns(),
            method="POST", path="/v1/chat/completions", headers={"user-agent": "OpenAI/Python 2"},
            source_ip="10.20.4.17", request=request, answer=answer, status=200,
            answer_headers={"content-type": "application/json"}, duration_ns=400_000_000,
            sent_all=True,
        )  # fmt: skip


def _settings(job: Job) -> ProducerSettings:
    return ProducerSettings(
        kafka_bootstrap=job.kafka_bootstrap,
        namespace=job.namespace,
        home=job.home,
        producer_id=f"bench-{uuid.uuid4().hex[:8]}",
        service_name="bench",
        key_digest_secret="bench-secret-0123456789",
    ).check()


class _InlineRecorder:
    """Stands where the recorder does, and does everything within the request."""

    def __init__(self, job: Job) -> None:
        self.settings = _settings(job)
        self.bare = Bare(job)

    def emit_draft(self, draft: Draft) -> None:
        event = dict(draft.build())
        event["event"] |= {"id": str(uuid.uuid4()), "created": time.time_ns()}
        self.bare.call({**event, "service": {"name": "bench"}})


async def model_service(
    _scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The smallest application that reads a request and answers."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": ANSWER_HEADERS})
    await send({"type": "http.response.body", "body": ANSWER_BODY})


class App:
    """The application alone."""

    def __init__(self, _job: Job) -> None:
        self.app: Any = model_service

    def items(self, count: int) -> Sequence[Any]:
        return [_scope(number) for number in range(count)]

    def call(self, scope: Any) -> object:
        return self.app(scope, _receive, _send)

    def finish(self, expected: int) -> None:
        """Nothing is recorded."""


class Wrapped(App):
    """The application within the middleware."""

    def __init__(self, job: Job) -> None:
        self.emit = Emit(job)
        self.app = GatebookMiddleware(model_service, self.emit.recorder)

    def finish(self, expected: int) -> None:
        self.emit.finish(expected)


class Inline(App):
    """The application within a middleware that builds, encodes and produces in the request."""

    def __init__(self, job: Job) -> None:
        self.recorder = _InlineRecorder(job)
        self.app = GatebookMiddleware(model_service, cast(Recorder, self.recorder))

    def finish(self, expected: int) -> None:
        self.recorder.bare.finish(expected)


def _scope(number: int) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": REQUEST_HEADERS,
        "client": (f"10.20.4.{number % 200}", 40_000 + number % 20_000),
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": REQUEST_BODY, "more_body": False}


async def _send(_message: Any) -> None:
    return None


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "bare": Bare,
    "emit": Emit,
    "emit_draft": EmitDraft,
    "app": App,
    "app_gatebook": Wrapped,
    "app_inline": Inline,
}


class Times:
    """Nanoseconds of calls, and of waiting longer than planned."""

    def __init__(self, rate_per_second: int) -> None:
        self.took: list[int] = []
        self.late: list[float] = []
        self._rate = rate_per_second
        self._start = time.perf_counter() + 0.01

    def wait_seconds(self, number: int) -> float:
        """How long until call `number` is due; 0 without a rate."""
        if not self._rate:
            return 0.0
        return max(0.0, self._start + number / self._rate - time.perf_counter())

    def awake(self, number: int) -> None:
        """The caller runs, for call `number`."""
        if self._rate:
            self.late.append(time.perf_counter() - self._start - number / self._rate)


def call_all(contender: Contender, items: Sequence[Any], rate_per_second: int) -> Times:
    """Call from a thread, as a synchronous service does."""
    times = Times(rate_per_second)
    for number, item in enumerate(items):
        if wait := times.wait_seconds(number):
            time.sleep(wait)  # waits: for the moment the next request comes
        times.awake(number)
        begun = time.perf_counter_ns()
        contender.call(item)
        times.took.append(time.perf_counter_ns() - begun)
    return times


async def call_all_async(contender: App, items: Sequence[Any], rate_per_second: int) -> Times:
    """Call on an event loop, as an ASGI server does."""
    times = Times(rate_per_second)
    for number, item in enumerate(items):
        await asyncio.sleep(times.wait_seconds(number))  # waits: for the next request
        times.awake(number)
        begun = time.perf_counter_ns()
        await cast(Awaitable[None], contender.call(item))
        times.took.append(time.perf_counter_ns() - begun)
    return times


def measure(job: Job) -> Outcome:
    """Warm up, call, wait until everything is acknowledged."""
    contender = CONTENDERS[job.contender](job)
    items = contender.items(job.calls + WARM_UP_CALLS)
    _run(contender, items[:WARM_UP_CALLS], 0)
    contender.finish(WARM_UP_CALLS)
    cpu = time.process_time()
    times = _run(contender, items[WARM_UP_CALLS:], job.rate_per_second)
    contender.finish(len(items))
    cpu = time.process_time() - cpu
    return Outcome(
        p50=percentile(times.took, 0.50) / 1e3,
        p99=percentile(times.took, 0.99) / 1e3,
        late_p99=percentile(times.late, 0.99) * 1e6 if times.late else 0.0,
        cpu=cpu / job.calls * 1e6,
        calls_with_warm_up=len(items),
    )


def _run(contender: Contender, items: Sequence[Any], rate_per_second: int) -> Times:
    if isinstance(contender, App):
        return asyncio.run(call_all_async(contender, items, rate_per_second))
    return call_all(contender, items, rate_per_second)


if __name__ == "__main__":
    outcome = measure(msgspec.json.decode(sys.argv[1], type=Job))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
