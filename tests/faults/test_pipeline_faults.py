"""SIGKILL of every component under load, on real engines: nothing lost, nothing twice.

The promise: acknowledged means a delivery report with acks=all or an fsynced spool record; indexed
+ dead-lettered + counted drops = emitted, exactly, with no id twice. One broker proves recovery
from a crash, not from the loss of a replica.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.pipeline import KILL, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.schemas.codec import open_frame
from gatebook.schemas.topics import ACCESS

RATE = 400
SECONDS = 12.0
SETTLE_SECONDS = 150.0


class Load:
    """A service that emits events in a process of its own."""

    def __init__(self, pipeline: Pipeline, seconds: float = SECONDS, rate: int = RATE) -> None:
        environment = pipeline.environment(GATEBOOK_PRODUCER_ID="load")
        command = [sys.executable, "-m", "tests.faults.load_service", str(rate), str(seconds)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def counters(self) -> dict[str, int]:
        """Wait for the end; what the service counted."""
        output, _ = self.process.communicate(timeout=SECONDS + SETTLE_SECONDS)
        found: dict[str, int] = json.loads(output.splitlines()[-1])
        return found


def settle(pipeline: Pipeline, emitted: int, dropped: int) -> None:
    """Wait for the sum, then hold the account: exactly emitted, each id once."""

    def accounted() -> int:
        letters = pipeline.documents("deadletter") if pipeline.indexed("deadletter") else []
        dead = sum(letter["gatebook"]["count"] for letter in letters)
        return pipeline.indexed() + dead + dropped

    wait_until(f"{emitted} events accounted for", lambda: accounted() >= emitted, SETTLE_SECONDS)
    assert accounted() == emitted
    ids = [d["event"]["id"] for d in pipeline.documents()]
    assert len(ids) == len(set(ids))


def numbers(pipeline: Pipeline) -> dict[tuple[str, int], list[int]]:
    """The sequence numbers in the index, sorted, per producer run."""
    runs: dict[tuple[str, int], list[int]] = {}
    for document in pipeline.documents():
        ours: dict[str, Any] = document["gatebook"]
        runs.setdefault((ours["producer_id"], ours["epoch"]), []).append(ours["sequence"])
    return {run: sorted(found) for run, found in runs.items()}


def test_a_killed_worker_loses_and_doubles_nothing(pipeline: Pipeline) -> None:
    """The workers of each role are killed twice under load and replaced."""
    roles = ("intake", "index", "detect")
    workers = pipeline.start(*roles)
    load = Load(pipeline)
    for round_number in (1, 2):
        pipeline.wait_indexed(300 * round_number)
        for worker in workers:
            pipeline.kill(worker)
        workers = pipeline.start(*roles)
    counters = load.counters()
    settle(pipeline, counters["emitted"], counters["dropped"])
    assert counters["dropped"] == 0
    assert all(found == list(range(len(found))) for found in numbers(pipeline).values())


def test_a_killed_broker_loses_and_doubles_nothing(engines: Any, pipeline: Pipeline) -> None:
    """Kafka is killed under load and comes back; producers spool, workers wait."""
    pipeline.start("intake", "index")
    load = Load(pipeline)
    pipeline.wait_indexed(200)
    engines.kill_kafka()
    engines.start_kafka()
    counters = load.counters()
    settle(pipeline, counters["emitted"], counters["dropped"])
    assert counters["dropped"] == 0


def test_a_killed_elasticsearch_loses_and_doubles_nothing(engines: Any, pipeline: Pipeline) -> None:
    """Elasticsearch is killed in the middle of bulk requests and comes back."""
    pipeline.start("intake", "index")
    load = Load(pipeline)
    pipeline.wait_indexed(200)
    engines.kill_elasticsearch()
    engines.start_elasticsearch()
    counters = load.counters()
    settle(pipeline, counters["emitted"], counters["dropped"])
    assert pipeline.indexed("deadletter") == 0


def test_a_killed_service_loses_nothing_it_had_spooled(pipeline: Pipeline) -> None:
    """The service is killed under load; its successor publishes what the dead one had spooled.
    Every number of the dead run from 0 to the highest is indexed, none twice."""
    pipeline.start("intake", "index")
    first = Load(pipeline, seconds=60)
    pipeline.wait_indexed(200)
    first.process.kill()
    first.process.wait()
    counters = Load(pipeline, seconds=2).counters()
    wait_until(
        "both runs",
        lambda: pipeline.indexed() >= 200 and len(numbers(pipeline)) == 2,
        SETTLE_SECONDS,
    )
    assert counters["dropped"] == 0
    settle(pipeline, len(on_the_topic(pipeline)), 0)
    for found in numbers(pipeline).values():
        assert found == list(range(len(found)))


def on_the_topic(pipeline: Pipeline) -> set[tuple[int, int]]:
    """Epoch and number of every event that producers have sent, once each."""
    headers = [open_frame(message.value() or b"").header for message in pipeline.messages(ACCESS)]
    return {(h.epoch, h.first_sequence + n) for h in headers for n in range(h.count)}


def test_a_slow_first_message_is_not_committed_past(pipeline: Pipeline) -> None:
    """faust-streaming #606: the first message waits for its delivery while later ones stand
    behind it. The worker is killed in that state; its successor still delivers the first."""
    (index,) = pipeline.start("intake", "index")[1:]
    pipeline.wait_members("index", 1)
    pipeline.http.put("/_cluster/settings", json=READ_ONLY).raise_for_status()
    try:
        events = [make_event() for _ in range(30)]
        for event in events:
            pipeline.publish([event])
        wait_until("documents behind a blocked index", lambda: waiting(pipeline) >= 30)
        assert pipeline.committed("index") == 0
        pipeline.kill(index, KILL)
    finally:
        pipeline.http.put("/_cluster/settings", json=WRITABLE).raise_for_status()
    pipeline.start("index")
    pipeline.wait_indexed(30)
    assert {d["event"]["id"] for d in pipeline.documents()} == {e["event"]["id"] for e in events}


READ_ONLY = {"persistent": {"cluster.blocks.read_only_allow_delete": True}}
WRITABLE = {"persistent": {"cluster.blocks.read_only_allow_delete": None}}


def waiting(pipeline: Pipeline) -> int:
    """Messages in the event topic."""
    return pipeline.end("event.v1")
