"""What detection hears of producers: a frame that is missing, one that falls silent, one that comes
back. From raw frames through intake to findings, on real engines."""

from __future__ import annotations

from typing import Any

from tests.pipeline import Pipeline, make_event
from tests.waiting import wait_until

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
    that is told, too, though no message comes any more; its next word ends it."""
    file = pipeline.home / "detectors.toml"
    file.write_text(PARAMETERS)
    environment = {
        "GATEBOOK_DETECTORS_FILE": str(file),
        "GATEBOOK_DETECT_IDLE_SECONDS": "0.5",
        "GATEBOOK_CLOCK_MARGIN_SECONDS": "0.5",
    }
    pipeline.start("intake", "detect", **environment)
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
