"""The middleware under real servers: what a client was answered stands on the topic, once, however
many processes and threads answer, and whenever they are told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.test_producer_faults import assert_without_gaps, create_topic, read_all
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import KafkaPublisher
from gatebook.producers.sender import recover_abandoned
from gatebook.producers.spool import abandoned_spools
from gatebook.schemas.codec import OpenedFrame, decode_event
from gatebook.schemas.topics import ACCESS, topic_name

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.faults.server_apps:app"
NOWHERE = "127.0.0.1:1"
BODY = {"model": "slm", "messages": [{"role": "user", "content": "hello"}]}


def gunicorn(*options: str) -> list[str]:
    """A gunicorn master with quick ends; ASGI unless another worker class is given."""
    kind = [] if "-k" in options else ["-k", "uvicorn_worker.UvicornWorker"]
    quick = ["--graceful-timeout", "20", "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", APP, *kind, *quick, *options]


def uvicorn(*options: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", APP, "--log-level", "warning", *options]


class Load:
    """Requests from so many clients at once, until there are enough answers or `stop`."""

    def __init__(self, url: str, clients: int, enough: int = 1_000_000) -> None:
        self._url = url
        self._clients = clients
        self._enough = enough
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.sent: set[str] = set()
        self.answered: dict[str, str] = {}  # request id -> id of the process that answered
        self._thread.start()

    def finish(self) -> None:
        """Returns when there are enough answers."""
        self._thread.join(120)
        assert len(self.answered) >= self._enough

    def wait(self, answers: int, processes: int) -> None:
        """Until so many requests were answered, and every process has had one: before that, a
        worker of uvicorn may miss the signal to end."""
        wait_until(
            f"{answers} answers of {processes} processes",
            lambda: len(self.answered) > answers and len(set(self.answered.values())) == processes,
        )

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        # A new connection each, so that every worker comes in for its share.
        limits = httpx.Limits(max_connections=self._clients, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=20, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(self._ask_on(client) for _ in range(self._clients)))

    async def _ask_on(self, client: httpx.AsyncClient) -> None:
        while not self._stopped.is_set() and len(self.answered) < self._enough:
            request_id = str(uuid.uuid4())
            self.sent.add(request_id)
            try:
                answer = await client.post(
                    f"{self._url}/v1/chat/completions",
                    json=BODY,
                    headers={"x-request-id": request_id},
                )
            except httpx.HTTPError:  # the server ends: such a request is under another id again
                await asyncio.sleep(0.05)  # waits: for the server to be back
                continue
            assert answer.status_code == 200
            self.answered[request_id] = answer.json()["model"]


class Site:
    """Where one test's servers record."""

    def __init__(self, engines: Any, namespace: str, home: Path) -> None:
        self.settings = ProducerSettings(
            kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace, home=str(home)
        )
        self._topic = topic_name(namespace, ACCESS)
        create_topic(engines.kafka_bootstrap, self._topic)

    @contextmanager
    def server(self, command: list[str], **more: str) -> Iterator[tuple[Any, str]]:
        """A running server and its URL; killed with all its workers where it is still there."""
        address = f"127.0.0.1:{free_ports(1)[0]}"
        host, port = address.split(":")
        at = ["--bind", address] if "gunicorn" in command else ["--host", host, "--port", port]
        environment = {
            **os.environ,
            "GATEBOOK_KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap,
            "GATEBOOK_NAMESPACE": self.settings.namespace,
            "GATEBOOK_HOME": self.settings.home,
            **more,
        }
        process = subprocess.Popen(
            [*command, *at], env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            wait_until("the server", lambda: _answers(f"http://{address}"), 60)
            yield process, f"http://{address}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: only what we started
                process.wait()

    def frames(self) -> list[OpenedFrame]:
        """All on the topic, after the next start has sent what was left in spools."""
        report = recover_abandoned(self.settings, KafkaPublisher(self.settings), 60)
        assert (report.left, report.lost) == (0, 0)
        assert abandoned_spools(self.settings.spool_path) == []
        return read_all(self.settings.kafka_bootstrap, self._topic)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def site(engines: Any, namespace: str, tmp_path: Path) -> Site:
    return Site(engines, namespace, tmp_path)


def accesses(frames: list[OpenedFrame]) -> list[tuple[int, dict[str, Any]]]:
    """Epoch and event of each request's end."""
    events = [(frame.header.epoch, decode_event(data)) for frame in frames for data in frame.events]
    return [(epoch, e) for epoch, e in events if e["gatebook"]["phase"] == "terminal"]


def assert_all_recorded_once(load: Load, frames: list[OpenedFrame]) -> None:
    """Answered <= recorded <= sent; no event and no request stands there twice; each process has
    an epoch of its own; no number of an epoch is missing and none was dropped."""
    found = accesses(frames)
    requests = Counter(event["http"]["request"]["id"] for _, event in found)
    ids = Counter(event["event"]["id"] for _, event in found)
    assert load.answered.keys() <= requests.keys()
    assert requests.keys() <= load.sent
    assert max(requests.values()) == 1
    assert max(ids.values()) == 1
    pairs = {
        (epoch, load.answered[event["http"]["request"]["id"]])
        for epoch, event in found
        if event["http"]["request"]["id"] in load.answered
    }
    assert len(pairs) == len({epoch for epoch, _ in pairs}) == len({pid for _, pid in pairs})
    assert_without_gaps(frames)
    assert all(frame.header.losses == {} for frame in frames)


def end(process: Any) -> int:
    """SIGTERM, and the exit code."""
    process.send_signal(signal.SIGTERM)
    return int(process.wait(60))


@pytest.mark.parametrize(
    ("command", "kind", "processes"),
    [
        (gunicorn("--preload", "--workers", "4"), "asgi", 4),
        (uvicorn("--workers", "2"), "asgi", 2),
        (gunicorn("-k", "gthread", "--threads", "8", "--workers", "2"), "wsgi", 2),
        (gunicorn("-k", "gthread", "--threads", "8", "--workers", "2", "--preload"), "wsgi", 2),
    ],
    ids=["gunicorn preloaded", "uvicorn workers", "threads", "threads preloaded"],
)
def test_each_process_of_a_server_is_a_producer_of_its_own(
    command: list[str], kind: str, processes: int, site: Site
) -> None:
    """All that was answered is on the topic when the server has ended, and each worker has said
    that it is closed."""
    with site.server(command, SERVICE_KIND=kind) as (process, url):
        load = Load(url, 16)
        load.wait(600, processes)
        load.stop()
        end(process)
        frames = read_all(
            site.settings.kafka_bootstrap, topic_name(site.settings.namespace, ACCESS)
        )

    assert_all_recorded_once(load, frames)
    assert len(accesses(frames)) == len(load.answered) == len(load.sent)
    said = {frame.header.epoch for frame in frames if frame.header.state == "closed"}
    assert said >= {epoch for epoch, _ in accesses(frames)}
    assert abandoned_spools(site.settings.spool_path) == []


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_workers_that_are_recycled_hand_over_without_a_loss(kind: str, site: Site) -> None:
    """Each worker ends after some fifty requests, and another process takes its place."""
    recycle = ["--workers", "2", "--max-requests", "50", "--max-requests-jitter", "10"]
    threads = ["-k", "gthread", "--threads", "4"] if kind == "wsgi" else []
    with site.server(gunicorn(*recycle, *threads), SERVICE_KIND=kind) as (process, url):
        load = Load(url, 4, 800)
        load.finish()
        end(process)

    assert len(set(load.answered.values())) > 4
    assert_all_recorded_once(load, site.frames())


def test_two_hundred_requests_at_once_on_one_event_loop(site: Site) -> None:
    """None waits for the recorder, and each has its own event."""
    with site.server(uvicorn(), SERVICE_SECONDS="0.2") as (process, url):
        load = Load(url, 200, 800)
        load.finish()
        end(process)

    assert_all_recorded_once(load, site.frames())


@pytest.mark.parametrize("signals", [1, 2], ids=["one SIGTERM", "two SIGTERMs"])
@pytest.mark.parametrize(
    ("command", "processes"),
    [
        (uvicorn(), 1),
        (uvicorn("--workers", "2"), 2),
        (gunicorn("--preload", "--workers", "2"), 2),
    ],
    ids=["uvicorn", "uvicorn workers", "gunicorn"],
)
def test_an_end_under_load_with_the_broker_away_keeps_what_was_answered(
    command: list[str], processes: int, signals: int, site: Site
) -> None:
    """The queue is full and the deadline short; the next start publishes the rest from the spools.
    A second signal, while the first is being served, takes nothing away."""
    away = {"GATEBOOK_KAFKA_BOOTSTRAP": NOWHERE, "GATEBOOK_FLUSH_DEADLINE_SECONDS": "0.3"}
    with site.server(command, **away) as (process, url):
        load = Load(url, 32)
        load.wait(300, processes)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        load.stop()

    frames = site.frames()
    assert_all_recorded_once(load, frames)
    assert len(accesses(frames)) > 300


def test_threads_under_load_keep_what_was_answered_too(site: Site) -> None:
    """WSGI has no shutdown event: the interpreter's end closes the recorder."""
    away = {"GATEBOOK_KAFKA_BOOTSTRAP": NOWHERE, "GATEBOOK_FLUSH_DEADLINE_SECONDS": "0.3"}
    command = gunicorn("-k", "gthread", "--threads", "8", "--workers", "2")
    with site.server(command, SERVICE_KIND="wsgi", **away) as (process, url):
        load = Load(url, 32)
        load.wait(300, 2)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        load.stop()

    assert_all_recorded_once(load, site.frames())
