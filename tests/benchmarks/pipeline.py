"""From Kafka to the index: the intake and index workers against a plain loop.

Contenders are running and warm, then they are suspended while the topic is filled: what is timed
begins with a full topic and ends when the last event is indexed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import psutil
from confluent_kafka import Producer
from tests.benchmarks.context import Context, create_index, drop_indices
from tests.benchmarks.events import encoded_events, frames
from tests.benchmarks.plain_loop import Task
from tests.benchmarks.report import SPEED, Figure, compare, interleaved, plain
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.schemas.documents import day_text
from gatebook.schemas.topics import ACCESS, EVENT, topic_name

BENCH = "pipeline"
PARTITIONS = 4
WARM_UP_EVENTS = 1_000
TIMEOUT_SECONDS = 600.0
PLAIN = "consumer + fastavro + streaming_bulk"
# Suspended workers send no heartbeats, and look stalled when they go on.
PATIENT = {"GATEBOOK_SESSION_TIMEOUT_SECONDS": "300", "GATEBOOK_STALL_SECONDS": "3600"}
ROLES = ("intake", "index", "detect")


@dataclass(frozen=True)
class Round:
    """What one contender did: events a second, and CPU microseconds an event by process."""

    events_per_second: float
    cpu: Mapping[str, float]

    @property
    def indexing_cpu(self) -> float:
        """Of all processes that it takes from Kafka to the index."""
        return sum(value for name, value in self.cpu.items() if name != "detect")


def run(context: Context) -> list[Figure]:
    """Throughput and CPU of both, and where ours goes."""
    events = encoded_events(context.events)
    warm_up = encoded_events(WARM_UP_EVENTS)
    found = interleaved(
        context.rounds,
        {
            "gatebook": partial(_our_round, context, events, warm_up),
            "plain": partial(_plain_round, context, events, warm_up),
        },
    )
    ours, theirs = found["gatebook"], found["plain"]
    rates = [r.events_per_second for r in ours], [r.events_per_second for r in theirs]
    costs = [r.indexing_cpu for r in ours], [r.indexing_cpu for r in theirs]
    return [
        compare(BENCH, "Kafka to index", "events/s", *rates, PLAIN, SPEED),
        compare(BENCH, "Kafka to index: client CPU an event", "us", *costs, PLAIN),
        *(plain(BENCH, f"CPU an event: {n}", "us", [r.cpu[n] for r in ours]) for n in ROLES),
    ]


def _our_round(context: Context, events: Sequence[bytes], warm_up: Sequence[bytes]) -> Round:
    with _place(context) as place:
        workers = dict(zip(ROLES, place.start(*ROLES, **PATIENT), strict=True))
        processes = {name: psutil.Process(worker.pid) for name, worker in workers.items()}
        _produce(place, [*frames(list(warm_up))])
        place.wait_indexed(len(warm_up))
        wait_until(
            "detect to be warm", lambda: place.committed("detect", EVENT) == place.end(EVENT), 60
        )
        _suspend(processes)
        _produce(place, [*frames(list(events))])
        indexing = {name: processes[name] for name in ("intake", "index")}
        done = _timed(place, indexing, len(warm_up), len(events))
        _suspend(indexing)
        detecting = _detected(place, processes["detect"]) / len(events)
        _check(place, len(warm_up) + len(events))
    return Round(done.events_per_second, {**done.cpu, "detect": detecting})


def _plain_round(context: Context, events: Sequence[bytes], warm_up: Sequence[bytes]) -> Round:
    with _place(context) as place:
        task = Task(
            kafka_bootstrap=context.engines.kafka_bootstrap,
            elasticsearch_url=context.engines.elasticsearch_url,
            topic=topic_name(place.namespace, ACCESS),
            index=f"{place.namespace}-access-{day_text(time.time_ns())}",
        )
        create_index(place, task.index)
        command = [sys.executable, "-m", "tests.benchmarks.plain_loop"]
        with (place.home / "plain.log").open("wb") as log:
            child = subprocess.Popen(
                [*command, msgspec.json.encode(task).decode()], stdout=log, stderr=log
            )
        place.workers.append(child)
        _produce(place, warm_up)
        place.wait_indexed(len(warm_up))
        processes = {"plain": psutil.Process(child.pid)}
        _suspend(processes)
        _produce(place, events)
        done = _timed(place, processes, len(warm_up), len(events))
        _check(place, len(warm_up) + len(events))
    return done


@contextmanager
def _place(context: Context) -> Iterator[Pipeline]:
    """A namespace of its own; what runs in it is ended, what it indexed deleted."""
    place = context.pipeline()
    try:
        yield place
    except AssertionError as error:
        error.add_note(place.logs()[-4000:])
        raise
    finally:
        drop_indices(place)
        place.close()


def _produce(place: Pipeline, messages: Sequence[bytes]) -> None:
    """Fill the access topic evenly; returns when the broker has all."""
    failed: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": place.engines.kafka_bootstrap,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    topic = topic_name(place.namespace, ACCESS)
    for number, message in enumerate(messages):
        producer.produce(
            topic,
            value=message,
            partition=number % PARTITIONS,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(120) == 0
    assert not failed, failed[0]


def _suspend(processes: Mapping[str, psutil.Process]) -> None:
    for process in processes.values():
        process.suspend()


def _cpu_microseconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1e6


def _timed(
    place: Pipeline, processes: Mapping[str, psutil.Process], before: int, count: int
) -> Round:
    """Let the processes go on until `count` more documents are indexed."""
    cpu = {name: -_cpu_microseconds(process) for name, process in processes.items()}
    begun = time.monotonic()
    for process in processes.values():
        process.resume()
    wait_until("all events indexed", lambda: _stored(place) >= before + count, TIMEOUT_SECONDS)
    seconds = time.monotonic() - begun
    for name, process in processes.items():
        cpu[name] += _cpu_microseconds(process)
    return Round(count / seconds, {name: used / count for name, used in cpu.items()})


def _stored(place: Pipeline) -> int:
    """Documents the shards took, searchable or not: asking does not make them refresh."""
    answer = place.http.get(f"/{place.namespace}-access-*/_stats/indexing")
    if answer.status_code != 200:
        return 0
    return int(answer.json()["_all"]["primaries"]["indexing"]["index_total"])


def _detected(place: Pipeline, process: psutil.Process) -> float:
    """CPU microseconds of the detect worker for all that waits in the event topic."""
    used = -_cpu_microseconds(process)
    process.resume()
    end = place.end(EVENT)
    wait_until(
        "all events detected", lambda: place.committed("detect", EVENT) == end, TIMEOUT_SECONDS
    )
    return used + _cpu_microseconds(process)


def _check(place: Pipeline, expected: int) -> None:
    """Every event is in the index, once, and none in the dead letters."""
    assert place.indexed() == expected, (place.indexed(), expected)
    assert place.indexed("deadletter") == 0
