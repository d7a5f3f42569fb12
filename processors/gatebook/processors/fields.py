"""The texts of a document beside its content, and how they are redacted. Pure.

Every text of the event's schema is in one of the lists here: what is in none would be indexed as
it came, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from gatebook.processors.clean import CleanTexts
from gatebook.processors.redact import SECRET_KINDS, RedactionFailed
from gatebook.schemas.documents import Document
from gatebook.schemas.steady import STEADY_FIELDS

MAX_FIELD_CHARS = 64 * 1024
Path = tuple[str, ...]
Field = tuple[Path, Document]
"""A path, and what holds the value."""
Redact = Callable[[Any], tuple[Any, dict[str, int]]]

# What a client, a model server or an operator wrote freely is redacted like content.
FREE_TEXT_FIELDS = (
    ("user_agent", "original"),
    ("user_agent", "name"),
    ("user_agent", "version"),
    ("url", "path"),
    ("error", "message"),
    ("error", "code"),
    ("error", "type"),
    ("gen_ai", "request", "model"),
    ("gen_ai", "request", "stop_sequences"),
    ("gen_ai", "response", "model"),
    ("gen_ai", "conversation", "id"),
    ("gen_ai", "tool", "offered"),
    ("gen_ai", "tool", "called"),
    ("gatebook", "identity", "on_behalf_of"),
    ("gatebook", "attributes"),
    ("http", "request", "id"),
    ("session", "id"),
)
# Who called, and codes that say what happened, have to stay readable: a number in them is no
# telephone number. A mail address, a card, an account or a credential in them is masked all the
# same; the same person still reads the same.
CODE_FIELDS = (
    ("user", "id"),
    ("user", "name"),
    ("user", "roles"),
    ("organization", "id"),
    ("gatebook", "identity", "key_id"),
    ("gatebook", "identity", "issuer"),
    ("gatebook", "model", "resolved"),
    ("url", "domain"),
    ("http", "request", "method"),
    ("event", "action"),
    ("event", "reason"),
    ("gen_ai", "operation", "name"),
    ("gen_ai", "provider", "name"),
    ("gen_ai", "response", "id"),
    ("gen_ai", "response", "finish_reasons"),
)
_DIGEST = re.compile(r"(?:[a-z0-9-]{1,24}:){0,2}[0-9a-f]{16,128}")
# What has this form is no other value; what has not is read as a code. `user.email` is there only
# where the policy allows it.
FORMED_FIELDS = {
    ("user", "hash"): _DIGEST,
    ("user", "email"): re.compile(r"[^\s@:=,;/]{1,64}@[A-Za-z0-9.-]{1,190}"),
    ("gatebook", "content_digest", "input"): _DIGEST,
    ("gatebook", "content_digest", "output"): _DIGEST,
}
# Intake refuses an event or drops the field where these have another form than they should.
CHECKED_FIELDS = (("event", "id"), ("source", "ip"), ("trace", "id"), ("span", "id"))
_VERSION = ("user_agent", "version")
CODE_KINDS = SECRET_KINDS | {"email", "card", "iban"}
_CODES = frozenset((*CODE_FIELDS, *STEADY_FIELDS, *FORMED_FIELDS))
Groups = Sequence[tuple[Path, Sequence[tuple[Path, str]]]]


def _by_holder(paths: Iterable[Path]) -> Groups:
    return [
        (holder, [(path, path[-1]) for path in group])
        for holder, group in groupby(paths, key=lambda path: path[:-1])
    ]


_BY_HOLDER = _by_holder(FREE_TEXT_FIELDS + CODE_FIELDS)
_STEADY = _by_holder(STEADY_FIELDS)
_LEAVES = {holder: [leaf for _, leaf in leaves] for holder, leaves in _STEADY}
_OURS = [(path[1], leaves) for path, leaves in _LEAVES.items() if path[:-1] == ("gatebook",)]
_NONE: Document = {}
_ABSENT: Any = object()
_FORMED = [(path, form.fullmatch) for path, form in FORMED_FIELDS.items()]


def fields_to_read(document: Document, clean: CleanTexts) -> list[Field]:
    """Fields that may hold a value, in the order of the lists above."""
    fields = _unknown(document, _BY_HOLDER, clean)
    steady = _steady(document)
    if not clean.has_group(steady):
        unknown = _unknown(document, _STEADY, clean)
        if not unknown:
            clean.add_group(steady)
        fields += unknown
    for path, form in _FORMED:
        holder = _holder(document, path[:-1])
        if holder is not None and path[-1] in holder and not form(holder[path[-1]]):
            fields.append((path, holder))
    return fields


def _unknown(document: Document, groups: Groups, clean: CleanTexts) -> list[Field]:
    """Those of these fields in which something may be found."""
    fields: list[Field] = []
    recent = clean.recent
    for steps, leaves in groups:
        holder = _holder(document, steps)
        if holder is None:
            continue
        for path, leaf in leaves:
            value = holder.get(leaf, _ABSENT)
            if value is _ABSENT or (type(value) is str and value in recent):
                continue
            if value not in clean:
                fields.append((path, holder))
    return fields


def _steady(document: Document) -> tuple[Any, ...]:
    """What stands in the steady fields, all of them."""
    ours, service = document.get("gatebook", _NONE), document.get("service", _NONE)
    values = [*map(document.get("event", _NONE).get, _LEAVES["event",])]
    values += map(service.get, _LEAVES["service",])
    values += map(service.get("node", _NONE).get, _LEAVES["service", "node"])
    values += map(ours.get, _LEAVES["gatebook",])
    for name, leaves in _OURS:
        values += map(ours.get(name, _NONE).get, leaves)
    return tuple(values)


def _holder(document: Document, steps: Path) -> Document | None:
    node: Any = document
    for name in steps:
        node = node.get(name)
        if type(node) is not dict:
            return None
    return node  # type: ignore[no-any-return]  # a document holds documents


def values_of(fields: Sequence[Field]) -> list[Any]:
    """What stands in these fields."""
    return [holder[path[-1]] for path, holder in fields]


def remember(fields: Sequence[Field], clean: CleanTexts | None) -> None:
    """Add all values, in which nothing was found, to `clean`, if given."""
    if clean is not None:
        for path, holder in fields:
            clean.add(holder[path[-1]])


def redact_fields(
    fields: Sequence[Field], redact: Redact, counts: dict[str, int], clean: CleanTexts | None
) -> list[str]:
    """Redact in place; what cannot be redacted goes, its neighbours stay. Reasons of failures.

    What is found is added to `counts`; texts without anything are added to `clean`, if given.
    """
    failed = []
    for path, holder in fields:
        if path == _VERSION and _stands_in_original(holder):
            continue  # and is not added to `clean`: elsewhere the same text is an address
        try:
            value, found = redact(_sized(holder[path[-1]]))
        except RedactionFailed as error:
            del holder[path[-1]]
            failed.append(error.reason)
            continue
        if not found:
            if clean is not None:
                clean.add(value)
        elif path in _CODES and CODE_KINDS.isdisjoint(found):
            continue
        holder[path[-1]] = value
        add_counts(counts, found)
    return failed


def _stands_in_original(holder: Document) -> bool:
    """Whether a version of four numbers is told by the user agent, which was redacted before it:
    what that was left with, after a browser's name, is a version here, too."""
    version, original = holder[_VERSION[-1]], holder.get("original")
    if not (isinstance(version, str) and isinstance(original, str)):
        return False
    is_quad = version.count(".") == 3 and version.replace(".", "").isdecimal()
    return is_quad and any(part.endswith(f"/{version}") for part in original.split())


def _sized(value: Any) -> Any:
    """A field's value. What is longer than anybody's name, route or error is no such thing: the
    index would not find it, and it could make its document too large for the event."""
    if isinstance(value, str) and len(value) > MAX_FIELD_CHARS:
        raise RedactionFailed(RedactionFailed.OVERSIZE)
    return value


def add_counts(counts: dict[str, int], found: dict[str, int]) -> None:
    """Add how many were found of each kind."""
    for kind, number in found.items():
        counts[kind] = counts.get(kind, 0) + number
