"""Detection under faults: one log of documents, the workers that read it, what they must find."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zlib import crc32

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.processors.detect.access import parse_time_ns
from gatebook.processors.detect.registry import detector_ids
from gatebook.schemas.codec import decode, encode
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.topics import EVENT, topic_name

NS = 1_000_000_000
START_NS = 1_767_603_600 * NS
PARTITIONS = 2
MESSAGES = 90
OURS = ("failure_burst", "secret_in_content")
RULES = {
    "users_of_a_key": """
        id = "users_of_a_key"
        name = "One key, many users"
        version = "1"
        severity = "warning"
        risk_score = 47
        runbook = "runbook.md"
        blind_spots = ["None that matter here."]
        [detect]
        kind = "distinct"
        scope = "key"
        item = "user_id"
        unit = "users"
        [parameters]
        threshold = 4
        window_seconds = 60
        """,
}
PARAMETERS = """
[limits]
allowed_lateness_seconds = 900
[failure_burst]
threshold = 4
window_seconds = 20
quiet_seconds = 15
[secret_in_content]
window_seconds = 60
"""
Message = tuple[int, bytes]


def written(seed: int = 7) -> list[Message]:
    """The log: partition and document frame, with bursts, pauses and repeated events."""
    random = Random(seed)
    clock, number = 0.0, 0
    messages: list[Message] = []
    for _ in range(MESSAGES):
        documents = []
        for _ in range(random.choice([1, 3, 8])):
            clock += random.choice([0.2, 0.5, 0.5, 1, 1, 2, 40 if random.random() < 0.2 else 1])
            number += 1
            documents.append(_document(random, number, clock))
        by_partition: dict[int, list[dict[str, Any]]] = {}
        for document in documents:
            by_partition.setdefault(_place(document), []).append(document)
        frames = [(place, _frame(inner)) for place, inner in by_partition.items()]
        messages += frames
        if random.random() < 0.1:
            messages.append(random.choice(frames))  # a producer or intake sent it twice
    return messages + _long_after(number, clock)


def _long_after(number: int, clock: float) -> list[Message]:
    """Hours later everybody is seen again, three times: in event time every incident is over. What
    a test takes away for a while costs real time, and must not decide when one is."""
    messages: list[Message] = []
    for turn in range(4):
        keys = {place: ["k", "l"] for place in range(PARTITIONS)}  # each key in each partition
        for user in range(8):
            number += 1
            seconds = clock + 7200 + 100 * turn
            document = _access(number, seconds, f"u{user}", f"own{user}", "failure")
            if mine := keys[_place(document)]:
                document["gatebook"]["identity"]["key_id"] = mine.pop()
            messages.append((_place(document), _frame([document])))
    return messages


def _place(document: dict[str, Any]) -> int:
    return crc32(document["gatebook"]["principal"].encode()) % PARTITIONS


def _document(random: Random, number: int, seconds: float) -> dict[str, Any]:
    user = f"u{random.choice([0, 0, 0, 1, 2, 3, 4, 5, 6, 7])}"
    key = random.choice("kkkl")
    outcome = random.choice(["failure", "success", "success"]) if user != "u0" else "failure"
    document = _access(number, seconds, user, key, outcome)
    if random.random() < 0.05:
        document["gatebook"]["redaction"] = {"entities": ["jwt"], "counts": {"jwt": 1}}
    return document


def _access(number: int, seconds: float, user: str, key: str, outcome: str) -> dict[str, Any]:
    time = timestamp_text(START_NS + round(seconds * NS))
    return {
        "@timestamp": time,
        "event": {"id": str(UUID(int=number)), "outcome": outcome, "ingested": time},
        "organization": {"id": "acme"},
        "user": {"id": user},
        "gatebook": {"principal": f"acme/user:{user}", "identity": {"key_id": key}},
    }


def _frame(documents: Iterable[dict[str, Any]]) -> bytes:
    rows = [
        {
            "id": document["event"]["id"],
            "timestamp": START_NS,
            "principal": document["gatebook"]["principal"],
            "hash": "",
            "body": orjson.dumps(document),
        }
        for document in documents
    ]
    return encode(
        "document_frame.v1",
        {"source_topic": "t", "source_partition": 0, "source_offset": 0, "documents": rows},
    )


class Detecting:
    """A pipeline of which only detection runs, with a rule by principal and one by key."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._producer = Producer({"bootstrap.servers": pipeline.engines.kafka_bootstrap})
        group = f"{pipeline.namespace}-detect"
        self._asker = Consumer(
            {"bootstrap.servers": pipeline.engines.kafka_bootstrap, "group.id": group}
        )
        self.published = 0
        self.log: list[Message] = []
        self._topic = topic_name(pipeline.namespace, EVENT)
        self._rules = pipeline.home / "rules"
        self._parameters = pipeline.home / "detectors.toml"
        _write_rules(self._rules)
        off = [f"[{name}]\nenabled = false\n" for name in detector_ids() if name not in OURS]
        self._parameters.write_text(PARAMETERS + "".join(off))

    def start(self) -> subprocess.Popen[bytes]:
        """One worker of the role."""
        (worker,) = self.pipeline.start(
            "detect",
            GATEBOOK_RULES_PATH=str(self._rules),
            GATEBOOK_DETECTORS_FILE=str(self._parameters),
            GATEBOOK_DETECT_IDLE_SECONDS="0.5",
            GATEBOOK_CLOCK_MARGIN_SECONDS="0.5",
            GATEBOOK_BATCH_MESSAGES="5",
        )
        return worker

    def publish(self, messages: Sequence[Message]) -> None:
        """Put a part of the log into the event topic, in order."""
        for partition, body in messages:
            self._producer.produce(self._topic, body, partition=partition)
        assert self._producer.flush(60) == 0
        self.published += len(messages)
        self.log += messages

    def found(self) -> list[dict[str, Any]]:
        """Every finding, as often as it was sent; none while the broker comes back."""
        try:
            return self.pipeline.read_topic("finding.v1", "finding.v2")
        except KafkaException:
            return []

    def read(self) -> int:
        """Messages of the event topic that are behind the workers."""
        parts = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        try:
            found = self._asker.committed(parts, timeout=10)
        except KafkaException:  # the coordinator moves, or the broker comes back: not yet
            return 0
        return sum(max(0, part.offset) for part in found)

    def wait_read(self, part: float = 1.0) -> None:
        """Until so much of what was published is behind the workers."""
        wait_until("the events read", lambda: self.read() >= part * self.published, 120)

    def check(self, expected: set[str]) -> None:
        """All that is expected is found in time, and nothing else."""

        def all_there() -> bool:
            found = self.found()
            return expected <= story(found) and gathered_as_it_should(found, self.log)

        try:
            wait_until("the findings", all_there, 90)
        except AssertionError:
            found = story(self.found())
            raise AssertionError(
                f"missing: {sorted(expected - found)}; too much: {sorted(found - expected)}; "
                f"gathered: {gathered_as_it_should(self.found(), self.log)}"
            ) from None
        assert story(self.found()) == expected


def _write_rules(folder: Path) -> None:
    for name, text in RULES.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "rule.toml").write_text(text)
        (folder / name / "runbook.md").write_text("Look.")


def story(findings: Iterable[dict[str, Any]]) -> set[str]:
    """What rules by principal found, each once, with all that is said of it."""
    own = (finding for finding in findings if finding["rule"]["id"] not in RULES)
    return {json.dumps(finding, sort_keys=True) for finding in own}


def shared_windows(messages: Iterable[Message]) -> set[tuple[str, int]]:
    """Keys with the minutes in which at least four users used them, counted by hand."""
    users: dict[tuple[str, int], set[str]] = {}
    for _, body in messages:
        for row in decode("document_frame.v1", body)["documents"]:
            document = orjson.loads(row["body"])
            minute = parse_time_ns(document["@timestamp"]) // (60 * NS)
            key = document["gatebook"]["identity"]["key_id"]
            users.setdefault((key, minute), set()).add(document["user"]["id"])
    return {window for window, who in users.items() if len(who) >= 4}


def gathered_as_it_should(findings: Sequence[dict[str, Any]], messages: Iterable[Message]) -> bool:
    """Whether the rule whose accesses come from several partitions saw all there is and nothing
    else: every minute in which it is true lies in an incident of that key, every incident began in
    such a minute, and every incident ended. The order in which partitions are read is nobody's
    promise; into which incident a minute falls may depend on it, nothing more."""
    own = {finding["event"]["id"]: finding for finding in findings}.values()
    firing = [f for f in own if f["rule"]["id"] in RULES and f["event"]["action"] == "firing"]
    ends = {f["gatebook"]["incident"]: f for f in own if f["event"]["action"] == "resolved"}
    if any(finding["gatebook"]["incident"] not in ends for finding in firing):
        return False
    wanted = shared_windows(messages)
    began = {(_key(f), f["timestamp"] // (60 * NS)) for f in firing}
    spans = [(_key(f), ends[f["gatebook"]["incident"]]) for f in firing]
    covered = {
        (key, minute)
        for key, minute in wanted
        for other, end in spans
        if key == other
        and end["event"]["start"] < (minute + 1) * 60 * NS
        and end["timestamp"] >= minute * 60 * NS
    }
    return began <= wanted == covered


def _key(finding: dict[str, Any]) -> str:
    return str(finding["gatebook"]["dedup_key"]).rpartition("/")[2]
