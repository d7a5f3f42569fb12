"""What an alert target is, and what is kept of a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol
from uuid import UUID, uuid5

import msgspec

DELIVERY_NAMESPACE = UUID("c1a3a4a0-6a0c-5b55-8a4c-0c7b3f1f9d12")
Finding = Mapping[str, Any]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How a delivery ended. `success` means that the target accepted the alert; not that anybody
    was paged, nor that anybody looked.

    `reason` is empty on success, else one of: rejected, unauthorized, redirected, rate_limited,
    server_error, timeout, unreachable, address_refused, secret_unreadable, unusable_finding. It
    never holds the target's own words, an address or a secret.
    """

    outcome: Literal["success", "failure"]
    status_code: int | None = None
    """Of the last answer; None where there was none."""
    attempts: int = 0
    """Requests made."""
    reason: str = ""
    """Why it failed."""
    duration_ns: int = 0
    """From the first attempt to the end of the last."""


class AlertTarget(Protocol):
    """Takes findings (records of schema finding.v1) to where people are paged."""

    @property
    def name(self) -> str:
        """Name of this target, as an operator chose it."""

    @property
    def type(self) -> str:
        """Kind of target: alertmanager, ..."""

    async def deliver(self, finding: Finding) -> Delivery:
        """Hand one finding over; returns when it is accepted or given up, within the target's
        deadline. Never raises for the target's sake. Delivering the same finding again is safe:
        targets tell by the dedup key that it is the same problem."""

    async def close(self) -> None:
        """Give connections back."""


def alert_record(
    target: AlertTarget, finding: Finding, delivery: Delivery, ended_at_ns: int
) -> dict[str, Any]:
    """The record of schema alert.v1 for one delivery. Its id is the same for the same finding,
    target and state: a delivery repeated after a crash is the same alert."""
    event, gatebook, rule = finding["event"], finding["gatebook"], finding["rule"]
    name = f"{event['id']}|{target.name}|{event['action']}"
    return {
        "timestamp": ended_at_ns,
        "event": {
            "id": str(uuid5(DELIVERY_NAMESPACE, name)),
            "kind": "alert",
            "action": event["action"],
            "outcome": delivery.outcome,
            "reason": delivery.reason,
            "duration": delivery.duration_ns,
        },
        "rule": {"id": rule["id"], "name": rule["name"]},
        "http": {"response": {"status_code": delivery.status_code}},
        "gatebook": {
            "target": target.name,
            "target_type": target.type,
            "finding_id": event["id"],
            "dedup_key": gatebook["dedup_key"],
            "severity": gatebook["severity"],
            "attempts": delivery.attempts,
        },
    }
