"""Findings for tests of alert targets, as the engine makes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from gatebook.processors.detect.cases import CASE_START_NS
from gatebook.processors.detect.engine import DetectionEngine, all_detectors
from gatebook.schemas.codec import decode, encode
from gatebook.schemas.documents import timestamp_text


def finding(principal: str = "acme/eve", start_ns: int = CASE_START_NS) -> dict[str, Any]:
    """A burst of failures, over the wire and back: a finding as the notify worker reads it."""
    documents = [_failure(principal, start_ns, number) for number in range(10)]
    engine = DetectionEngine(all_detectors())
    (found,) = engine.process(0, documents)
    return decode("finding.v2", encode("finding.v2", found))


def _failure(principal: str, start_ns: int, number: int) -> Mapping[str, Any]:
    time = timestamp_text(start_ns + number * 1_000_000_000)
    return {
        "@timestamp": time,
        "event": {"id": f"{start_ns:x}-{number}", "outcome": "failure", "ingested": time},
        "service": {"name": "chat"},
        "source": {"ip": "192.0.2.7"},
        "gatebook": {"principal": principal},
    }


def resolved(firing: Mapping[str, Any]) -> dict[str, Any]:
    """The end of a finding."""
    ended = copy.deepcopy(dict(firing))
    ended["event"]["action"] = "resolved"
    return ended
