"""What an alert target is, and what is kept of a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

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
