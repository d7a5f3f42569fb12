"""Drive the real pipeline in a test: raw frames in, workers, documents out of the index."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from tests.sealed import make_keys
from tests.waiting import wait_until

from gatebook.processors.setup import setup
from gatebook.schemas.codec import FrameHeader, Record, build_frame, decode, encode_event
from gatebook.schemas.topics import ACCESS, all_topics, topic_name

KINDS = ("access", "finding", "deadletter", "alert")
KILL = signal.SIGKILL
TERM = signal.SIGTERM


def make_event(user: str = "alice", outcome: str = "success", **more: Any) -> Record:
    """A plain chat access by `user`, now."""
    now = time.time_ns()
    event: Record = {
        "timestamp": now,
        "event": {
            "id": str(uuid.uuid4()),
            "kind": "event",
            "category": "api",
            "type": "access",
            "action": "chat",
            "outcome": outcome,
            "reason": "" if outcome == "success" else "invalid_request",
            "end": now + 1_000_000,
            "duration": 1_000_000,
            "created": now,
        },
        "user": {"id": user},
        "source": {"ip": "127.0.0.1"},
        "service": {"name": "test-slm"},
        "gen_ai": {"request": {"model": "slm"}, "usage": {"input_tokens": 3, "output_tokens": 4}},
        "gatebook": {"phase": "terminal", "capture": {"level": "metadata"}},
    }
    for name, value in more.items():
        event[name] = {**event[name], **value} if isinstance(event.get(name), dict) else value
    return event


class Pipeline:
    """One namespace on the running engines, and the workers a test starts in it."""

    def __init__(self, engines: Any, namespace: str, home: Path, partitions: int = 2) -> None:
        self.engines = engines
        self.namespace = namespace
        self.home = home
        self.keys = make_keys(home)  # producers seal with one half, intake opens with the other
        self.workers: list[subprocess.Popen[bytes]] = []
        self._sequence: dict[str, int] = {}
        self._started = 0
        counts = dict.fromkeys(("access.v1", "event.v1", "detector-state.v1"), partitions)
        setup(engines.kafka_bootstrap, engines.elasticsearch_url, namespace, partitions=counts)
        self.http = httpx.Client(base_url=engines.elasticsearch_url, timeout=30, trust_env=False)
        self._admin = AdminClient({"bootstrap.servers": engines.kafka_bootstrap})
        self._producer = Producer({"bootstrap.servers": engines.kafka_bootstrap, "acks": "all"})

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "GATEBOOK_KAFKA_BOOTSTRAP": self.engines.kafka_bootstrap,
            "GATEBOOK_ELASTICSEARCH_URL": self.engines.elasticsearch_url,
            "GATEBOOK_NAMESPACE": self.namespace,
            "GATEBOOK_HOME": str(self.home),
            "GATEBOOK_COMMIT_INTERVAL_SECONDS": "0.3",
            "GATEBOOK_SESSION_TIMEOUT_SECONDS": "6",
            "GATEBOOK_STALL_SECONDS": "60",
            **more,
        }

    def start(self, *roles: str, **environment: str) -> list[subprocess.Popen[bytes]]:
        """Start one worker process a role; their logs stand in the home."""
        started = []
        for role in roles:
            command = [sys.executable, "-m", "gatebook.cli.main", "worker", role]
            self._started += 1
            with (self.home / f"{role}-{self._started}.log").open("wb") as log:
                child = subprocess.Popen(
                    command, env=self.environment(**environment), stdout=log, stderr=log
                )
            self.workers.append(child)
            started.append(child)
        return started

    def wait_members(self, role: str, count: int) -> None:
        """Until a role's consumer group is stable with so many members, each with partitions."""
        group = f"{self.namespace}-{role}"

        def stable() -> bool:
            try:
                found = self._admin.describe_consumer_groups([group])[group].result(10)
            except KafkaException:  # after a restart the group's coordinator moves: not yet
                return False
            holding = [m for m in found.members if m.assignment.topic_partitions]
            return found.state is ConsumerGroupState.STABLE and len(holding) == count

        wait_until(f"{count} members of {group}", stable, 90)

    def kill(self, worker: subprocess.Popen[bytes], number: signal.Signals = KILL) -> int:
        """Signal a worker and wait for its end; its exit code."""
        worker.send_signal(number)
        code = worker.wait(60)
        self.workers.remove(worker)
        return code

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        # Elasticsearch bounds its shards; a run of all tests would reach that.
        state = ("subject-keys", "subject-state", "retention-state")
        for name in (*(f"{kind}-*" for kind in KINDS), *state):
            self.http.delete(f"/{self.namespace}-{name}", params={"ignore_unavailable": "true"})
        self.http.close()

    def frame(self, events: Iterable[Record | bytes], producer: str = "p1") -> bytes:
        """The next frame of a producer; bytes pass as they are, poison or not."""
        encoded = [e if isinstance(e, bytes) else encode_event(e) for e in events]
        first = self._sequence.get(producer, 0)
        self._sequence[producer] = first + len(encoded)
        return build_frame(FrameHeader(producer, 1, first, len(encoded), time.time_ns()), encoded)

    def publish(
        self, events: Iterable[Record | bytes], producer: str = "p1", partition: int = -1
    ) -> None:
        """Send one frame; returns when the broker has it."""
        events = list(events)
        self.send(
            self.frame(events, producer), producer, {"gatebook-count": str(len(events))}, partition
        )

    def send(
        self, message: bytes, key: str, headers: Mapping[str, str], partition: int = -1
    ) -> None:
        """Send raw bytes to the access topic; returns when the broker has them."""
        errors: list[Any] = []
        self._producer.produce(
            topic_name(self.namespace, ACCESS),
            value=message,
            key=key,
            headers=dict(headers),
            partition=partition,
            on_delivery=lambda error, _: errors.append(error),
        )
        assert self._producer.flush(60) == 0
        assert errors == [None]

    def indexed(self, kind: str = "access") -> int:
        """Documents of a kind that a search finds now."""
        index = f"{self.namespace}-{kind}-*"
        self.http.post(f"/{index}/_refresh", params={"ignore_unavailable": "true"})
        answer = self.http.get(f"/{index}/_count", params={"ignore_unavailable": "true"})
        return int(answer.json().get("count", 0)) if answer.status_code == 200 else 0

    def documents(self, kind: str = "access") -> list[dict[str, Any]]:
        """All documents of a kind, at most 10,000."""
        self.indexed(kind)
        answer = self.http.get(f"/{self.namespace}-{kind}-*/_search", params={"size": 10_000})
        return [hit["_source"] for hit in answer.json()["hits"]["hits"]]

    def wait_indexed(self, count: int, kind: str = "access", timeout_seconds: float = 90) -> None:
        """Until at least `count` documents of a kind are there."""
        wait_until(
            f"{count} {kind} documents", lambda: self.indexed(kind) >= count, timeout_seconds
        )

    def messages(self, key: str) -> list[Message]:
        """Every message of one of our topics."""
        return self.read(topic_name(self.namespace, key))

    def read(self, topic: str) -> list[Message]:
        """Every message of a topic, partition by partition."""
        reader = Consumer(
            {"bootstrap.servers": self.engines.kafka_bootstrap, "group.id": uuid.uuid4().hex}
        )
        found = []
        try:
            for number in reader.list_topics(topic, timeout=10).topics[topic].partitions:
                here = TopicPartition(topic, number, 0)
                _, end = reader.get_watermark_offsets(here, timeout=10)
                reader.assign([here])
                while end and reader.position([here])[0].offset < end:
                    message = reader.poll(1)
                    if message is not None and message.error() is None:
                        found.append(message)
        finally:
            reader.close()
        return found

    def read_topic(self, key: str, schema: str) -> list[Record]:
        """Every record of a topic, decoded."""
        return [decode(schema, message.value() or b"") for message in self.messages(key)]

    def headers(self, key: str) -> list[dict[str, bytes]]:
        """The Kafka headers of every message of a topic."""
        return [dict(message.headers() or []) for message in self.messages(key)]

    def end(self, key: str) -> int:
        """Messages ever written to a topic, all partitions together."""
        return sum(high for _, high in self._watermarks(key))

    def _watermarks(self, key: str) -> list[tuple[int, int]]:
        topic = topic_name(self.namespace, key)
        reader = Consumer({"bootstrap.servers": self.engines.kafka_bootstrap, "group.id": "end"})
        try:
            numbers = reader.list_topics(topic, timeout=10).topics[topic].partitions
            return [
                reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
                for number in numbers
            ]
        finally:
            reader.close()

    def committed(self, role: str, key: str = "") -> int:
        """Offsets a role has committed, all partitions together; of one topic where it is named."""
        group = f"{self.namespace}-{role}"
        asker = Consumer({"bootstrap.servers": self.engines.kafka_bootstrap, "group.id": group})
        try:
            keys = [key] if key else list(all_topics())
            names = [topic_name(self.namespace, one) for one in keys]
            found = asker.list_topics(timeout=10).topics
            parts = [TopicPartition(n, p) for n in names for p in found[n].partitions]
            return sum(max(0, part.offset) for part in asker.committed(parts, timeout=10))
        finally:
            asker.close()

    def logs(self) -> str:
        """What the workers wrote."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*.log")))
