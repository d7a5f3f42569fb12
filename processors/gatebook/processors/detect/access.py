"""What detectors see of a document: a few typed fields, read once per event."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from time import strptime
from typing import Any

import msgspec

NANOSECONDS = 1_000_000_000
ID_DIGEST_BYTES = 8
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):?(\d\d))")
_NONE: Mapping[str, Any] = {}


class Access(msgspec.Struct, gc=False):
    """One access as detectors see it. An empty string means: not known.

    `timestamp_ns` is event time; where the producer's clock ran too far ahead of intake's it is
    the time intake accepted the event, and `clamped` is true. `id_digest` stands for the event id
    in duplicate checks. `secrets` counts what redaction found, by kind.
    """

    event_id: str
    id_digest: bytes
    timestamp_ns: int
    clamped: bool
    principal: str
    principal_field: str
    outcome: str
    reason: str
    action: str
    user_id: str
    organization_id: str
    source_ip: str
    service: str
    model: str
    redacted: Mapping[str, int]


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    return timegm(strptime(text, "%Y-%m-%dT%H:%M:%S"))


def parse_time_ns(text: str) -> int:
    """ISO 8601 with up to nine decimals to nanoseconds since 1970. Raises ValueError."""
    if len(text) == 30 and text[19] == "." and text[29] == "Z" and text[20:29].isdigit():
        return _second(text[:19]) * NANOSECONDS + int(text[20:29])
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a timestamp")
    second, decimals, sign, hours, minutes = match.groups()
    offset = (int(hours) * 60 + int(minutes)) * 60 if sign else 0
    shifted = _second(second) + (offset if sign == "-" else -offset)
    return shifted * NANOSECONDS + int((decimals or "").ljust(9, "0"))


def id_digest(event_id: str) -> bytes:
    """Eight bytes that stand for an event id; keyed by nothing, the same in every process."""
    return blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=ID_DIGEST_BYTES).digest()


def _identity(principal: str, user_id: str, key_id: str, source_ip: str) -> tuple[str, str]:
    """Who the access counts for and the field that says so; intake's principal comes first."""
    if principal:
        return principal, "gatebook.principal"
    if user_id:
        return user_id, "user.id"
    if key_id:
        return key_id, "gatebook.identity.key_id"
    return source_ip, "source.ip"


def _redacted(redaction: Mapping[str, Any]) -> Mapping[str, int]:
    counts: Mapping[str, int] = redaction.get("counts") or _NONE
    entities = redaction.get("entities")
    if not entities:
        return counts
    return {kind: int(counts.get(kind, 1)) for kind in {*entities, *counts}}


def read_access(document: Mapping[str, Any], max_ahead_ns: int) -> Access:
    """The access in a document. Raises ValueError, KeyError, TypeError or AttributeError where
    the document has no id or no time or is not shaped like one.

    `max_ahead_ns` bounds clock skew against `event.ingested`, which is intake's own clock and
    part of the document: the same document gives the same access in every run. A document
    without `event.ingested` is taken at its word.
    """
    event = document["event"]
    timestamp_ns = parse_time_ns(document["@timestamp"])
    ingested = event.get("ingested")
    clamped = False
    if ingested is not None and timestamp_ns - (latest := parse_time_ns(ingested)) > max_ahead_ns:
        timestamp_ns, clamped = latest, True
    gatebook = document.get("gatebook") or _NONE
    user_id = (document.get("user") or _NONE).get("id") or ""
    source_ip = (document.get("source") or _NONE).get("ip") or ""
    key_id = (gatebook.get("identity") or _NONE).get("key_id") or ""
    principal, field = _identity(gatebook.get("principal") or "", user_id, key_id, source_ip)
    redaction = gatebook.get("redaction")
    event_id = event["id"]
    return Access(
        event_id,
        id_digest(event_id),
        timestamp_ns,
        clamped,
        principal,
        field,
        event.get("outcome") or "",
        event.get("reason") or "",
        event.get("action") or "",
        user_id,
        (document.get("organization") or _NONE).get("id") or "",
        source_ip,
        (document.get("service") or _NONE).get("name") or "",
        ((document.get("gen_ai") or _NONE).get("request") or _NONE).get("model") or "",
        _redacted(redaction) if redaction else _NONE,
    )


def is_intent(document: Mapping[str, Any]) -> bool:
    """Whether this is the record written before the call; its terminal event is what counts."""
    return bool((document.get("gatebook") or _NONE).get("phase") == "intent")
