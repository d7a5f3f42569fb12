"""`gatebook up` and `down` as a person uses them: twice, after a crash, with data in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined] # re-exported unmarked
from elasticsearch import Elasticsearch

from gatebook.engines.processes import free_ports, wait_until
from gatebook.engines.settings import PORT_FIELDS, variable

TIMEOUT_SECONDS = 60


class Cli:
    """Runs `gatebook` on embedded engines in a home of its own."""

    def __init__(self, home: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEBOOK_")}
        ports = zip(PORT_FIELDS, free_ports(len(PORT_FIELDS)), strict=True)
        self.environment = kept | {variable(field): str(port) for field, port in ports}
        self.environment |= {"GATEBOOK_HOME": str(home), "GATEBOOK_ENGINE": "embedded"}
        if cache := os.environ.get("GATEBOOK_CACHE_DIR"):
            self.environment["GATEBOOK_CACHE_DIR"] = cache

    def __call__(self, *arguments: str, expect: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout)

    def pids(self) -> dict[str, int]:
        return {one["name"]: one["pid"] for one in self("status")["engines"]}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One home for the tests of this file; each begins with `up`, which finds what runs."""
    one = Cli(tmp_path_factory.mktemp("up") / "home")
    yield one
    one("down")


def search_client(endpoints: dict[str, str]) -> Elasticsearch:
    return Elasticsearch(endpoints["elasticsearch_url"], request_timeout=TIMEOUT_SECONDS)


def write_one_of_each(endpoints: dict[str, str], name: str) -> None:
    """One acknowledged message, one acknowledged document."""
    bootstrap: dict[str, Any] = {"bootstrap.servers": endpoints["kafka_bootstrap"]}
    admin = AdminClient(bootstrap)  # held: its futures end with it
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_SECONDS)
    producer = Producer(bootstrap)
    producer.produce(name, b"a message")
    assert producer.flush(TIMEOUT_SECONDS) == 0
    with search_client(endpoints) as client:
        client.indices.create(index=name)
        client.create(index=name, id="1", document={"a": "document"})


def assert_both_are_there(endpoints: dict[str, str], name: str) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints["kafka_bootstrap"]})
    partition = TopicPartition(name, 0)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # their method has no types
    end = admin.list_offsets({partition: latest})[partition]
    assert end.result(TIMEOUT_SECONDS).offset == 1
    with search_client(endpoints) as client:
        assert client.get(index=name, id="1")["_source"] == {"a": "document"}


def test_data_outlives_down_and_up(cli: Cli, namespace: str) -> None:
    """Up, up again (nothing restarts), write, down (nothing left), up: the data is there."""
    endpoints = cli("up")
    pids = cli.pids()
    assert cli("up") == endpoints
    assert cli.pids() == pids
    write_one_of_each(endpoints, namespace)
    assert all(row["verdict"] != "fail" for row in cli("doctor"))
    cli("down")
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert {one["state"] for one in cli("status", expect=1)["engines"]} == {"stopped"}
    assert cli("up") == endpoints
    assert_both_are_there(endpoints, namespace)


def test_up_repairs_what_a_crash_left(cli: Cli, namespace: str) -> None:
    """Both killed, as by a power cut of the machine: status says stale, up brings data back."""
    endpoints = cli("up")
    write_one_of_each(endpoints, namespace)
    pids = cli.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(runs, pids.values())), TIMEOUT_SECONDS)
    assert {one["state"] for one in cli("status", expect=1)["engines"]} == {"stale"}
    verdicts = {row["name"]: row["verdict"] for row in cli("doctor", expect=1)}
    assert verdicts["kafka"] == verdicts["elasticsearch"] == "fail"
    assert cli("up") == endpoints
    assert_both_are_there(endpoints, namespace)


def test_an_engine_that_hangs_is_unhealthy(cli: Cli) -> None:
    """A process that lives and does not answer is neither running nor stopped."""
    cli("up")
    pid = cli.pids()["elasticsearch"]
    os.kill(pid, signal.SIGSTOP)
    try:
        states = {one["name"]: one["state"] for one in cli("status", expect=1)["engines"]}
    finally:
        os.kill(pid, signal.SIGCONT)
    assert states == {"kafka": "running", "elasticsearch": "unhealthy"}


def runs(pid: int) -> bool:
    """A process that was killed and not yet collected by its parent does not run."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_up_makes_the_keys_that_seal_content(cli: Cli) -> None:
    """For services and workers of this home, once; the private one is its owner's alone."""
    cli("up")
    private, public = (
        Path(cli.environment["GATEBOOK_HOME"]) / "keys" / f"sealing-{name}.json"
        for name in ("private", "public")
    )
    before = private.read_bytes()
    assert private.stat().st_mode & 0o777 == 0o600
    assert "private" not in public.read_text()
    cli("up")
    assert private.read_bytes() == before
