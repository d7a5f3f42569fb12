"""Workers against a broker that asks who they are: from a producer over TLS into the index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka.admin import ResourceType  # type: ignore[attr-defined]  # public, not marked so
from tests.integration.security.secured_broker import PASSWORDS, SecuredBroker
from tests.pipeline import KINDS, make_event
from tests.waiting import wait_until

from gatebook.processors.setup import setup
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.topics import ACCESS, topic_name

EVENTS = 25


def as_environment(properties: dict[str, str]) -> dict[str, str]:
    """What an operator writes: GATEBOOK_KAFKA_SECURITY_PROTOCOL and so on."""
    return {
        "GATEBOOK_KAFKA_" + name.upper().replace(".", "_"): value
        for name, value in properties.items()
    }


@contextmanager
def workers(environment: dict[str, str], home: Path, *roles: str) -> Iterator[None]:
    """One process a role; their logs stand in the home."""
    running = []
    try:
        for role in roles:
            with (home / f"{role}.log").open("wb") as log:
                command = [sys.executable, "-m", "gatebook.cli.main", "worker", role]
                running.append(
                    subprocess.Popen(
                        command, env={**os.environ, **environment}, stdout=log, stderr=log
                    )
                )
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)


def grant_worker(secured: SecuredBroker, user: str, namespace: str) -> None:
    """What a worker needs, and no more."""
    for operation in ("READ", "WRITE"):
        secured.allow(user, ResourceType.TOPIC, f"{namespace}.", operation)
    secured.allow(user, ResourceType.GROUP, f"{namespace}-", "READ")


def test_events_go_through_encrypted_and_with_names_into_the_index(
    secured: SecuredBroker, engines: Any, namespace: str, tmp_path: Path
) -> None:
    """Producer and workers log in by SCRAM over TLS, each with its own few rights; every event is
    in the index once, and no password in a log."""
    setup(
        secured.at("MTLS"), engines.elasticsearch_url, namespace,
        kafka_properties=secured.as_operator(),
    )  # fmt: skip
    secured.grant("shipper", topic_name(namespace, ACCESS))
    grant_worker(secured, "worker", namespace)
    environment = {
        "GATEBOOK_KAFKA_BOOTSTRAP": secured.at("SCRAM"),
        "GATEBOOK_ELASTICSEARCH_URL": engines.elasticsearch_url,
        "GATEBOOK_NAMESPACE": namespace,
        "GATEBOOK_HOME": str(tmp_path),
    }
    elasticsearch = httpx.Client(base_url=engines.elasticsearch_url, timeout=30, trust_env=False)
    login = as_environment(secured.as_user("worker"))
    with elasticsearch, workers(environment | login, tmp_path, "intake", "index"):
        shipper = as_environment(secured.as_user("shipper"))
        recorder = Recorder(ProducerSettings.from_env(environment | shipper))
        emitted = {recorder.emit_durable(make_event(), 10) for _ in range(EVENTS)}
        assert recorder.close(30).complete

        def found() -> set[str]:
            index = f"/{namespace}-access-*"
            quiet = {"ignore_unavailable": "true"}
            elasticsearch.post(f"{index}/_refresh", params=quiet)
            answer = elasticsearch.get(f"{index}/_search", params={**quiet, "size": "1000"})
            hits = answer.json()["hits"]["hits"] if answer.status_code == 200 else []
            return {hit["_id"] for hit in hits}

        try:
            wait_until("all events in the index", lambda: found() >= emitted, 90)
            assert found() == emitted
        finally:
            for kind in KINDS:
                elasticsearch.delete(
                    f"/{namespace}-{kind}-*", params={"ignore_unavailable": "true"}
                )
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert logs
    assert not any(password in logs for password in PASSWORDS.values())
