"""Documents for tests of detection, and a small model of the world around an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

import orjson

from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.registry import load_detector
from gatebook.schemas.documents import timestamp_text

NS = 1_000_000_000
START_NS = 1_767_603_600 * NS
Document = dict[str, Any]
Message = Sequence[Document]

# Small figures, so that short streams reach every state.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "failure_burst": {"threshold": 3, "window_seconds": 20, "quiet_seconds": 30},
    "rate_baseline": {
        "floor": 3.0,
        "ratio": 2.0,
        "deviations": 1.0,
        "minimum_buckets": 2,
        "cold_start": 5.0,
        "half_life_buckets": 10,
        "idle_buckets_limit": 5,
        "quiet_seconds": 60,
    },
    "secret_in_content": {"window_seconds": 120},
}


def access(
    number: int,
    seconds: float,
    principal: str = "acme/eve",
    *,
    outcome: str = "success",
    secrets: Mapping[str, int] | None = None,
    **groups: Mapping[str, Any],
) -> Document:
    """One document as intake renders it; `number` makes its id."""
    time = timestamp_text(START_NS + round(seconds * NS))
    gatebook: dict[str, Any] = {"principal": principal} if principal else {}
    if secrets:
        gatebook["redaction"] = {"entities": sorted(secrets), "counts": dict(secrets)}
    event = {"id": str(UUID(int=number)), "outcome": outcome, "ingested": time}
    document: Document = {"@timestamp": time, "event": event, "gatebook": gatebook}
    for name, values in groups.items():
        document[name] = {**document.get(name, {}), **values}
    return document


@cache
def small_detectors() -> tuple[Detector, ...]:
    """Three detectors at small figures; detectors hold no state, so engines may share them."""
    return tuple(load_detector(name, overrides) for name, overrides in SMALL.items())


def small_engine(**limits: int) -> DetectionEngine:
    """An engine with three detectors at small figures."""
    return DetectionEngine(small_detectors(), Limits(**limits))


def distinct(findings: Sequence[Mapping[str, Any]]) -> set[bytes]:
    """The findings, each once, as bytes: ids and bodies alike."""
    return {orjson.dumps(finding, option=orjson.OPT_SORT_KEYS) for finding in findings}


def firing(findings: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Those that begin an incident or say that it became graver."""
    return [finding for finding in findings if finding["event"]["action"] == "firing"]


def ids(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Finding ids, in order."""
    return [finding["event"]["id"] for finding in findings]
