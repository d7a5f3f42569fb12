"""What detection hears of producers: a frame that is missing, one that falls silent, one that comes
back. From raw frames through intake to findings, on real engines."""

from __future__ import annotations

from typing import Any

import httpx
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.pipeline import TERM, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.schemas.topics import topic_name

PARAMETERS = """
[sequence_gap]
grace_seconds = 1
[silent_producer]
threshold = 4
minimum = 2
"""


def told(pipeline: Pipeline, rule: str) -> list[dict[str, Any]]:
    """Findings of a rule, in the order they were sent."""
    found = pipeline.read_topic("finding.v1", "finding.v2")
    return [finding for finding in found if finding["rule"]["id"] == rule]


def actions(pipeline: Pipeline, rule: str) -> list[str]:
    return [finding["event"]["action"] for finding in told(pipeline, rule)]


def test_gaps_and_silence_of_a_producer_are_told(pipeline: Pipeline) -> None:
    """A number that never came is told after its time of grace. When the producer falls silent
    that is told, too, though no message comes any more; its next word ends it. The worker's
    metrics tell how much it keeps and how long it took to have it back."""
    file = pipeline.home / "detectors.toml"
    file.write_text(PARAMETERS)
    environment = {
        "GATEBOOK_DETECTORS_FILE": str(file),
        "GATEBOOK_DETECT_IDLE_SECONDS": "0.5",
        "GATEBOOK_CLOCK_MARGIN_SECONDS": "0.5",
    }
    (port,) = free_ports(1)
    pipeline.start("intake", **environment)
    pipeline.start("detect", **environment, GATEBOOK_METRICS_PORT=str(port))
    pipeline.publish([make_event()])
    pipeline.frame([make_event()])  # made, numbered, and lost on the way
    pipeline.publish([make_event()])
    wait_until("the gap", lambda: actions(pipeline, "sequence_gap") == ["firing"], 90)
    wait_until("the silence", lambda: actions(pipeline, "silent_producer") == ["firing"], 90)
    (gap,) = told(pipeline, "sequence_gap")
    assert gap["gatebook"]["observed"] == 1
    assert gap["gatebook"]["search"] == 'gatebook.producer_id:"p1"'
    pipeline.publish([make_event()])
    wait_until(
        "its end",
        lambda: actions(pipeline, "silent_producer")[:2] == ["firing", "resolved"],
        90,
    )
    first, second = told(pipeline, "silent_producer")[:2]
    assert first["gatebook"]["incident"] == second["gatebook"]["incident"]
    figures = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert _figure(figures, "gatebook_detect_state_bytes") > 0
    assert _figure(figures, 'gatebook_detect_keys{scope="frames"}') == 1
    assert _figure(figures, "gatebook_detect_recovery_seconds_count") >= 2
    assert _figure(figures, 'gatebook_detect_counts_total{what="evicted"}') == 0


def empty(pipeline: Pipeline, topic: str, partition: int, before: int) -> None:
    """Delete what a partition holds before an offset, read or not."""
    admin = AdminClient({"bootstrap.servers": pipeline.engines.kafka_bootstrap})
    here = TopicPartition(topic_name(pipeline.namespace, topic), partition, before)
    for done in admin.delete_records([here]).values():
        done.result(30)


def test_a_gap_is_told_though_another_partition_lost_what_it_held(pipeline: Pipeline) -> None:
    """Messages that were deleted before they were read leave a partition whose end is never
    reached by reading. Nothing is left in it, so its time goes on, and gaps of producers in the
    other partitions are told."""
    file = pipeline.home / "detectors.toml"
    file.write_text(PARAMETERS)
    environment = {
        "GATEBOOK_DETECTORS_FILE": str(file),
        "GATEBOOK_DETECT_IDLE_SECONDS": "0.5",
        "GATEBOOK_CLOCK_MARGIN_SECONDS": "0.5",
    }
    (intake,) = pipeline.start("intake", **environment)
    pipeline.wait_members("intake", 1)
    pipeline.publish([make_event()], "p1", partition=0)
    pipeline.publish([make_event()], "p2", partition=1)
    wait_until("both are read", lambda: pipeline.committed("intake", "access.v1") == 2, 90)
    pipeline.kill(intake, TERM)
    pipeline.publish([make_event()], "p2", partition=1)  # nobody reads it
    empty(pipeline, "access.v1", 1, 2)
    pipeline.start("intake", "detect", **environment)
    pipeline.frame([make_event()], "p1")  # lost on the way
    pipeline.publish([make_event()], "p1", partition=0)
    wait_until("the gap", lambda: actions(pipeline, "sequence_gap") == ["firing"], 90)
    (gap,) = told(pipeline, "sequence_gap")
    assert gap["gatebook"]["search"] == 'gatebook.producer_id:"p1"'


def _figure(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])
