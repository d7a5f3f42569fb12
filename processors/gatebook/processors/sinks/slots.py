"""Where a document of a day belongs, when the day's index was cut, rewritten or deleted. Pure.

A day has one slot, `{namespace}-{kind}-YYYY.MM.DD`; one that grew too large has more of them,
`...-p2`, `...-p3`, each from a full hour on. Which slot an event belongs to follows from its own
time alone, so that a replay meets the first copy. A slot is an index of that name, or an alias of
that name on the index it was rewritten into (`...-r1`), or on the one that holds what a legal hold
kept of it (`...-held-...`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import orjson

DAY = re.compile(r"\d{4}\.\d{2}\.\d{2}")
_NAME = re.compile(
    r"(?P<held>held-)?(?P<slot>(?P<day>\d{4}\.\d{2}\.\d{2})(?:-p(?P<part>\d{1,3}))?)"
    r"(?:-r(?P<revision>\d{1,6}))?"
)
_FIRST_KEY = b'{"@timestamp":"'  # documents are rendered with sorted keys
_TIME_BYTES = 19  # to the second: cuts are at full hours

# What a retention policy tells documents apart by. All are keywords.
GROUP_FIELDS = (
    ("tenant", "organization.id"),
    ("model", "gen_ai.request.model"),
    ("service", "service.name"),
    ("operation", "gen_ai.operation.name"),
    ("outcome", "event.outcome"),
    ("data_class", "gatebook.capture.data_class"),
    ("level", "gatebook.capture.level"),
    ("metadata", "gatebook.retention.metadata"),
    ("redacted", "gatebook.retention.redacted"),
    ("full", "gatebook.retention.full"),
)
_PATHS = tuple(tuple(path.split(".")) for _, path in GROUP_FIELDS)
Group = tuple[str, ...]
INTENT_SUFFIX = ":intent"


@dataclass(frozen=True, slots=True)
class IndexName:
    """What the name of an index says. slot: day and part, such as `2026.01.31-p2`."""

    name: str
    slot: str
    day: str
    part: int = 1
    revision: int = 0
    is_held: bool = False


def parse_index(namespace: str, kind: str, name: str) -> IndexName | None:
    """What an index's name says; None where it is not one of this kind."""
    prefix = f"{namespace}-{kind}-"
    found = _NAME.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
    if found is None:
        return None
    return IndexName(
        name,
        found["slot"],
        found["day"],
        int(found["part"] or 1),
        int(found["revision"] or 0),
        bool(found["held"]),
    )


def without_revision(name: str) -> str:
    """The name of the slot an index stands or stood for, whatever it was rewritten into."""
    return re.sub(r"-r\d{1,6}$", "", name).replace("-held-", "-", 1)


# -- groups -------------------------------------------------------------------------------------


def group_of(document: Mapping[str, Any]) -> Group:
    """What a policy tells a document apart by, in the order of GROUP_FIELDS; "" for what is not
    known."""
    return tuple(_text_at(document, path) for path in _PATHS)


def _text_at(document: Mapping[str, Any], path: tuple[str, ...]) -> str:
    node: Any = document
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, str) else ""


def group_tag(group: Group) -> str:
    """16 characters that stand for a group."""
    digest = hashlib.sha256()
    for part in group:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()[:16]


def is_sampled(document: Mapping[str, Any], keep_one_in: int) -> bool:
    """Whether this document is one of those that thinning keeps. Events of one trace are kept or
    go together, and so do an intent and its end."""
    name = _text_at(document, ("trace", "id")) or _text_at(document, ("event", "id"))
    digest = hashlib.sha256(name.removesuffix(INTENT_SUFFIX).encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8], "big") % keep_one_in == 0


# -- gates --------------------------------------------------------------------------------------


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What retention took out of a slot for good. `gone`: all of it. `dropped`: tags of groups.
    `thinned`: keep-one-in by tag of group. What a hold kept is still there. `whose`: tags of the
    groups by tenant ("": of none), so that a tenant can be told what it lost; of older ones it is
    not known. Where all is gone, tenants that had something there; none: it is not told apart."""

    gone: bool = False
    dropped: tuple[str, ...] = ()
    thinned: dict[str, int] = {}
    whose: dict[str, tuple[str, ...]] = {}


class Gates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What sinks have to know of retention. cuts: by kind and day, the full hours from which on
    another slot begins, in order. closed: by kind and slot."""

    cuts: dict[str, dict[str, tuple[str, ...]]] = {}
    closed: dict[str, dict[str, Closed]] = {}

    def slot_of(self, kind: str, day: str, body: bytes) -> str:
        """The slot of a document: day and part."""
        cuts = self.cuts.get(kind, {}).get(day) if self.cuts else None
        if not cuts:
            return day
        at = time_of(body)
        return slot_name(day, 1 + sum(cut <= at for cut in cuts))

    def is_past(self, kind: str, slot: str, body: bytes) -> bool:
        """Whether retention took this document away, or would have. A hold may have kept it."""
        closed = self.closed.get(kind, {}).get(slot) if self.closed else None
        return closed is not None and is_closed_to(closed, body)


OPEN = Gates()


def is_closed_to(closed: Closed, body: bytes) -> bool:
    """Whether a slot does not take this document any more."""
    if closed.gone:
        return True
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False  # the store refuses it
    tag = group_tag(group_of(document))
    if tag in closed.dropped:
        return True
    keep_one_in = closed.thinned.get(tag)
    return keep_one_in is not None and not is_sampled(document, keep_one_in)


def slot_name(day: str, part: int) -> str:
    """Day and part as they stand in the name of an index."""
    return day if part == 1 else f"{day}-p{part}"


def time_of(body: bytes) -> str:
    """@timestamp of a rendered document to the second, such as `2026-01-31T12:00:00`; "" where it
    has none."""
    if body.startswith(_FIRST_KEY):
        return body[len(_FIRST_KEY) : len(_FIRST_KEY) + _TIME_BYTES].decode("ascii", "replace")
    try:
        found = orjson.loads(body).get("@timestamp", "")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return str(found)[:_TIME_BYTES]


def span_of(slot: str, cuts: tuple[str, ...] = ()) -> tuple[str, str]:
    """From when (inclusive) until when (exclusive) a slot's documents are, as ISO 8601 without a
    zone. `cuts`: those of its day."""
    day, _, part = slot.partition("-p")
    start = day.replace(".", "-") + "T00:00:00"
    end = (datetime.fromisoformat(start) + timedelta(days=1)).isoformat()
    bounds = (start, *cuts, end)
    number = int(part or 1) - 1
    if number + 1 >= len(bounds):
        return start, end
    return bounds[number], bounds[number + 1]
