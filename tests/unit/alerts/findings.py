"""Findings for tests of alerts: what the notify worker reads, over the wire and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from gatebook.schemas.codec import decode, encode

NS = 1_000_000_000
# 2026-01-05, a Monday, 09:00:00 UTC.
START_NS = 1_767_603_600 * NS


def finding(principal: str = "acme/eve", start_ns: int = START_NS, **ours: Any) -> dict[str, Any]:
    """A burst of failures. `ours` are fields of `gatebook`, and `rule`, `tenant`, `model`."""
    rule = ours.pop("rule", "failure_burst")
    key = ours.pop("dedup_key", f"{rule}|{principal}")
    record = {
        "timestamp": start_ns + 9 * NS,
        "event": {
            "id": ours.pop("id", str(uuid5(NAMESPACE_URL, f"{rule}|{principal}|{start_ns}"))),
            "kind": "alert",
            "severity": 73,
            "risk_score": 60,
            "action": ours.pop("action", "firing"),
            "reason": f"{principal}: 10 accesses failed within 60 s",
            "start": start_ns,
            "end": start_ns + 9 * NS,
        },
        "rule": {
            "id": rule,
            "name": "Burst of failures",
            "version": "1",
            "reference": f"gatebook/processors/detect/{rule}/runbook.md",
        },
        "organization": {"id": ours.pop("tenant", "")},
        "source": {"ip": "192.0.2.7"},
        "service": {"name": "chat"},
        "gen_ai": {"request": {"model": ours.pop("model", "")}},
        "gatebook": {
            "principal": principal,
            "severity": "error",
            "dedup_key": key,
            "observed": 10.0,
            "threshold": 10.0,
            "evidence": [f"{start_ns:x}-{number}" for number in range(10)],
            "evidence_count": 10,
            "search": f"gatebook.principal:{_quoted(principal)} and event.outcome:failure",
            **ours,
        },
    }
    return decode("finding.v2", encode("finding.v2", record))


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def step(firing: Mapping[str, Any], action: str) -> dict[str, Any]:
    """Another step of a finding."""
    taken = copy.deepcopy(dict(firing))
    taken["event"]["action"] = action
    return taken


def resolved(firing: Mapping[str, Any]) -> dict[str, Any]:
    """The end of a finding."""
    return step(firing, "resolved")
