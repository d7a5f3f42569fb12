"""Make an event that is too large small enough: without its content, said so in the event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatebook.schemas.codec import decode_event, encode_event
from gatebook.schemas.errors import RecordRejected

# Groups that stay when dropping the content alone does not help: when, who, where, how it ended.
_KEPT = ("timestamp", "event", "service", "user", "organization", "source", "http", "error")


def shrink_event(data: bytes, reason: str) -> bytes | None:
    """An encoded event without content, and if it had none, with its main groups only.

    `reason` goes to gatebook.capture.degraded_reason. None where the bytes are not an event.
    """
    try:
        return encode_event(without_content(decode_event(data), reason))
    except RecordRejected:
        return None


def without_content(event: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """A new event with less in it, which says so."""
    ours = event.get("gatebook") or {}
    capture = {**(ours.get("capture") or {}), "truncated": True, "degraded_reason": reason}
    if event.get("content"):
        small = {**event, "content": None, "content_encoding": ""}
    else:
        small = {name: event[name] for name in _KEPT if name in event}
        ours = {name: ours[name] for name in ("identity", "phase", "retention") if name in ours}
    return {**small, "gatebook": {**ours, "capture": capture}}
