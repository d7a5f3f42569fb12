"""What an alert target is, and what is kept of a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

Finding = Mapping[str, Any]
FIRING = "firing"
ACKNOWLEDGED = "acknowledged"
RESOLVED = "resolved"
# A person's verdict, written to the finding topic like a finding and never sent to a target.
CLOSED = "closed"
# Rules that stand for several findings; no detector has these ids.
GROUP_RULE = "alert_group"
DIGEST_RULE = "alert_digest"
SEVERITIES = ("info", "warning", "error", "critical")


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
    detail: str = ""
    """With secret_unreadable: the reference (env:NAME, file:/path), and whether it is missing or
    malformed; for people and logs. Never the secret."""
    duration_ns: int = 0
    """From the first attempt to the end of the last."""
    retry_after_seconds: float = 0.0
    """The target does not want to be asked again before; 0: it did not say."""


class AlertTarget(Protocol):
    """Takes findings (records of schema finding.v2) to where people are paged.

    `event.action` says which step it is: firing, acknowledged or resolved. A target that has no
    such step sends nothing and says success.
    """

    @property
    def name(self) -> str:
        """Name of this target, as an operator chose it."""

    @property
    def type(self) -> str:
        """Kind of target: alertmanager, pagerduty, ..."""

    @property
    def resends(self) -> bool:
        """Whether an active alert must be sent again and again, or it ends by itself."""

    @property
    def updates(self) -> bool:
        """Whether an active alert may be sent again with other figures without calling anybody
        a second time."""

    @property
    def calls(self) -> bool:
        """Whether it calls a person; a digest is not sent there unasked."""

    async def deliver(self, finding: Finding) -> Delivery:
        """Hand one finding over; returns when it is accepted or given up, within the target's
        deadline. Never raises for the target's sake. Delivering the same finding again is safe:
        targets tell by the dedup key that it is the same problem, or show the same id twice."""

    async def close(self) -> None:
        """Give connections back."""
