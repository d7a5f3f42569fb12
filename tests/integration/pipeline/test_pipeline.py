"""The spine on real engines: raw frames in, documents, dead letters, findings and alerts out."""

from __future__ import annotations

import json
from typing import Any

from tests.pipeline import TERM, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import AlertReceiver
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import encode_event
from gatebook.schemas.topics import COUNT_HEADER


def get(document: dict[str, Any], path: str) -> Any:
    node: Any = document
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def test_an_event_arrives_enriched_and_numbered(pipeline: Pipeline) -> None:
    """What a producer sent stands in the index under its own id, with sequence and digest."""
    event = make_event("alice", user_agent={"original": "OpenAI/Python 3.54.0"})
    pipeline.start("intake", "index")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    (found,) = pipeline.documents()
    assert get(found, "event.id") == event["event"]["id"]
    assert get(found, "gatebook.sequence") == 0
    assert get(found, "gatebook.producer_id") == "p1"
    assert get(found, "gatebook.principal") == "user:alice"
    assert get(found, "gatebook.source.address_class") == "loopback"
    assert get(found, "user_agent.name") == "OpenAI/Python"
    assert len(get(found, "event.hash")) == 64


def test_content_arrives_redacted(pipeline: Pipeline) -> None:
    """A mail address, a card and an API key in a prompt are masked; their kinds are recorded."""
    key = "AKIA" + "Q3EGZ7NPLX5DEMO2"
    prompt = f"mail me at jo.doe@example.org, card 4539148803436467, key {key}"
    content = json.dumps({"input_messages": [{"role": "user", "content": prompt}]}).encode()
    event = make_event(
        gatebook={"capture": {"level": "redacted"}}, content=content, content_encoding="json"
    )
    pipeline.start("intake", "index")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    text = json.dumps(pipeline.documents())
    assert not any(secret in text for secret in ("jo.doe", "4539148803436467", key))
    assert {"email", "card", "api_key"} <= set(
        get(pipeline.documents()[0], "gatebook.redaction.entities")
    )


def test_content_is_dropped_where_it_cannot_be_redacted(pipeline: Pipeline) -> None:
    """Content nobody can read goes; the event stays and says why."""
    event = make_event(
        gatebook={"capture": {"level": "redacted"}}, content=b"\xff{", content_encoding="json"
    )
    pipeline.start("intake", "index")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    (found,) = pipeline.documents()
    assert get(found, "gatebook.redaction.failed") == "undecodable_content"
    assert get(found, "gen_ai.input") is None


def test_a_poison_event_leaves_its_neighbours_alone(pipeline: Pipeline) -> None:
    """An undecodable event at the start, in the middle and at the end of a frame becomes a dead
    letter with its number; the others are indexed."""
    good = [make_event() for _ in range(4)]
    poison = encode_event(make_event())[:-9] + b"\xff" * 9
    invalid = make_event(event={"id": ""})
    pipeline.start("intake", "index")
    pipeline.publish([poison, good[0], good[1], invalid, good[2], good[3], poison])
    pipeline.wait_indexed(4)
    pipeline.wait_indexed(3, "deadletter")
    assert {get(d, "event.id") for d in pipeline.documents()} == {e["event"]["id"] for e in good}
    letters = pipeline.documents("deadletter")
    reasons = {get(d, "gatebook.sequence"): get(d, "event.reason") for d in letters}
    assert reasons == {0: "undecodable_event", 3: "invalid_event", 6: "undecodable_event"}


def test_bytes_that_are_no_frame_count_as_the_events_they_stand_for(pipeline: Pipeline) -> None:
    """A frame nobody can read is dead-lettered with the number of events its header names."""
    pipeline.start("intake", "index")
    pipeline.send(b"not a frame", "p1", {"gatebook-count": "7"})
    pipeline.publish([make_event()])
    pipeline.wait_indexed(1)
    pipeline.wait_indexed(1, "deadletter")
    (letter,) = pipeline.documents("deadletter")
    assert get(letter, "gatebook.count") == 7
    assert get(letter, "event.reason") == "unknown_schema"


def test_a_burst_of_failures_reaches_the_alert_receiver(pipeline: Pipeline) -> None:
    """Failures by one user become one finding, indexed with evidence, and one alert."""
    with AlertReceiver() as receiver:
        pipeline.start("intake", "index", "detect")
        pipeline.start(
            "notify",
            GATEBOOK_ALERTMANAGER_URL=receiver.url,
            GATEBOOK_ALERT_ALLOW_PRIVATE="true",
        )
        pipeline.publish([make_event("mallory", "failure") for _ in range(15)])
        wait_until("an alert", lambda: receiver.alerts, 90)
        pipeline.wait_indexed(1, "finding")
        pipeline.wait_indexed(1, "alert")
    found = pipeline.documents("finding")
    (finding,) = [f for f in found if get(f, "rule.id") == "failure_burst"]
    assert get(finding, "event.action") == "firing"
    assert get(finding, "gatebook.principal") == "user:mallory"
    assert get(finding, "gatebook.evidence")


def test_workers_scale_and_hand_over_without_loss_or_double(pipeline: Pipeline) -> None:
    """A second worker of each role joins under load and leaves again (rebalance A-B-A): every
    event is indexed once, and none twice."""
    ids = set()

    def load(frames: int) -> None:
        for number in range(frames):
            events = [make_event(f"user{number % 7}") for _ in range(20)]
            ids.update(e["event"]["id"] for e in events)
            pipeline.publish(events, f"p{number % 5}")

    pipeline.start("intake", "index")
    load(20)
    pipeline.wait_indexed(20)
    second = pipeline.start("intake", "index")
    load(20)
    pipeline.wait_members("intake", 2)
    pipeline.wait_members("index", 2)
    load(20)
    for worker in second:
        assert pipeline.kill(worker, TERM) == 0
    load(20)
    pipeline.wait_indexed(len(ids), timeout_seconds=120)
    assert {get(d, "event.id") for d in pipeline.documents()} == ids
    assert pipeline.indexed() == len(ids) == 1600
    assert pipeline.indexed("deadletter") == 0


def test_a_worker_stops_in_good_order(pipeline: Pipeline) -> None:
    """SIGTERM ends each role with exit code 0."""
    roles = ("intake", "index", "detect", "notify")
    workers = pipeline.start(*roles)
    pipeline.publish([make_event()])
    pipeline.wait_indexed(1)
    for role in roles:
        pipeline.wait_members(role, 1)
    assert [pipeline.kill(worker, TERM) for worker in workers] == [0, 0, 0, 0]


def test_a_producers_frame_tells_its_count_without_avro(pipeline: Pipeline) -> None:
    """Whoever cannot read a frame (a newer schema) still knows how many events it stands for."""
    settings = ProducerSettings.from_env(pipeline.environment(GATEBOOK_LINGER_SECONDS="1"))
    recorder = Recorder(settings)
    for _ in range(5):
        recorder.emit(make_event())
    assert recorder.close(30).complete
    counts = [headers[COUNT_HEADER] for headers in pipeline.headers("access.v1")]
    assert sum(int(count) for count in counts) == 5
