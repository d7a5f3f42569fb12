"""What is kept of a delivery: records of schema alert.v2."""

from __future__ import annotations

import uuid

from gatebook.processors.alerts.base import AlertTarget, Delivery, Finding
from gatebook.schemas.codec import Record

NAMESPACE_ALERT = uuid.UUID("0f5a0c52-3b0e-4c84-9d1c-7c3b8f5b6a10")


def alert_record(
    target: AlertTarget, finding: Finding, delivery: Delivery, now_ns: int, findings: int = 1
) -> Record:
    """The record of one delivery. Its id is the same for the same finding, target and step: a
    delivery repeated after a crash is the same alert. A failure has an id of its own, and the
    delivery that succeeds later another."""
    ours, event = finding["gatebook"], finding["event"]
    name = f"{event['id']}|{target.name}|{event['action']}"
    if delivery.outcome == "failure":
        name += f"|failure|{delivery.reason}"
    return {
        "timestamp": now_ns,
        "event": {
            "id": str(uuid.uuid5(NAMESPACE_ALERT, name)),
            "kind": "alert",
            "action": event["action"],
            "outcome": delivery.outcome,
            "reason": delivery.reason,
            "duration": delivery.duration_ns,
        },
        "rule": {"id": finding["rule"]["id"], "name": finding["rule"]["name"]},
        "http": {"response": {"status_code": delivery.status_code}},
        "gatebook": {
            "target": target.name,
            "target_type": target.type,
            "finding_id": event["id"],
            "dedup_key": ours["dedup_key"],
            "severity": ours["severity"],
            "attempts": delivery.attempts,
            "incident": ours.get("incident") or "",
            "group": ours.get("group") or "",
            "team": ours.get("team") or "",
            "findings": findings,
        },
    }
