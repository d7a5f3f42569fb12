"""`gatebook doctor` on engines with something in them, as somebody on call reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from tests.pipeline import TERM, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.producers.spool import FileSpool

Rows = dict[str, dict[str, str]]


def doctor(environment: dict[str, str], expect: int = 0) -> Rows:
    """The rows by name."""
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    rows: list[dict[str, str]] = json.loads(done.stdout)
    assert all(row["next_step"] for row in rows if row["verdict"] != "ok")
    return {row["name"]: row for row in rows}


def environment_of(engines: Any, namespace: str, home: Path) -> dict[str, str]:
    return {
        "GATEBOOK_KAFKA_BOOTSTRAP": engines.kafka_bootstrap,
        "GATEBOOK_ELASTICSEARCH_URL": engines.elasticsearch_url,
        "GATEBOOK_NAMESPACE": namespace,
        "GATEBOOK_HOME": str(home),
    }


def test_engines_without_a_setup_are_told(engines: Any, namespace: str, tmp_path: Path) -> None:
    """Topics and templates that are missing are named, with the command that makes them."""
    rows = doctor(environment_of(engines, namespace, tmp_path))
    for name in ("topics", "index templates"):
        assert rows[name]["verdict"] == "warn"
        assert namespace in rows[name]["detail"]
        assert "gatebook setup" in rows[name]["next_step"]


def test_all_is_ok_after_the_setup(pipeline: Pipeline) -> None:
    """A fresh namespace has nothing to complain of, workers or not."""
    rows = doctor(pipeline.environment())
    wanted = [
        "topics",
        "topic retention",
        "index templates",
        "index writes",
        "cluster",
        "dead letters",
        "spools",
    ]
    wanted += [f"worker {role}" for role in ("intake", "index", "detect", "notify")]
    assert {name: rows[name]["verdict"] for name in wanted} == dict.fromkeys(wanted, "ok")


def test_messages_that_nobody_reads_are_counted(pipeline: Pipeline) -> None:
    """Three frames and no worker: a warning with the role to start; with it, all is read."""
    for _ in range(3):
        pipeline.publish([make_event()])
    row = doctor(pipeline.environment())["worker intake"]
    assert row["verdict"] == "warn"
    assert "3 messages wait" in row["detail"]
    assert "gatebook worker (all roles)" in row["next_step"]
    pipeline.start("intake")
    wait_until("intake to commit", lambda: pipeline.committed("intake") == 3)
    row = doctor(pipeline.environment())["worker intake"]
    assert (row["verdict"], row["detail"]) == ("ok", "1 running, nothing waits")
    row = doctor(pipeline.environment())["worker detect"]
    assert row["verdict"] == "warn"
    assert "gatebook worker detect" in row["next_step"]


def test_messages_that_a_topic_forgot_are_told(pipeline: Pipeline) -> None:
    """A topic kept for a minute, and records deleted that intake had yet to read: two warnings."""
    topic = f"{pipeline.namespace}.access.v1"
    pipeline.publish([make_event()])
    (worker,) = pipeline.start("intake")
    wait_until("intake to commit", lambda: pipeline.committed("intake") == 1)
    pipeline.kill(worker, TERM)
    pipeline.publish([make_event()])
    admin = AdminClient({"bootstrap.servers": pipeline.engines.kafka_bootstrap})
    entry = ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)
    parts = [TopicPartition(topic, number, OFFSET_END) for number in range(2)]
    for future in admin.delete_records(parts).values():
        future.result(10)
    rows = doctor(pipeline.environment())
    assert rows["worker intake"]["verdict"] == "warn"
    assert "1 messages were deleted" in rows["worker intake"]["detail"]
    assert rows["topic retention"]["verdict"] == "warn"
    assert topic in rows["topic retention"]["detail"]


def test_dead_letters_of_the_last_day_are_counted(pipeline: Pipeline) -> None:
    """A poison frame leads to the command that shows why."""
    pipeline.send(b"no frame at all", "p1", {})
    pipeline.start("intake")
    wait_until("the dead letter", lambda: pipeline.end("deadletter.v1") == 1)
    row = doctor(pipeline.environment())["dead letters"]
    assert row["verdict"] == "warn"
    assert row["detail"].startswith("1 in the last 24 hours, 1 kept")
    assert "gatebook search --kind deadletter" in row["next_step"]


def test_an_index_that_takes_no_writes_is_broken(pipeline: Pipeline) -> None:
    """Named, and exit 1. (The block of a full disk is lifted by Elasticsearch where it is not.)"""
    index = f"{pipeline.namespace}-access-2026.01.01"
    assert pipeline.http.put(f"/{index}").status_code == 200
    block = {"index.blocks.write": True}
    assert pipeline.http.put(f"/{index}/_settings", json=block).status_code == 200
    row = doctor(pipeline.environment(), expect=1)["index writes"]
    assert row["verdict"] == "fail"
    assert index in row["detail"]


def test_events_stuck_in_a_spool_are_counted(pipeline: Pipeline) -> None:
    """Fresh ones are on their way; counting them changes neither the spool nor its lock."""
    root = pipeline.home / "spool" / pipeline.namespace
    spool = FileSpool.create(root, "p1", 1, 1024 * 1024)
    spool.append(0, [b"one", b"two", b"three"])
    spool.acknowledge(1)
    row = doctor(pipeline.environment())["spools"]
    assert row["verdict"] == "ok"
    assert row["detail"].startswith("2 unsent events in 1 spools")
    assert [event.data for event in spool.peek(10, 1000)] == [b"two", b"three"]
    spool.close()


@pytest.mark.parametrize("engine", ["kafka", "elasticsearch"])
def test_an_engine_that_does_not_answer_is_named(
    engines: Any, namespace: str, tmp_path: Path, engine: str
) -> None:
    """With the variable that holds its address. The other one is looked into all the same: how
    much waits in Kafka is what matters while Elasticsearch is away."""
    environment = environment_of(engines, namespace, tmp_path)
    (port,) = free_ports(1)
    wrong = {"kafka": "GATEBOOK_KAFKA_BOOTSTRAP", "elasticsearch": "GATEBOOK_ELASTICSEARCH_URL"}
    scheme = "http://" if engine == "elasticsearch" else ""
    rows = doctor(environment | {wrong[engine]: f"{scheme}127.0.0.1:{port}"}, expect=1)
    assert rows[engine]["verdict"] == "fail"
    assert str(port) in rows[engine]["detail"]
    assert wrong[engine] in rows[engine]["next_step"]
    assert ("topics" in rows, "cluster" in rows) == (engine != "kafka", engine == "kafka")
