"""What is given up as the buffers fill, step by step, and that all of it is said."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft
from gatebook.producers.ladder import BARE, COUNTERS, FULL, METADATA, next_step
from gatebook.producers.metrics import METRICS, ProducerCollector
from gatebook.producers.recorder import Counters, Recorder
from gatebook.producers.tape import Tape

MakeRecorder = Callable[..., Recorder]
CHILD = Path(__file__).with_name("degrade_child.py")
MIB = 1024 * 1024
CONTENT = b'{"input_messages":"' + b"word " * 2000 + b'"}'


@pytest.mark.parametrize(
    ("step", "fill", "wanted"),
    [
        (FULL, 0.49, FULL),
        (FULL, 0.5, METADATA),
        (FULL, 0.8, BARE),
        (FULL, 1.0, BARE),
        (FULL, 1.01, COUNTERS),
        (METADATA, 0.41, METADATA),
        (METADATA, 0.39, FULL),
        (BARE, 0.65, BARE),
        (BARE, 0.6, METADATA),
        (COUNTERS, 0.85, COUNTERS),
        (COUNTERS, 0.7, BARE),
        (COUNTERS, 0.0, FULL),
    ],
)
def test_a_step_begins_at_its_fill_and_ends_well_below(step: int, fill: float, wanted: int) -> None:
    """A buffer that stands at an edge does not swing."""
    assert next_step(step, fill) == wanted


def content_event() -> dict[str, Any]:
    return {
        "event": {"kind": "event", "action": "chat"},
        "gatebook": {"phase": "terminal", "capture": {"level": "redacted"}},
        "content": CONTENT,
        "content_encoding": "json",
    }


def fill(recorder: Recorder) -> int:
    """Emit until events are but counted, which may take a while: the writer makes them smaller. How
    many that were."""
    emitted = 0

    def is_full() -> bool:
        nonlocal emitted
        emitted += 1
        recorder.emit(content_event())
        return set(recorder.counters().dropped) == {"buffer_full"}

    wait_until("events are but counted", is_full, poll_seconds=0)
    return emitted


def reasons(events: list[dict[str, Any]]) -> list[str]:
    return [event["gatebook"]["capture"]["degraded_reason"] for event in events]


def test_content_goes_first_then_events_are_counted_and_all_comes_back(
    make_recorder: MakeRecorder, published: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """While the broker is away; each change is logged once, and every event is accounted for."""
    caplog.set_level(logging.INFO, logger="gatebook.producers")
    recorder = make_recorder(
        delivery_mode="best_effort",
        memory_buffer_max_bytes=128 * 1024,
        frame_max_bytes=16 * 1024,
        capture_level="redacted",
    )
    published.publisher.down = True
    emitted = fill(recorder)
    wait_until("the step is said", lambda: "step counters" in caplog.text)
    counters = recorder.counters()
    fuller = [step for step in counters.steps_entered if step != "full"]  # the writer may catch up
    assert fuller == ["metadata", "bare", "counters"]
    assert set(counters.dropped) == {"buffer_full"}
    assert counters.reduced["content"] > 0

    published.publisher.down = False
    assert recorder.flush(30).complete
    wait_until("the ladder is left", lambda: recorder.counters().step == FULL)
    recorder.emit(content_event())
    assert recorder.close(30).complete

    events = published.events()
    assert (reasons(events)[0], reasons(events)[-1]) == ("", "")
    kept = [event["content"] == CONTENT for event in events]
    assert [reason == "" for reason in reasons(events)] == kept
    assert set(reasons(events)) == {"", "buffer"}
    after = recorder.counters()
    assert len(events) == after.acknowledged == emitted + 1 - after.dropped["buffer_full"]
    assert reasons(events).count("buffer") == after.reduced["content"]
    assert published.frames()[-1].header.losses == after.dropped
    said = [r.getMessage() for r in caplog.records if "now recording step" in r.getMessage()]
    assert len(said) == sum(after.steps_entered.values())
    assert said[-1].endswith("full")


def test_a_full_spool_costs_content_before_it_costs_events(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """The spool is a buffer like memory, and both are looked at."""
    recorder = make_recorder(
        spool_max_bytes=256 * 1024, frame_max_bytes=16 * 1024, capture_level="redacted"
    )
    published.publisher.down = True
    emitted = 0

    def reduced() -> int:
        nonlocal emitted
        emitted += 1
        recorder.emit(content_event())
        return recorder.counters().reduced.get("content", 0)

    wait_until("content is left out", reduced)
    assert recorder.counters().dropped == {}
    published.publisher.down = False
    assert recorder.close(30).complete
    events = published.events()
    assert len(events) == emitted
    assert reasons(events)[0] == ""
    assert set(reasons(events)) == {"", "buffer"}


def draft(settings: ProducerSettings) -> AccessDraft:
    made = AccessDraft(
        settings=settings,
        content_key=b"k" * 32,
        started_ns=1,
        path="/v1/chat/completions",
        source_ip="192.0.2.7",
        request=Tape(settings.body_max_bytes),
        answer=Tape(settings.body_max_bytes),
        status=200,
        sent_all=True,
    )
    made.request.add(b'{"model":"slm","messages":[{"role":"user","content":"secret"}]}')
    return made


def test_an_access_without_its_bodies_still_says_who_and_how_it_ended() -> None:
    """And that something is missing, and why."""
    made = draft(ProducerSettings(capture_level="redacted"))
    size = made.request.total_bytes
    assert made.shed("buffer")
    assert made.size_bytes == 0
    assert not made.shed("buffer"), "there is nothing left to give up"
    event = made.build()
    assert event["gatebook"]["capture"]["degraded_reason"] == "buffer"
    assert event["gatebook"]["capture"]["truncated"] is True
    assert (event["event"]["action"], event["event"]["outcome"]) == ("chat", "success")
    assert event["source"]["ip"] == "192.0.2.7"
    assert event["http"]["request"]["body"]["bytes"] == size
    assert event["gen_ai"]["request"]["model"] == ""
    assert event["content"].compose({}) is None


def test_the_ladder_is_in_the_metrics(make_recorder: MakeRecorder, published: Any) -> None:
    """An operator sees the step, its changes and what was lost to it."""
    recorder = make_recorder(
        delivery_mode="best_effort", memory_buffer_max_bytes=64 * 1024, frame_max_bytes=16 * 1024
    )
    published.publisher.down = True
    fill(recorder)
    collector, registry = ProducerCollector(), CollectorRegistry()
    collector.add(recorder)
    registry.register(collector)
    gauge = next(one for one in METRICS if one.name == "gatebook_producer_degrade_step")
    assert gauge.read(Counters(step=BARE)) == BARE
    assert registry.get_sample_value(gauge.name) in (FULL, METADATA, BARE, COUNTERS)
    changes = "gatebook_producer_degrade_steps_total"
    assert (registry.get_sample_value(changes, {"step": "counters"}) or 0) >= 1
    reduced = "gatebook_producer_events_reduced_total"
    assert (registry.get_sample_value(reduced, {"what": "content"}) or 0) >= 1
    published.publisher.down = False


@pytest.mark.parametrize("mode", ["best_effort", "buffered"])
def test_memory_stays_bounded_while_the_broker_is_away(mode: str, tmp_path: Path) -> None:
    """A gigabyte is offered to 16 MiB of memory; every event is kept or counted."""
    events, body_bytes, memory, spool = 16_000, 64 * 1024, 16 * MIB, 32 * MIB
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "GATEBOOK_HOME": str(tmp_path),
        "GATEBOOK_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
        "GATEBOOK_DELIVERY_MODE": mode,
        "GATEBOOK_CAPTURE_LEVEL": "redacted",
        "GATEBOOK_MEMORY_BUFFER_MAX_BYTES": str(memory),
        "GATEBOOK_SPOOL_MAX_BYTES": str(spool),
    }
    command = [sys.executable, str(CHILD), mode, str(events), str(body_bytes)]
    child = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
    found = json.loads(child.stdout)
    assert found["grown_bytes"] < memory + 64 * MIB
    assert found["emitted"] == events
    assert found["acknowledged"] == 0
    assert found["on_the_way"] + sum(found["dropped"].values()) == events
    assert found["spool_bytes"] <= spool
    assert {"metadata", "bare"} <= set(found["entered"])
    assert found["reduced"]["bodies"] > 0
    assert b"now recording step bare" in child.stderr
