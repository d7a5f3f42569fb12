"""What waits in Kafka, as the overview tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.access_service import running_service

from gatebook.cli import waiting as waiting_module
from gatebook.cli.waiting import Waiting
from gatebook.processors.config import WorkerSettings
from gatebook.processors.serve.app import create_app
from gatebook.processors.setup import setup
from gatebook.schemas.topics import ACCESS, topic_name


def kafka_holds(bootstrap: str, topic: str, messages: int, done: int, group: str) -> None:
    """So many messages in partition 0, of which a consumer group has worked off some."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for _ in range(messages):
        producer.produce(topic, b"x", partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, done)], asynchronous=False)
    consumer.close()


async def test_the_overview_tells_what_waits_for_whom(
    engines: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages not worked off, by role, to those who see all tenants; nothing to others."""
    counts = {"access.v1": 1, "event.v1": 1}
    given = (engines.kafka_bootstrap, engines.elasticsearch_url, namespace)
    await asyncio.to_thread(setup, *given, partitions=counts)
    topic = topic_name(namespace, ACCESS)
    kafka_holds(engines.kafka_bootstrap, topic, 5, done=2, group=f"{namespace}-intake")
    monkeypatch.setattr(waiting_module, "BROKER_TIMEOUT_SECONDS", 30.0)  # topics of all tests
    worker = WorkerSettings(kafka_bootstrap=engines.kafka_bootstrap, namespace=namespace)
    url, waiting = engines.elasticsearch_url, Waiting(worker)
    async with running_service(url, namespace, make=create_app, waiting=waiting.roles) as service:
        async with await service.by_token("analyst") as client:
            told = (await client.get("/api/v1/overview")).json()["pipeline"]
        assert [role["role"] for role in told] == ["intake", "index", "detect", "notify"]
        assert [role["waiting_messages"] for role in told] == [3, 0, 0, 0]
        assert {role["members"] for role in told} == {0}
        async with await service.by_token("analyst", tenants=("acme",)) as client:
            assert (await client.get("/api/v1/overview")).json()["pipeline"] is None


async def test_without_kafka_the_overview_says_that_it_does_not_know() -> None:
    """No broker is not nothing waiting."""
    nowhere = WorkerSettings(kafka_bootstrap="127.0.0.1:1", namespace="nowhere")
    assert await Waiting(nowhere).roles() is None
