"""What happened to a policy, as events of the same log: who watches the accesses sees this too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

CATEGORY = "configuration"
COMPONENT = "capture_policy"

POLICY_CHANGED = "capture_policy_changed"
POLICY_BROKEN = "capture_policy_broken"
REQUESTED = "break_glass_requested"
APPROVED = "break_glass_approved"
REVOKED = "break_glass_revoked"
ACTIVE = "break_glass_active"
ENDED = "break_glass_ended"
REFUSED = "break_glass_refused"
# Attribute `in_force` of POLICY_BROKEN: what holds instead of the broken file.
LAST_GOOD = "last_good"
NEVER_GOOD = "fallback"
# Attributes that hold what a person wrote; the others are codes, names, digests and ids of ours.
WRITTEN = ("justification",)
_TYPES = {POLICY_BROKEN: "error", REFUSED: "denied"}


class Notice(NamedTuple):
    """One thing that happened. `reason` is a code. `attributes` holds ids, digests and names; of
    a policy file's text, nothing."""

    action: str
    reason: str = ""
    attributes: Mapping[str, str] = {}
    user_id: str = ""


class ControlEvent:
    """A notice on its way into the log (see inbox.Draft). Not an access: no policy applies to it,
    and it holds nothing that one could be about."""

    size_bytes = 0

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self._at_ns = time.time_ns()

    @staticmethod
    def scrubbed(
        event: Mapping[str, Any], scrub: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The event with what a person wrote in it scrubbed. Digests look like secrets, and are
        what a notice is for."""
        attributes = event["attributes"]
        written = {name: attributes[name] for name in WRITTEN if name in attributes}
        clean = scrub({"attributes": written})["attributes"]
        return {**event, "attributes": {**attributes, **clean}}

    def build(self) -> dict[str, Any]:
        """The event."""
        notice = self.notice
        kind = _TYPES.get(notice.action, "change")
        return {
            "timestamp": self._at_ns,
            "event": {
                "kind": "event",
                "category": CATEGORY,
                "type": kind,
                "action": notice.action,
                "outcome": "success" if kind == "change" else "failure",
                "reason": notice.reason,
                "end": self._at_ns,
                "duration": 0,
            },
            "user": {"id": notice.user_id},
            "gatebook": {"phase": "terminal", "component": COMPONENT},
            "attributes": {name: text for name, text in notice.attributes.items() if text},
        }
