"""What a run does to Kafka's topics, on a real broker: shown, recorded, never at the cost of what
was not read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from msgspec.structs import replace
from tests.integration.retention.retention_tools import POLICY, Store, document
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.processors.retention.policy import Policy
from gatebook.processors.retention.schedule import REASON, PatientTopics
from gatebook.processors.retention.topics import (
    KafkaTopics,
    TopicChange,
    TopicTerms,
    check_topics,
)
from gatebook.processors.setup import setup_kafka
from gatebook.processors.subjects.erasure import Privileged
from gatebook.schemas.errors import Fatal

SETS = POLICY + b'\n[kafka]\nreplay = "1d"\nset = true\n'
AT_ONCE = SETS.replace(b'full = "5d"', b'full = "0d"').replace(b'replay = "1d"', b'replay = "0d"')
HOUR_MS = 3_600_000


class Broker:
    """The topics of a namespace on the running broker."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self.namespace = namespace
        self.properties = {"bootstrap.servers": bootstrap}
        self.topics = KafkaTopics(namespace, self.properties, patience_seconds=0.0)

    def name(self, key: str) -> str:
        return f"{self.namespace}.{key}"

    def config(self, key: str) -> dict[str, int]:
        resource = ConfigResource(ResourceType.TOPIC, self.name(key))
        admin = AdminClient(dict(self.properties))
        found = admin.describe_configs([resource])[resource].result(10)
        return {name: int(found[name].value) for name in ("retention.ms", "segment.ms")}

    def found(self, policy: Policy) -> list[TopicTerms]:
        """What is said of the topics; nothing while a broker has not heard of them all."""
        try:
            return check_topics(policy, self.namespace, self.properties)
        except Fatal:
            return []

    def converged(self, policy: Policy) -> bool:
        """Brokers hear of a change one after the other."""
        return {one.problem for one in self.found(policy)} == {""}

    def send(self, key: str, count: int) -> None:
        producer = Producer(self.properties)
        for number in range(count):
            producer.produce(self.name(key), b"a frame", partition=number % 2)
        assert producer.flush(10) == 0

    def commit(self, key: str, group: str, offsets: dict[int, int]) -> None:
        client = Consumer({**self.properties, "group.id": f"{self.namespace}-{group}"})
        parts = [TopicPartition(self.name(key), n, offset) for n, offset in offsets.items()]
        client.commit(offsets=parts, asynchronous=False)
        client.close()


@pytest.fixture
async def broker(engines: Any, namespace: str) -> Broker:
    """After setup, with topics as topics.toml says."""
    await asyncio.to_thread(setup_kafka, engines.kafka_bootstrap, namespace, {}, {})
    found = Broker(engines.kafka_bootstrap, namespace)
    wait_until("all topics", lambda: found.found(Policy.read(SETS)))
    return found


async def test_a_plan_shows_old_and_new_and_a_run_records_it_before_it_is_set(
    store: Store, broker: Broker
) -> None:
    """The plan changes nothing; the act is recorded while topics are as they were; certificate and
    status tell of the run though no index was due; the check has nothing left to say."""
    policy = Policy.read(SETS)
    before = broker.config("event.v1")
    manager = store.manager(SETS, topics=broker.topics)
    plan = await manager.plan()
    (change,) = (one for one in plan.topics if one.key == "event.v1")
    assert {name: int(value) for name, value in change.before.items()} == before
    assert f"retention.ms {before['retention.ms']} (168 h) -> " in change.told()
    assert (plan.items, broker.config("event.v1")) == ((), before)

    seen: list[dict[str, int]] = []

    async def record(act: Privileged) -> None:
        seen.append(broker.config("event.v1"))
        store.acts.append(act)

    manager.record = record
    certificate = await manager.apply("ada", "policy", asked=True)
    assert [act.action for act in store.acts] == ["retention.apply", "retention.applied"]
    assert change.told() in store.acts[0].details["topics"]
    assert seen[0] == before
    assert certificate is not None
    told = {one["name"]: one for one in certificate["topics"]}
    assert told[change.name] == {
        "name": change.name,
        "key": "event.v1",
        "before": change.before,
        "after": change.after,
        "waiting": "",
        "failed": "",
    }
    assert (await manager.status())["last"]["run"] == certificate["run"]
    wait_until("topics without problems", lambda: broker.converged(policy))
    kept = broker.config("event.v1")
    assert sum(kept.values()) <= 3 * 24 * HOUR_MS  # tenants brief-* keep their metadata for 3 days

    assert await manager.apply("ada", "again", asked=True) is None
    assert store.acts[-1].action == "retention.apply"
    assert (store.acts[-1].details["indices"], "topics" in store.acts[-1].details) == ("0", False)


async def test_no_policy_takes_messages_from_workers(store: Store, broker: Broker) -> None:
    """Layers that go at once leave topics an hour, and the check agrees with what was set."""
    policy = Policy.read(AT_ONCE)
    assert any("1 h 20 min" in one for one in policy.warnings())
    await store.manager(AT_ONCE, topics=broker.topics).apply("ada", "policy")
    wait_until("topics without problems", lambda: broker.converged(policy))
    for key in ("access.v1", "event.v1"):
        assert broker.config(key) == {"retention.ms": HOUR_MS, "segment.ms": HOUR_MS // 3}


@pytest.mark.parametrize("committed", [{}, {0: 2, 1: 1}])
async def test_a_topic_is_not_shortened_while_a_group_has_not_read(
    store: Store, broker: Broker, committed: dict[int, int]
) -> None:
    """Whether intake never read or stopped early: its topic stays as it is, the plan and the act
    name the group, all else is done; once it has read, the topic is set."""
    before = broker.config("access.v1")
    broker.send("access.v1", 4)
    if committed:
        broker.commit("access.v1", "intake", committed)
    await store.write(document(1, 40))
    manager = store.manager(AT_ONCE, topics=broker.topics)
    group = f"{store.namespace}-intake"
    waits = {one.key: one.waiting for one in (await manager.plan()).topics}
    assert (waits["access.v1"], waits["event.v1"]) == (group, "")
    certificate = await manager.apply("ada", "policy")
    assert [one.key for one in manager.refused] == ["access.v1"]
    assert f"refused: {group} has not read" in store.acts[0].details["topics"]
    assert certificate is not None
    assert certificate["totals"]["dropped"] == {"default/30d": 1}
    assert "access.v1" not in {one["key"] for one in certificate["topics"]}
    assert broker.config("access.v1") == before

    broker.commit("access.v1", "intake", {0: 2, 1: 2})
    await manager.apply("ada", "policy")
    assert manager.refused == ()
    wait_until("the setting", lambda: broker.config("access.v1")["retention.ms"] == HOUR_MS)


async def test_a_worker_that_stops_after_the_plan_loses_nothing(
    store: Store, broker: Broker
) -> None:
    """It is looked once more right before a topic is set; the certificate says who waits."""
    before = broker.config("access.v1")

    def told(item: str, step: str) -> None:
        if step == "topics":
            broker.send("access.v1", 2)

    manager = store.manager(AT_ONCE, topics=broker.topics, told=told)
    certificate = await manager.apply("ada", "policy")
    assert certificate is not None
    waits = {one["key"]: one["waiting"] for one in certificate["topics"]}
    assert waits["access.v1"] == f"{store.namespace}-intake"
    assert [one.key for one in manager.refused] == ["access.v1"]
    assert broker.config("access.v1") == before


async def test_a_run_that_died_before_topics_were_set_sets_them_when_it_goes_on(
    store: Store, broker: Broker
) -> None:
    """By whoever gives the command again, which is recorded as well; the certificate has both
    values."""

    def dies(item: str, step: str) -> None:
        if step == "topics":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await store.manager(AT_ONCE, topics=broker.topics, told=dies).apply("ada", "policy")
    certificate = await store.manager(AT_ONCE, topics=broker.topics).apply("bob", "on", asked=True)
    begun, resumed, _ = store.acts
    assert (resumed.by, resumed.details["run"]) == ("bob", begun.name)
    assert certificate is not None
    assert {one["key"] for one in certificate["topics"]} >= {"access.v1", "event.v1"}
    wait_until("topics without problems", lambda: broker.converged(Policy.read(AT_ONCE)))


async def test_a_run_by_itself_goes_on_without_kafka(
    store: Store, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that is away, and one that refuses, cost the topics' part of a run, are told of,
    and what was refused is not asked for every hour."""
    away = KafkaTopics(broker.namespace, {"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"})
    manager = store.manager(SETS, topics=PatientTopics(away))
    assert await manager.apply("ada", REASON) is None
    assert "topics stay as they are until the next run" in caplog.text

    class Refusing(KafkaTopics):
        """Asks for a topic that nobody may change, as it is not there."""

        def _set(self, change: TopicChange) -> TopicChange:
            return super()._set(replace(change, name=change.name + "-gone"))

    refusing = Refusing(broker.namespace, broker.properties, patience_seconds=0.0)
    before = broker.config("event.v1")
    manager = store.manager(SETS, topics=PatientTopics(refusing))
    certificate = await manager.apply("ada", REASON)
    assert certificate is not None
    failed = {one["key"]: one["failed"] for one in certificate["topics"]}
    assert "Kafka does not change" in failed["event.v1"]
    assert broker.config("event.v1") == before
    assert await manager.apply("ada", REASON) is None


def test_a_scheduled_run_sets_topics_too(pipeline: Pipeline, tmp_path: Path) -> None:
    """As `apply` does, without anybody asking."""
    policy = tmp_path / "policy.toml"
    policy.write_bytes(AT_ONCE)
    broker = Broker(pipeline.engines.kafka_bootstrap, pipeline.namespace)
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "retention", "run"],
        env=pipeline.environment(GATEBOOK_RETENTION_POLICY=str(policy)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    wait_until("topics without problems", lambda: broker.converged(Policy.read(AT_ONCE)))


def test_the_command_line_tells_all_of_it(pipeline: Pipeline, tmp_path: Path) -> None:
    """plan: how many indices it looked at, topics old -> new; apply: what it set, and a
    certificate; then check agrees and plan has nothing to change."""
    policy = tmp_path / "policy.toml"
    policy.write_bytes(AT_ONCE)

    def gatebook(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", "retention", *words],
            env=pipeline.environment(GATEBOOK_RETENTION_POLICY=str(policy)),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return f"{done.returncode} {done.stdout}{done.stderr}"

    planned = gatebook("plan")
    assert (
        f"{pipeline.namespace}.access.v1: retention.ms 259200000 (72 h) -> 3600000 (1 h)" in planned
    )
    assert "0 indices looked at, nothing is due, 5 topics to change; 0 holds" in planned
    applied = gatebook("apply", "--reason", "policy 3", "--yes")
    assert applied.startswith("0 ")
    assert "(72 h) -> 3600000 (1 h)" in applied
    assert "certificate: " in applied
    wait_until("check to agree", lambda: gatebook("check").startswith("0 "))
    assert "0 indices looked at, nothing is due; 0 holds" in gatebook("plan")
    assert "last run: " in gatebook("status")
