"""Raw frames and outages: what erasure does to intake's keys, and what intake does without keys."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RunningEngines
from tests.integration.privacy.subject_tools import LEASE, WORD, Desk, said
from tests.pipeline import Pipeline
from tests.sealed import make_keys, opened
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import Record, decode_event, open_frame
from gatebook.schemas.keys import Bundle

PRODUCER = "sealed-test"


def record(pipeline: Pipeline, *events: Record) -> None:
    """Send events as a producer does: sealed for intake. Returns when Kafka has them."""
    settings = ProducerSettings(
        kafka_bootstrap=pipeline.engines.kafka_bootstrap,
        namespace=pipeline.namespace,
        home=str(pipeline.home),
        capture_level="full",
        producer_id=PRODUCER,
    )
    recorder = Recorder(settings)
    for event in events:
        recorder.emit({k: v for k, v in event.items() if k != "event"} | {"event": bare(event)})
    assert recorder.close(60).unacknowledged == 0


def bare(event: Record) -> Record:
    """The event group as a producer's own code gives it: without an id."""
    return {k: v for k, v in event["event"].items() if k not in ("id", "created")}


def raw_texts(pipeline: Pipeline, keys: Bundle) -> list[str]:
    """The content of every raw event of the producer, opened with these keys."""
    found = []
    for message in pipeline.messages("access.v1"):
        frame = open_frame(message.value() or b"")
        for data in frame.events:
            event = decode_event(data, frame.event_schema)
            if event["content"]:
                found.append(str(opened(event, PRODUCER, keys)["content"]))
    return found


def test_raw_frames_go_with_the_erasure_where_asked(pipeline: Pipeline) -> None:
    """With --now intake's keys are changed and the old ones destroyed once it has read what was
    sealed under them: the raw frames of before cannot be opened, and what comes anew can."""
    files = make_keys(pipeline.home)
    desk = Desk(pipeline)
    record(pipeline, said("ada"), said("bob"))
    pipeline.wait_indexed(2)
    before = files.read()
    assert sum(WORD in text for text in raw_texts(pipeline, before)) == 2
    certificate = desk.erase("ada", "--now")
    assert certificate["intake_keys_destroyed"] == [key.id for key in before.keys]
    live = [key for key in files.read().keys if key.private]
    assert {key.id for key in live}.isdisjoint(key.id for key in before.keys)
    with pytest.raises(AssertionError):
        raw_texts(pipeline, Bundle(keys=tuple(live)))
    (raw,) = (left for left in certificate["remains"] if "access.v1" in left["where"])
    assert raw["readable"] == "by nobody"
    assert (certificate["complete"], certificate["complete_when"]) == (True, [])
    bob = next(d for d in pipeline.documents() if d["user"]["id"] == "bob")
    shown = desk.json("show", bob["event"]["id"], "--reveal", "full", "--reason", "test")
    assert WORD in json.dumps(shown["content"]["full"])
    record(pipeline, said("bob"))
    wait_until(
        "the new content", lambda: sum("sealed" in d["gatebook"] for d in desk.of("bob")) == 2
    )


def test_without_the_keys_store_intake_waits(pipeline: Pipeline, engines: RunningEngines) -> None:
    """With Elasticsearch away, content of a person nobody has a key for yet is neither lost nor
    passed on in any form; metadata goes on. When it is back, everything arrives sealed."""
    pipeline.start("intake", "index", **LEASE)
    pipeline.publish([said("ada", "metadata")])
    pipeline.wait_indexed(1)
    committed = pipeline.committed("intake")
    engines.kill_elasticsearch()
    try:
        pipeline.publish([said("ada", "metadata")])
        wait_until("metadata goes on", lambda: pipeline.end("event.v1") == 2)
        pipeline.publish([said("ada"), said("bob")])
        pipeline.publish([said("ada", "metadata")])
        wait_until("intake waits", lambda: "keys of subjects cannot be fetched" in pipeline.logs())
        assert pipeline.end("event.v1") == 2
        assert pipeline.committed("intake") <= committed + 2
    finally:
        engines.start_elasticsearch()
    pipeline.wait_indexed(5, timeout_seconds=120)
    sealed = [d for d in pipeline.documents() if "sealed" in d["gatebook"]]
    assert {d["user"]["id"] for d in sealed} == {"ada", "bob"}
    assert all(d["gatebook"]["sealed"]["full"] for d in sealed)
    assert pipeline.indexed("deadletter") == 0
    assert all(WORD.encode() not in (m.value() or b"") for m in pipeline.messages("event.v1"))
