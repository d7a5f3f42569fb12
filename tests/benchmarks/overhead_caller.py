"""One contender of the overhead benchmark, in a process of its own.

Started with a job as JSON; prints what every phase took. Ends with an error where a record is
missing or an answer was changed on its way.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from tests.benchmarks.caller import ANSWER_BODY, REQUEST_BODY
from tests.benchmarks.overhead_apps import (
    CHUNKS,
    CONTENDERS,
    JSON_PATH,
    PROBE,
    STREAM_CHUNKS,
    STREAM_PATH,
    AsgiApp,
    Job,
    scope_of,
)
from tests.benchmarks.report import percentile

WARM_UP_REQUESTS = 100


class Phase(NamedTuple):
    """So many requests for `path`; `rate_per_second` 0 means one after the other."""

    name: str
    path: str
    rate_per_second: int
    requests: int


PHASES = (
    Phase("JSON at 500/s", JSON_PATH, 500, 2_000),
    Phase("JSON flat out", JSON_PATH, 0, 4_000),
    Phase("stream at 50/s", STREAM_PATH, 50, 200),
    Phase("stream flat out", STREAM_PATH, 0, 600),
)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of one phase. `cpu_p50`: of the event loop's thread, a request;
    `process_cpu`: of all threads a request, until every record arrived; `chunk_*`: of passing on
    one chunk, 0 where nothing streams."""

    p50: float
    p99: float
    cpu_p50: float
    process_cpu: float
    chunk_p50: float = 0.0
    chunk_p99: float = 0.0
    chunk_cpu_p50: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Readings by phase, and what was asked for in all."""

    readings: dict[str, Reading]
    accesses: int
    chunks: int


class Times:
    """Nanoseconds of every request that was timed as a whole."""

    def __init__(self) -> None:
        self.wall_ns: list[int] = []
        self.cpu_ns: list[int] = []


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": REQUEST_BODY, "more_body": False}


async def _send(message: Any) -> None:
    PROBE.received.append(message)


async def _request(app: AsgiApp, number: int, path: str, times: Times) -> None:
    """One request. Of streams, every other is timed chunk by chunk instead of as a whole."""
    PROBE.received.clear()
    PROBE.active = path == STREAM_PATH and number % 2 == 1
    scope = scope_of(number, path)
    cpu = time.thread_time_ns()
    begun = time.perf_counter_ns()
    await app(scope, _receive, _send)
    wall = time.perf_counter_ns() - begun
    if not PROBE.active:
        times.wall_ns.append(wall)
        times.cpu_ns.append(time.thread_time_ns() - cpu)
    _check_answer(path, PROBE.received)


def _check_answer(path: str, received: Sequence[Any]) -> None:
    """Every message came, unchanged and in its place."""
    bodies = [m["body"] for m in received[1:]]
    expected = [*CHUNKS, b""] if path == STREAM_PATH else [ANSWER_BODY]
    assert received[0]["status"] == 200
    assert bodies == expected, "an answer was changed"
    assert [m.get("more_body", False) for m in received[1:]] == [True] * (len(bodies) - 1) + [False]


async def _all(app: AsgiApp, phase: Phase, requests: int) -> Times:
    times = Times()
    start = time.perf_counter() + 0.01
    for number in range(requests):
        if phase.rate_per_second:
            due = start + number / phase.rate_per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))  # waits: for the next request
        await _request(app, number, phase.path, times)
    return times


def measure(job: Job) -> Outcome:
    """Warm up, then phase by phase: request, wait until all arrived."""
    contender = CONTENDERS[job.contender](job)
    readings: dict[str, Reading] = {}
    accesses = chunks = 0
    for phase, requests, timed in _runs(job.scale):
        PROBE.wall_ns, PROBE.cpu_ns = [], []
        accesses += requests
        chunks += requests * STREAM_CHUNKS if phase.path == STREAM_PATH else 0
        cpu = time.process_time()
        times = asyncio.run(_all(contender.app, phase, requests))
        contender.finish(accesses, chunks)
        cpu = time.process_time() - cpu
        if timed:
            readings[phase.name] = _reading(times, cpu / requests * 1e6)
    return Outcome(readings=readings, accesses=accesses, chunks=chunks)


def _runs(scale: float) -> Iterator[tuple[Phase, int, bool]]:
    for path, requests in ((JSON_PATH, WARM_UP_REQUESTS), (STREAM_PATH, WARM_UP_REQUESTS // 10)):
        yield Phase("warm-up", path, 0, requests), requests, False
    for phase in PHASES:
        yield phase, max(20, int(phase.requests * scale)), True


def _reading(times: Times, process_cpu: float) -> Reading:
    chunk: dict[str, float] = {}
    if PROBE.wall_ns:
        chunk = {
            "chunk_p50": percentile(PROBE.wall_ns, 0.50) / 1e3,
            "chunk_p99": percentile(PROBE.wall_ns, 0.99) / 1e3,
            "chunk_cpu_p50": percentile(PROBE.cpu_ns, 0.50) / 1e3,
        }
    return Reading(
        p50=percentile(times.wall_ns, 0.50) / 1e3,
        p99=percentile(times.wall_ns, 0.99) / 1e3,
        cpu_p50=percentile(times.cpu_ns, 0.50) / 1e3,
        process_cpu=process_cpu,
        **chunk,
    )


if __name__ == "__main__":
    outcome = measure(msgspec.json.decode(sys.argv[1], type=Job))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
