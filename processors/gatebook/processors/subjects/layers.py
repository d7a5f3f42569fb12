"""What intake does with content once it is redacted, and what index does for search. Pure.

Content leaves intake sealed under its subject's key, so that no topic holds any in the clear. The
index worker opens the redacted layer where it may be searched: only the index ever holds text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keys import (
    FULL,
    LAYERS,
    REDACTED,
    CannotOpen,
    SubjectKey,
    commitment,
    packed,
    unpacked,
)
from gatebook.schemas.documents import Document

# A field of the content, and where its text is searched.
SEARCHED = {
    "input_messages": ("gen_ai", "input", "messages"),
    "output_messages": ("gen_ai", "output", "messages"),
    "system_instructions": ("gen_ai", "system_instructions"),
}
SEALED_FIELDS = (("gatebook", "sealed", "redacted"), ("gatebook", "sealed", "full"))
CONTENT_FIELDS = (*SEARCHED.values(), *SEALED_FIELDS)
IDENTIFIERS = (("user", "name"), ("user", "email"))
_NAMES = tuple(name for _, name in IDENTIFIERS)
# What may go from a stored document without changing its digest.
ERASABLE = (*CONTENT_FIELDS, *IDENTIFIERS)
SUBJECT_ERASED = "subject_erased"
ERASED_NAME = "[ERASED_"  # how the pseudonym begins that takes the place of an erased name
STORED_LEVELS = (REDACTED, FULL)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """What is known of a subject: the key in use, and when content was last erased. Content of
    events before `erased_before_ns` is not kept any more."""

    key: SubjectKey
    erased_before_ns: int = 0


class Keys(Protocol):
    """Keys at hand. Looking one up never waits."""

    def get(self, tag: str) -> KeyEntry | None:
        """The subject's entry; None where it has to be fetched first."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """What intake needs to know who an event is about, and to seal what they wrote."""

    tags: SubjectTags
    keys: Keys


class Content(NamedTuple):
    """The content of one event: as it came, and redacted by field."""

    original: bytes
    redacted: dict[str, Any]


def level_of(document: Mapping[str, Any]) -> str:
    """The capture level that stands on the event."""
    return str(document.get("gatebook", {}).get("capture", {}).get("level", ""))


def is_searchable(document: Mapping[str, Any]) -> bool:
    """Whether redacted content is indexed as text: at level `redacted`, unless the policy says
    otherwise; at no other level."""
    capture = document.get("gatebook", {}).get("capture", {})
    return capture.get("level") == REDACTED and capture.get("searchable") is not False


def seal_content(
    document: Document, content: Content, entry: KeyEntry, timestamp_ns: int
) -> dict[str, bytes]:
    """Put the sealed layers into the document; what they commit to, by layer.

    Content of a subject that was erased since the event is left out, and the event says so.
    """
    ours, key = document["gatebook"], entry.key
    if timestamp_ns < entry.erased_before_ns:
        ours["sealed"] = {"failed": SUBJECT_ERASED}
        return {}
    layers = {REDACTED: packed(content.redacted)}
    if ours["capture"]["level"] == FULL:
        layers[FULL] = content.original
    sealed = ours.setdefault("sealed", {})
    sealed["key_id"] = key.id
    for layer, data in layers.items():
        sealed[layer] = key.seal(layer, document["event"]["id"], data)
    return layers


def commit(
    document: Document, layers: Mapping[str, bytes], key: SubjectKey | None, tags: SubjectTags
) -> None:
    """Put the commitment to all that may be erased from this document into it; none where there
    is nothing of that kind."""
    names = identifiers(document)
    fields = {**layers, **names} if names else layers
    if not fields:
        return
    if layers and key is not None:
        found = key.commitment(document["event"]["id"], fields)
    else:
        found = commitment_to_names(document["gatebook"]["subject"], fields, tags)
    document["gatebook"].setdefault("content", {})["commitment"] = found


def commitment_to_names(tag: str, names: Mapping[str, bytes], tags: SubjectTags) -> str:
    """The commitment where nothing is sealed: there is no key to fetch, so the salt is our own."""
    return tags.remembered((tag, *names.items()), lambda: commitment(tags.key, tag.encode(), names))


def identifiers(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Names of the person that may be erased, by dotted field."""
    user = document.get("user")
    if not user or ("name" not in user and "email" not in user):
        return {}
    return {
        f"user.{name}": user[name].encode("utf-8", "surrogatepass")
        for name in _NAMES
        if user.get(name)
    }


def place_text(document: Document, redacted: Mapping[str, Any]) -> None:
    """Put redacted content where it is searched."""
    for name, path in SEARCHED.items():
        value = redacted.get(name)
        if value:
            node = document
            for step in path[:-1]:
                node = node.setdefault(step, {})
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            node[path[-1]] = text


def open_layer(document: Mapping[str, Any], layer: str, key: SubjectKey) -> bytes:
    """A sealed layer of a stored document. Raises CannotOpen, also where there is none."""
    sealed = value_at(document, ("gatebook", "sealed", layer))
    if not sealed:
        raise CannotOpen("the event holds no such layer")
    return key.open(layer, document["event"]["id"], sealed)


def open_redacted(document: Mapping[str, Any], key: SubjectKey) -> dict[str, Any]:
    """The redacted content by field. Raises CannotOpen."""
    return unpacked(open_layer(document, REDACTED, key))


def value_at(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at a path of names; None where it is not there."""
    node: Any = document
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def without(document: Mapping[str, Any], paths: Sequence[Sequence[str]]) -> Document:
    """A copy without these fields, and without groups that are empty then."""
    copy = dict(document)
    for path in paths:
        if value_at(copy, path) is not None:
            _remove(copy, path)
    return copy


def without_erasable(document: Mapping[str, Any]) -> Document:
    """`without(document, ERASABLE)`, faster: intake does this for every event."""
    copy = dict(document)
    user, spoken = document.get("user"), document.get("gen_ai")
    if user and ("name" in user or "email" in user):
        _put(copy, "user", {k: v for k, v in user.items() if k not in _NAMES})
    if spoken and ("input" in spoken or "output" in spoken or "system_instructions" in spoken):
        copy = without(copy, tuple(SEARCHED.values()))
    ours = document.get("gatebook")
    if ours and "sealed" in ours:
        sealed = {k: v for k, v in ours["sealed"].items() if k not in LAYERS}
        ours = dict(ours)
        _put(ours, "sealed", sealed)
        _put(copy, "gatebook", ours)
    return copy


def _put(node: Document, name: str, group: Document) -> None:
    if group:
        node[name] = group
    else:
        del node[name]


def _remove(node: Document, path: Sequence[str]) -> None:
    if len(path) == 1:
        del node[path[0]]
        return
    inner = dict(node[path[0]])
    _remove(inner, path[1:])
    if inner:
        node[path[0]] = inner
    else:
        del node[path[0]]
