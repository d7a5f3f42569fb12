"""Holding an event to a decision: what it may say, and no more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatebook.producers.classify import MESSAGES
from gatebook.producers.content import LateContent
from gatebook.producers.formats_actions import KNOWN_ACTIONS
from gatebook.producers.policy.fields import with_fields, without_parts
from gatebook.producers.policy.match import Decision

UNKNOWN = "unknown"
# What an event that only counts may say, of closed lists: nothing that somebody typed.
_CATEGORIES = frozenset({"api", "authentication"})
_TYPES = frozenset({"access", "denied", "error"})
_OUTCOMES = frozenset({"success", "failure", "unknown"})
_PHASES = frozenset({"terminal", "intent"})
_TIMES = ("id", "created", "end", "duration")
_SERVICE = ("name", "version", "environment", "node")
_DEGRADED = ("truncated", "degraded_reason")


def held(event: Mapping[str, Any], decision: Decision, secret: bytes) -> dict[str, Any]:
    """The event as the decision lets it be; `secret` keys the digests of fields."""
    if decision.level == "none":
        return counted(event, decision)
    ours = event.get("gatebook") or {}
    given = ours.get("capture") or {}
    capture = {**decision.capture, **{name: given[name] for name in _DEGRADED if name in given}}
    content, encoding = _content(event, decision, capture)
    allowed = {
        **event,
        "gatebook": {**ours, "capture": capture, "retention": decision.retention},
        "content": content,
        "content_encoding": encoding,
    }
    return with_fields(allowed, decision.actions, secret) if decision.actions else allowed


def _content(
    event: Mapping[str, Any], decision: Decision, capture: dict[str, Any]
) -> tuple[bytes | None, str]:
    """What of the content stays, and its encoding; what was cut is said in `capture`."""
    content = event.get("content")
    if not content or not decision.wants_content:
        return None, ""
    encoding = event.get("content_encoding") or ""
    if isinstance(content, LateContent):
        content, encoding = content.compose(capture), "json"
    if content and decision.dropped_parts:
        content = without_parts(content, decision.dropped_parts)
    return (content, encoding) if content else (None, "")


def counted(event: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """All that level none leaves: that there was an access, when, of which service, and how it
    ended. It names nobody and nothing; with its number the log stays complete."""
    inner = event.get("event") or {}
    service = event.get("service") or {}
    phase = (event.get("gatebook") or {}).get("phase")
    told = {
        "kind": "event",
        "category": _one_of(inner.get("category"), _CATEGORIES, "api"),
        "type": _one_of(inner.get("type"), _TYPES, "access"),
        "action": _one_of(inner.get("action"), KNOWN_ACTIONS, UNKNOWN),
        "outcome": _one_of(inner.get("outcome"), _OUTCOMES, UNKNOWN),
        "reason": _one_of(inner.get("reason"), MESSAGES.keys(), ""),
    }
    return {
        "timestamp": event.get("timestamp", 0),
        "event": {**{name: inner[name] for name in _TIMES if name in inner}, **told},
        "service": {name: service[name] for name in _SERVICE if name in service},
        "gatebook": {
            "phase": _one_of(phase, _PHASES, "terminal"),
            "capture": decision.capture,
            "retention": decision.retention,
        },
    }


def _one_of(value: Any, known: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and value in known else otherwise
