"""Events that were made outside this package: checked against the schema, held to our policy.

What somebody else says of an access is taken field by field in the form of access_event.v2. They
decide neither what is captured, nor how much their word counts, nor producer and number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec

from gatebook.producers import values
from gatebook.producers.addresses import parse_address
from gatebook.producers.classify import MESSAGES, Ending, Verdict, judge
from gatebook.producers.config import ProducerSettings
from gatebook.producers.content import canonical, digest
from gatebook.producers.formats import OPERATIONS, action_of
from gatebook.producers.identity import content_key, key_id
from gatebook.producers.ids import uuid7
from gatebook.producers.inbox import APPROXIMATE_EVENT_BYTES
from gatebook.schemas.documents import is_group, is_time
from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.intents import INTENT, TERMINAL, intent_id
from gatebook.schemas.registry import Schema, load

SCHEMA = "access_event.v2"
MAX_ATTRIBUTES = 32
MAX_ITEMS = 64
# Intake refuses what lies further off: it is a broken clock, or a log nobody asks for any more.
MAX_AHEAD_NS = 2 * 86_400 * 10**9
MAX_BEHIND_NS = 400 * 86_400 * 10**9
# Cut where they are longer; any other text is cut at values.NAME_MAX_CHARS.
_MAX_CHARS = {
    "url.path": 1024,
    "user_agent.original": 512,
    "gen_ai.request.stop_sequences": 64,
    "attributes": 1024,
}
# Cut, two names could become one.
_NEVER_CUT = frozenset({"user.id", "organization.id", "session.id"})
_CONTENT_PARTS = (
    "input_messages", "system_instructions", "output_messages", "tools", "error_text",
)  # fmt: skip
_OUTCOMES = frozenset({"success", "failure", "unknown"})
_ASSURANCES = frozenset({"", "asserted", "failed"})
# What an intent cannot say.
_OF_THE_END = {
    "event": ("end", "duration"),
    "http": ("response",),
    "gen_ai": ("response", "usage"),
    "error": ("type", "code"),
    "gatebook": ("stream",),
}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY_ID = re.compile(r"key_[0-9a-f]{24}")
_SAFE_NAME = re.compile(r"[a-z_]{1,40}")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(Z|z|[+-]\d\d:?\d\d)"
)
Checker = Callable[[Any, str], Any]


class OutsideEvent:
    """An event that passed: a draft for the recorder, with its own id where it brought one."""

    __slots__ = ("_event", "event_id", "size_bytes")

    def __init__(self, event: Mapping[str, Any], event_id: str) -> None:
        self._event = event
        self.event_id = event_id
        extras = sum(map(len, (event.get("attributes") or {}).values()))
        self.size_bytes = APPROXIMATE_EVENT_BYTES + len(event.get("content") or b"") + extras

    def build(self) -> Mapping[str, Any]:
        """See inbox.Draft."""
        return self._event


@dataclass(frozen=True)
class Policy:
    """What this side decides. `door` says in the event's attributes how it came in;
    `wants_content` whether content could be kept at all: what is kept is decided in the writer."""

    settings: ProducerSettings
    secret: bytes
    door: str
    wants_content: Callable[[], bool] | None = None

    def admit(self, given: Any, now_ns: int | None = None, event_id: str = "") -> OutsideEvent:
        """The event that goes into the log. Raises RecordRejected("invalid_event", detail): the
        detail names the field and what is wrong with it, never a value."""
        event = check(given)
        _complete(event, time.time_ns() if now_ns is None else now_ns)
        inner = event["event"]
        event_id = _own_id(inner.pop("id", "")) or event_id
        if event["gatebook"]["phase"] == INTENT:
            event_id = intent_id(event_id or uuid7())
        self._hold_identity(event)
        self._hold_content(event)
        _hold_texts(event)
        event.setdefault("service", _service(self.settings))
        event["attributes"] = {**event.get("attributes", {}), "door": self.door}
        return OutsideEvent(event, event_id)

    def _hold_identity(self, event: dict[str, Any]) -> None:
        """Nobody here saw a proof: `verified` counts as asserted. A key becomes its digest."""
        who = event.setdefault("gatebook", {}).setdefault("identity", {})
        if who.get("assurance", "") not in _ASSURANCES or (
            not who.get("assurance") and event.get("user", {}).get("id")
        ):
            who["assurance"] = "asserted"
        if who.get("key_id") and not _KEY_ID.fullmatch(who["key_id"]):
            who["key_id"] = key_id(self.secret, who["key_id"])

    def _hold_content(self, event: dict[str, Any]) -> None:
        content, encoding = event.pop("content", None), event.pop("content_encoding", "")
        parts = _content_of(content, encoding)
        ours = event["gatebook"]
        ours["content_digest"] = self._digests(parts)
        ours["capture"] = {}
        wanted = self.wants_content() if self.wants_content else self.settings.may_want_content
        if not parts or not wanted:
            return
        data = msgspec.json.encode(parts)
        if len(data) > self.settings.content_max_bytes:
            ours["capture"] |= {"truncated": True, "degraded_reason": "content_too_large"}
            return
        event["content"], event["content_encoding"] = data, "json"

    def _digests(self, parts: Mapping[str, Any]) -> dict[str, str]:
        key = content_key(self.secret)
        asked = [parts.get(name) for name in ("system_instructions", "input_messages")]
        said = parts.get("output_messages")
        return {
            "input": digest(key, canonical(asked)) if any(asked) else "",
            "output": digest(key, canonical(said)) if said else "",
        }


def rejected(path: str, problem: str) -> RecordRejected:
    """The error for a field."""
    return RecordRejected("invalid_event", f"{path or 'the event'}: {problem}")


def _own_id(value: str) -> str:
    if value and not _UUID.fullmatch(value.lower()):
        raise rejected("event.id", "is not a UUID")
    return value.lower()


def _service(settings: ProducerSettings) -> dict[str, Any]:
    """Without a node: this process is not the one that was accessed."""
    return {
        "name": settings.service_name,
        "version": settings.service_version,
        "environment": settings.service_environment,
    }


def _content_of(content: Any, encoding: str) -> dict[str, Any]:
    """The parts of captured content, given as an object or as its JSON text."""
    if content in (None, "", {}):
        return {}
    if isinstance(content, str):
        if encoding not in ("", "json"):
            raise rejected("content_encoding", "is not json")
        content = values.parse_json(content.encode("utf-8", "replace"))
    if not isinstance(content, dict) or not set(content) <= set(_CONTENT_PARTS):
        raise rejected("content", f"is not an object with {', '.join(_CONTENT_PARTS)}")
    cleaned: dict[str, Any] = values.clean(content)
    return cleaned


def _complete(event: dict[str, Any], now_ns: int) -> None:
    """Fill in what follows from the rest, and refuse times that cannot be."""
    inner = event.setdefault("event", {})
    if not event.get("timestamp") and inner.get("id"):
        raise rejected("@timestamp", "is missing: sent again, the event could not be recognised")
    event["timestamp"] = event.get("timestamp") or now_ns
    age_ns = now_ns - event["timestamp"]
    if not -MAX_AHEAD_NS <= age_ns <= MAX_BEHIND_NS:
        raise rejected("@timestamp", "is more than 2 days ahead or 400 days back")
    _complete_times(event["timestamp"], inner)
    _complete_outcome(event, inner)
    url = event.setdefault("url", {})
    path = url["path"] = re.split(r"[?#]", url.get("path", ""), maxsplit=1)[0]
    inner["kind"] = inner.get("kind") or "event"
    method = event.get("http", {}).get("request", {}).get("method", "")
    inner["action"] = inner.get("action") or (action_of(path, method) if path else "unknown")
    operation = event.setdefault("gen_ai", {}).setdefault("operation", {})
    if not operation.get("name") and inner["action"] in OPERATIONS:
        operation["name"] = inner["action"]
    ours = event.setdefault("gatebook", {})
    ours["phase"] = ours.get("phase") or TERMINAL
    if ours["phase"] not in (TERMINAL, INTENT):
        raise rejected("gatebook.phase", "is neither terminal nor intent")
    if ours["phase"] == INTENT:
        _check_only_begun(event)


def _check_only_begun(event: Mapping[str, Any]) -> None:
    """An intent is written before the call: it cannot say how that went."""
    if event["event"]["outcome"] != "unknown":
        raise rejected("event.outcome", "is not known yet in an intent")
    for group, names in _OF_THE_END.items():
        for name in names:
            if (event.get(group) or {}).get(name):
                raise rejected(f"{group}.{name}", "is not known yet in an intent")


def _complete_times(begun_ns: int, inner: dict[str, Any]) -> None:
    end, duration = inner.get("end"), inner.get("duration")
    if duration is not None and duration < 0:
        raise rejected("event.duration", "is negative")
    if end and end < begun_ns:
        raise rejected("event.end", "is before @timestamp")
    if duration is None and end:
        inner["duration"] = end - begun_ns
    elif duration is not None and not end:
        inner["end"] = begun_ns + duration
    if inner.get("end", 0) - begun_ns > MAX_BEHIND_NS:
        raise rejected("event.end", "is more than 400 days after @timestamp")


def _complete_outcome(event: dict[str, Any], inner: dict[str, Any]) -> None:
    outcome, reason = inner.get("outcome", ""), inner.get("reason", "")
    status = event.get("http", {}).get("response", {}).get("status_code")
    if outcome and outcome not in _OUTCOMES:
        raise rejected("event.outcome", "is not success, failure or unknown")
    if reason and reason not in MESSAGES:
        raise rejected("event.reason", "is not one of the list in FIELDS.md")
    if outcome or reason:
        verdict = Verdict(outcome or "failure", reason)
    elif status is not None:
        verdict = judge(Ending(status=status, sent_all=True))
    else:
        verdict = Verdict("unknown")
    inner["outcome"], inner["reason"] = verdict.outcome, verdict.reason
    inner["category"] = inner.get("category") or verdict.category
    inner["type"] = inner.get("type") or verdict.event_type


def _hold_texts(event: dict[str, Any]) -> None:
    """Messages in our words, addresses that are some."""
    error = event.get("error", {})
    if error:
        error["message"] = MESSAGES.get(event["event"]["reason"], "")
    address = event.get("source", {}).get("ip", "")
    if address:
        parsed = parse_address(address)
        if parsed is None:
            raise rejected("source.ip", "is not an address")
        event["source"]["ip"] = str(parsed)


def nanoseconds(value: Any) -> int | None:
    """A time given as nanoseconds since 1970 or as ISO 8601 with a zone; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 1 << 63 else None
    found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone.upper()}")
        second = int(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    return max(0, second * 10**9 + int((fraction or "0").ljust(9, "0")))


# -- the schema ---------------------------------------------------------------------------------


def check(given: Any) -> dict[str, Any]:
    """The event in the form the codec takes, checked against the schema: no unknown fields, right
    types, texts valid and bounded. Null and absent are the same. Raises RecordRejected."""
    checked: dict[str, Any] = _root()(given, "")
    return checked


def leaf_kinds() -> Mapping[str, str]:
    """Every field an event can have, by its path, and what it holds: text, whole, number, flag,
    texts, time, map or content."""
    return _kinds_below(load(SCHEMA).raw, "")


def _kinds_below(schema: Schema, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for field in schema["fields"]:
        path = f"{prefix}{field['name']}"
        if is_group(field):
            found |= _kinds_below(field["type"], f"{path}.")
        else:
            found[path] = _kind(field)
    return found


def _kind(field: Mapping[str, Any]) -> str:
    kind = field["type"]
    if is_time(field):
        return "time"
    if isinstance(kind, list):
        kind = next(one for one in kind if one != "null")
    if isinstance(kind, dict):
        return {"array": "texts", "map": "map"}[kind["type"]]
    return {
        "string": "text", "long": "whole", "double": "number", "boolean": "flag",
        "bytes": "content",
    }[kind]  # fmt: skip


@cache
def _root() -> Checker:
    return _group(load(SCHEMA).raw, {"@timestamp": "timestamp"})


def _group(schema: Schema, aliases: Mapping[str, str] | None = None) -> Checker:
    names = aliases or {}
    below = {
        field["name"]: _group(field["type"]) if is_group(field) else _LEAVES[_kind(field)]
        for field in schema["fields"]
    }

    def read(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise rejected(path, "is not an object")
        out: dict[str, Any] = {}
        for number, (given_name, inner) in enumerate(value.items(), 1):
            name = names.get(given_name, given_name)
            if name not in below:
                raise rejected(path, f"has an unknown field, {_shown(given_name, number)}")
            if inner is not None:
                out[name] = below[name](inner, f"{path}.{name}" if path else name)
        return out

    return read


def _shown(name: str, number: int) -> str:
    """A name that looks like one, else its place: keys, too, may hold what somebody typed."""
    return name if _SAFE_NAME.fullmatch(name) else f"number {number}"


def _read_text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise rejected(path, "is not a text")
    limit = _MAX_CHARS.get(path, values.NAME_MAX_CHARS)
    if path in _NEVER_CUT and len(value) > limit:
        raise rejected(path, f"is longer than {limit} characters")
    return values.text(value, limit)


def _read_whole(value: Any, path: str) -> int:
    found = values.whole(value)
    if found is None:
        raise rejected(path, "is not an integer")
    return found


def _read_number(value: Any, path: str) -> float:
    found = values.number(value)
    if found is None:
        raise rejected(path, "is not a number")
    return found


def _read_flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise rejected(path, "is not true or false")
    return value


def _read_time(value: Any, path: str) -> int:
    found = nanoseconds(value)
    if found is None:
        raise rejected(path, "is neither ISO 8601 with a zone nor nanoseconds since 1970")
    return found


def _read_texts(value: Any, path: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise rejected(path, "is not a list of texts")
    return values.texts(value, MAX_ITEMS, _MAX_CHARS.get(path, values.NAME_MAX_CHARS))


def _read_map(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise rejected(path, "is not an object of texts")
    if len(value) >= MAX_ATTRIBUTES:
        raise rejected(path, f"has more than {MAX_ATTRIBUTES - 1} entries")
    limit = _MAX_CHARS["attributes"]
    return {values.text(name): values.text(inner, limit) for name, inner in value.items()}


def _read_content(value: Any, path: str) -> Any:
    return value  # judged where the policy is known


_LEAVES: dict[str, Checker] = {
    "text": _read_text,
    "whole": _read_whole,
    "number": _read_number,
    "flag": _read_flag,
    "time": _read_time,
    "texts": _read_texts,
    "map": _read_map,
    "content": _read_content,
}
