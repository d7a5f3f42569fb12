"""Kafka and Elasticsearch as `gatebook up` and the test run start them."""

from __future__ import annotations

from typing import Any

from elasticsearch import Elasticsearch
from confluent_kafka.admin import AdminClient


def test_both_answer(engines: Any) -> None:
    assert (
        AdminClient({"bootstrap.servers": engines.kafka_bootstrap}).list_topics(timeout=10).brokers
    )
    assert Elasticsearch(engines.elasticsearch_url).cluster.health()["status"] == "green"


def test_registry(schema_registry: str) -> None:
    print(schema_registry)
