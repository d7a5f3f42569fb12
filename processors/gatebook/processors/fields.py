"""The fields of a document that somebody wrote freely, and how they are redacted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from gatebook.processors.clean import CleanTexts
from gatebook.processors.redact import SECRET_KINDS, RedactionFailed
from gatebook.schemas.documents import Document

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
# telephone number. A mail address or a credential in them is masked all the same; the same
# person still reads the same. What is in neither list holds numbers, our own digests, names from
# the service's configuration, or user.email, which is there only where the policy allows it.
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
_VERSION = ("user_agent", "version")
CODE_KINDS = SECRET_KINDS | {"email"}
_CODES = frozenset(CODE_FIELDS)
_BY_HOLDER = [
    (holder, [(path, path[-1]) for path in paths])
    for holder, paths in groupby(FREE_TEXT_FIELDS + CODE_FIELDS, key=lambda path: path[:-1])
]


def fields_to_read(document: Document, clean: CleanTexts) -> list[Field]:
    """Fields that may hold a value, in the order of the lists above."""
    fields: list[Field] = []
    for steps, leaves in _BY_HOLDER:
        holder = _holder(document, steps)
        if holder is None:
            continue
        for path, leaf in leaves:
            if leaf in holder and holder[leaf] not in clean:
                fields.append((path, holder))
    return fields


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
