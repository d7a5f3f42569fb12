"""Whether a stored document is what was written, with its content or after erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatebook.processors import render
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keys import FULL, LAYERS, CannotOpen, SubjectKey
from gatebook.processors.subjects.layers import (
    ERASED_NAME,
    SUBJECT_ERASED,
    commitment_to_names,
    identifiers,
    level_of,
    open_layer,
    open_redacted,
    place_text,
    value_at,
)

PRESENT = "present"
ERASED = "erased"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of one document.

    digest_holds: event.hash is the digest of what it covers. content: present, erased (there was
    some) or none. content_holds: the erasable fields are those that were committed to; None where
    that was not or could not be checked (erased, or no key given).
    """

    digest_holds: bool
    content: str
    content_holds: bool | None = None

    @property
    def holds(self) -> bool:
        """Nothing that could be checked contradicts the document."""
        return self.digest_holds and self.content_holds is not False


def verify_document(
    document: Mapping[str, Any], key: SubjectKey | None = None, tags: SubjectTags | None = None
) -> Verification:
    """Check a document against its own digest; with its subject's key (or the tags' key where
    nothing was sealed) also its content against the commitment. Says nothing of whether other
    documents are missing."""
    stored = value_at(document, ("event", "hash"))
    digest_holds = bool(stored) and render.digest(dict(document)) == stored
    return Verification(digest_holds, content_of(document), _content_holds(document, key, tags))


def content_of(document: Mapping[str, Any]) -> str:
    """present, erased or none: whether the document holds content that it was written with, or
    that came in after an erasure and was not kept."""
    if any(value_at(document, ("gatebook", "sealed", layer)) for layer in LAYERS):
        return PRESENT
    if value_at(document, ("gatebook", "sealed", "key_id")):
        return ERASED
    if value_at(document, ("gatebook", "sealed", "failed")) == SUBJECT_ERASED:
        return ERASED
    return PRESENT if value_at(document, ("gen_ai", "input")) else NONE


def _content_holds(
    document: Mapping[str, Any], key: SubjectKey | None, tags: SubjectTags | None
) -> bool | None:
    committed = value_at(document, render.COMMITMENT)
    sealed = value_at(document, ("gatebook", "sealed", "key_id"))
    if not committed:
        return None
    if sealed:
        if key is None or content_of(document) != PRESENT or _is_stripped(document):
            return None
        return _sealed_holds(document, key, committed)
    if tags is None:
        return None
    named = identifiers(document)
    if any(name.startswith(ERASED_NAME.encode()) for name in named.values()):
        return None
    tag = document["gatebook"]["subject"]
    return bool(commitment_to_names(tag, named, tags) == committed)


def _is_stripped(document: Mapping[str, Any]) -> bool:
    """Whether retention took a layer that was sealed: what is left alone cannot be compared with
    the commitment to all of it."""
    left = [name for name in LAYERS if value_at(document, ("gatebook", "sealed", name))]
    return level_of(document) == FULL and len(left) < len(LAYERS)


def _sealed_holds(document: Mapping[str, Any], key: SubjectKey, committed: str) -> bool:
    held = [n for n in LAYERS if value_at(document, ("gatebook", "sealed", n))]
    try:
        layers = {name: open_layer(document, name, key) for name in held}
        fields = {**layers, **identifiers(document)}
        same = key.commitment(document["event"]["id"], fields) == committed
        return same and _text_holds(document, key)
    except CannotOpen:
        return False


def _text_holds(document: Mapping[str, Any], key: SubjectKey) -> bool:
    """The searched text, where there is any, is that of the sealed layer."""
    found = document.get("gen_ai", {})
    wanted: dict[str, Any] = {}
    place_text(wanted, open_redacted(document, key))
    texts = wanted.get("gen_ai", {})
    names = ("input", "output", "system_instructions")
    return all(found.get(name) in (None, texts.get(name)) for name in names)
