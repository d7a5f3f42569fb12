"""The service of the outage benchmark, in a process of its own: an ASGI application within the
middleware, under steady load, that says how it is once a second.

Started with a job as JSON. Load ends with the first byte on stdin; the last line is said once
everything is acknowledged or counted as lost, and the recorder is closed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import msgspec
import psutil
from tests.benchmarks.caller import ANSWER_BODY, ANSWER_HEADERS, REQUEST_BODY, REQUEST_HEADERS
from tests.benchmarks.report import percentile

from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder

TICK_SECONDS = 0.01
SAMPLE_SECONDS = 1.0
DRAIN_SECONDS = 900.0
# What users say is long; the example's few words would make an outage cheaper than it is.
WORDS = "Where can I see when my order will be delivered, please? " * 8
REQUEST = REQUEST_BODY.replace(b"Where can I see", WORDS.encode() + b"Where can I see")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to do; buffers as the settings of the same names."""

    kafka_bootstrap: str
    namespace: str
    home: str
    rate_per_second: int
    spool_max_bytes: int
    memory_buffer_max_bytes: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the service. Latencies in microseconds; counts are totals so far."""

    at_seconds: float
    rss_bytes: int
    p50: float
    p99: float
    emitted: int
    acknowledged: int
    dropped: dict[str, int]
    reduced: dict[str, int]
    steps_entered: dict[str, int]
    spool_bytes: int
    queued_bytes: int
    closed: bool = False


async def model_service(_scope: Any, receive: Any, send: Any) -> None:
    """The smallest application that reads a request and answers."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": ANSWER_HEADERS})
    await send({"type": "http.response.body", "body": ANSWER_BODY})


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": REQUEST, "more_body": False}


async def _send(_message: Any) -> None:
    return None


def _scope(number: int) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [*REQUEST_HEADERS[:-1], (b"x-request-id", b"req-%d" % number)],
        "client": (f"10.20.4.{number % 200}", 40_000 + number % 20_000),
    }


class Service:
    """The application, its recorder, and what it says of itself."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.recorder = Recorder(_settings(job))
        self.app = GatebookMiddleware(model_service, self.recorder)
        self._process = psutil.Process()
        self._began = time.perf_counter()
        self._took_ns: list[int] = []
        self._said_at = 0.0

    async def load(self, ended: asyncio.Event) -> None:
        """Requests at the rate, in ticks; a late tick makes up for what it missed."""
        sent = 0
        for tick in itertools.count(1):
            if ended.is_set():
                return
            due = self._began + tick * TICK_SECONDS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))  # waits: for the next tick
            while sent < tick * TICK_SECONDS * self.job.rate_per_second:
                await self._request(sent)
                sent += 1
            if time.perf_counter() - self._said_at >= SAMPLE_SECONDS:
                self.say()

    async def _request(self, number: int) -> None:
        begun = time.perf_counter_ns()
        await self.app(_scope(number), _receive, _send)
        self._took_ns.append(time.perf_counter_ns() - begun)

    def say(self, closed: bool = False) -> None:
        """One line."""
        took, self._took_ns = self._took_ns or [0], []
        counters = self.recorder.counters()
        sample = Sample(
            at_seconds=time.perf_counter() - self._began,
            rss_bytes=self._process.memory_info().rss,
            p50=percentile(took, 0.50) / 1e3,
            p99=percentile(took, 0.99) / 1e3,
            emitted=counters.emitted,
            acknowledged=counters.acknowledged,
            dropped=dict(counters.dropped),
            reduced=dict(counters.reduced),
            steps_entered=dict(counters.steps_entered),
            spool_bytes=counters.spool_bytes,
            queued_bytes=counters.queued_bytes,
            closed=closed,
        )
        sys.stdout.write(msgspec.json.encode(sample).decode() + "\n")
        sys.stdout.flush()
        self._said_at = time.perf_counter()


def _settings(job: Job) -> ProducerSettings:
    """As a service that captures content has them, but for the places and sizes."""
    return ProducerSettings(
        kafka_bootstrap=job.kafka_bootstrap,
        namespace=job.namespace,
        home=job.home,
        producer_id="outage",
        service_name="bench",
        key_digest_secret="bench-secret-0123456789",
        capture_level="redacted",
        spool_max_bytes=job.spool_max_bytes,
        memory_buffer_max_bytes=job.memory_buffer_max_bytes,
    ).check()


async def run(service: Service) -> None:
    """Load until stdin says to end."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await service.load(ended)


def main() -> None:
    """The whole life of the service."""
    service = Service(msgspec.convert(json.loads(sys.argv[1]), Job))
    asyncio.run(run(service))
    service.recorder.close(DRAIN_SECONDS)
    service.say(closed=True)


if __name__ == "__main__":
    main()
