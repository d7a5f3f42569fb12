"""A service that is killed in the middle of a request, on real engines: the request is not lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from tests.pipeline import TERM, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.processors.config import WorkerSettings
from gatebook.processors.reconcile import Found, Reconciler
from gatebook.processors.search import service
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.schemas.intents import intent_id, terminal_id
from gatebook.schemas.wire import SingleObject

AFTER_SECONDS = 2.0


@contextmanager
def hanging_service(pipeline: Pipeline) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A service in a process of its own, and its address."""
    (port,) = free_ports(1)
    environment = pipeline.environment(
        GATEBOOK_PRODUCER_ID="hanging", GATEBOOK_INTENTS="on", GATEBOOK_LINGER_SECONDS="0"
    )
    command = [sys.executable, "-m", "tests.faults.hanging_service", str(port)]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/v1/models", timeout=60, trust_env=False).status_code == 200
    return False


def hang_on(url: str) -> None:
    """A caller that is cut off."""
    with suppress(httpx.TransportError):
        httpx.post(f"{url}/v1/chat/completions", json={"model": "slm"}, timeout=60, trust_env=False)


def run_reconciler(pipeline: Pipeline, after_seconds: float = AFTER_SECONDS) -> Found:
    """One run of a reconciler that knows nothing of an earlier one."""
    settings = WorkerSettings(
        kafka_bootstrap=pipeline.engines.kafka_bootstrap,
        elasticsearch_url=pipeline.engines.elasticsearch_url,
        namespace=pipeline.namespace,
        reconcile_after_seconds=after_seconds,
    )

    async def run() -> Found:
        connection = Connection(ElasticsearchSettings(url=settings.elasticsearch_url))
        reconciler = Reconciler(settings, connection, 2, SingleObject())
        try:
            return await reconciler.run_once()
        finally:
            await reconciler.close()

    return asyncio.run(run())


def documents(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What is indexed; nothing while there is no index yet."""
    return pipeline.documents() if pipeline.indexed() else []


def by_phase(pipeline: Pipeline, phase: str) -> list[dict[str, Any]]:
    return [d for d in documents(pipeline) if d["gatebook"]["phase"] == phase]


def incomplete(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [d for d in documents(pipeline) if d["event"].get("reason") == "incomplete"]


def searched(pipeline: Pipeline, query: str = "") -> int:
    """How many events a search counts."""

    async def ask() -> int:
        connection = Connection(ElasticsearchSettings(url=pipeline.engines.elasticsearch_url))
        try:
            pages = service.search(connection, pipeline.namespace, query)
            return (await anext(pages)).total
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_request_whose_service_was_killed_becomes_one_incomplete_event(
    pipeline: Pipeline,
) -> None:
    """A finished request becomes none; looking again makes no more; searches count each once."""
    pipeline.start("intake", "index")
    with hanging_service(pipeline) as (child, url):
        wait_until("the service answers", lambda: answers(url))
        caller = threading.Thread(target=hang_on, args=(url,))
        caller.start()
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        wait_until("both intents are indexed", lambda: len(by_phase(pipeline, "intent")) == 2, 150)
        wait_until("the event is indexed", lambda: len(by_phase(pipeline, "terminal")) == 1)
        child.kill()
        child.wait()
        caller.join()
    (finished,) = by_phase(pipeline, "terminal")
    wait_until("the deadline", lambda: run_reconciler(pipeline).intents == 2)
    wait_until("the incomplete event", lambda: incomplete(pipeline))

    again = run_reconciler(pipeline)
    assert (again.intents, again.incomplete) == (2, 0)
    (found,) = incomplete(pipeline)
    chat = next(i for i in by_phase(pipeline, "intent") if i["event"]["action"] == "chat")
    assert found["event"]["id"] == terminal_id(chat["event"]["id"])
    assert found["event"]["outcome"] == "unknown"
    assert found["source"]["ip"] == "127.0.0.1"
    assert found["url"]["path"] == "/v1/chat/completions"
    assert finished["event"]["outcome"] == "success"
    assert (searched(pipeline), searched(pipeline, "gatebook.phase:intent")) == (2, 2)
    assert pipeline.indexed("deadletter") == 0


def test_an_end_that_comes_after_all_is_a_visible_conflict(pipeline: Pipeline) -> None:
    """There is one document an id; the contradiction stands among the dead letters."""
    pipeline.start("intake", "index")
    late = make_event("alice")
    intent = make_event("alice", timestamp=late["timestamp"])
    intent["event"] |= {"id": intent_id(late["event"]["id"]), "outcome": "unknown", "end": 0}
    intent["gatebook"] = {"phase": "intent"}
    pipeline.publish([intent])
    pipeline.wait_indexed(1)
    wait_until("the deadline", lambda: run_reconciler(pipeline).incomplete)
    wait_until("the incomplete event", lambda: incomplete(pipeline))

    pipeline.publish([late])
    pipeline.wait_indexed(1, "deadletter")

    (letter,) = pipeline.documents("deadletter")
    assert letter["event"]["reason"] == "id_conflict"
    assert letter["gatebook"]["event_id"] == late["event"]["id"]
    assert len(incomplete(pipeline)) == 1
    assert pipeline.indexed() == 2


def test_a_worker_reconciles_by_itself_and_the_command_tells(pipeline: Pipeline) -> None:
    """`gatebook worker reconcile` runs until it is told to stop; `gatebook reconcile` looks once,
    and says what it does and what it found."""
    pipeline.start("intake", "index")
    intent = make_event("carol")
    intent["event"] |= {"id": intent_id("carol-1"), "outcome": "unknown", "end": 0}
    intent["gatebook"] = {"phase": "intent"}
    pipeline.publish([intent])
    soon = {"GATEBOOK_RECONCILE_AFTER_SECONDS": "0.5", "GATEBOOK_RECONCILE_INTERVAL_SECONDS": "0.5"}
    (worker,) = pipeline.start("reconcile", **soon)
    wait_until("the incomplete event", lambda: incomplete(pipeline))

    command = [sys.executable, "-m", "gatebook.cli.main", "reconcile"]
    done = subprocess.run(
        command, env=pipeline.environment(**soon), capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"1 intents are due, 0 without an end\n"
    for told in (b"until intake has worked off", b"until index has", b"looking at intents"):
        assert told in done.stderr
    assert pipeline.kill(worker, TERM) == 0
    assert [found["event"]["id"] for found in incomplete(pipeline)] == ["carol-1"]


def test_nothing_is_judged_while_the_workers_are_behind(pipeline: Pipeline) -> None:
    """An end that waits in Kafka is no missing end, however old the intent is."""
    (intake, index) = pipeline.start("intake", "index")
    end = make_event("bob")
    intent = make_event("bob", timestamp=end["timestamp"])
    intent["event"] |= {"id": intent_id(end["event"]["id"]), "outcome": "unknown", "end": 0}
    intent["gatebook"] = {"phase": "intent"}
    pipeline.publish([intent])
    pipeline.wait_indexed(1)
    pipeline.kill(intake)
    pipeline.kill(index)
    pipeline.publish([end])
    runs: list[Found] = []
    looking = threading.Thread(target=lambda: runs.append(run_reconciler(pipeline, 0.001)))
    looking.start()
    looking.join(4)
    assert looking.is_alive(), "it was judged"

    pipeline.start("intake", "index")
    looking.join(90)
    (found,) = runs
    assert (found.intents, found.incomplete) == (1, 0)
