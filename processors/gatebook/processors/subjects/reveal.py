"""Opening what is sealed, for somebody who may: one event, a whole person, or a pseudonym.

Nothing here records anything: callers do that first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from gatebook.processors.redact import RedactionFailed, RedactionLimits, Redactor
from gatebook.processors.redact.ahead import texts_with_keys
from gatebook.processors.redact.keyed import is_keyed
from gatebook.processors.subjects import layers
from gatebook.processors.subjects.documents import Documents, Person
from gatebook.processors.subjects.erasures import Erasure, is_erased, told
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.keys import FULL, LAYERS, CannotOpen, SubjectKey
from gatebook.processors.subjects.verify import verify_document

ABSENT = "absent"
ERASED = "erased"
OPENED = "opened"
BROKEN = "does_not_open"
_MOST_DEPTH = RedactionLimits().json_depth
_PSEUDONYM = re.compile(r"([A-Z][A-Z0-9_]*)_([a-z0-9]{1,12})_[A-Z2-7]{16}")


def opened(
    document: Mapping[str, Any],
    key: SubjectKey | None,
    wanted: Iterable[str] = LAYERS,
    erasures: Sequence[Erasure] = (),
) -> dict[str, Any]:
    """Each wanted layer of a document: its state, and the content where it opens. `erasures` of
    its subject say when what is erased went; absent is what was never kept."""
    found: dict[str, Any] = {}
    for layer in wanted:
        if not layers.value_at(document, ("gatebook", "sealed", layer)):
            gone = is_erased(document, layer, erasures)
            erased = {"state": ERASED, **told(document, erasures)}
            found[layer] = erased if gone else {"state": ABSENT}
        elif key is None:  # the key is gone, this copy is not
            found[layer] = {"state": ERASED, **told(document, erasures)}
        else:
            found[layer] = _opened(document, layer, key)
    return found


def _opened(document: Mapping[str, Any], layer: str, key: SubjectKey) -> dict[str, Any]:
    try:
        data = layers.open_layer(document, layer, key)
        return {"state": OPENED, "content": msgspec.json.decode(data)}
    except (CannotOpen, msgspec.DecodeError):
        return {"state": BROKEN}


async def key_of(ring: KeyRing, document: Mapping[str, Any]) -> SubjectKey | None:
    """The key a document is sealed under, where it still exists. Raises StoreAway, Fatal."""
    key_id = layers.value_at(document, ("gatebook", "sealed", "key_id"))
    return (await ring.keys([key_id])).get(key_id) if key_id else None


@dataclass
class Manifest:
    """What an export holds: counts, and a digest over its lines in order."""

    subject: str
    documents: int = 0
    erasures: Sequence[Erasure] = ()
    opened: dict[str, int] = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)
    digests_hold: int = 0
    digests_fail: list[str] = field(default_factory=list)
    _digest: Any = field(default_factory=hashlib.sha256)

    def count(self, content: Mapping[str, Any]) -> None:
        """Count the layers of one document."""
        for layer, found in content.items():
            self.opened[layer] = self.opened.get(layer, 0) + (found["state"] == OPENED)
            if found["state"] == ERASED:
                self.erased[layer] = self.erased.get(layer, 0) + 1

    def add(self, line: bytes, event_id: str, holds: bool) -> None:
        """Count one line, with its line feed."""
        self.documents += 1
        self._digest.update(line)
        self.digests_hold += holds
        if not holds:
            self.digests_fail.append(event_id)

    def summary(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "format": "gatebook-export/1",
            "subject": self.subject,
            "documents": self.documents,
            "layers_opened": dict(sorted(self.opened.items())),
            "layers_erased": dict(sorted(self.erased.items())),
            "erasures": [one.told() for one in self.erasures],
            "digests_hold": self.digests_hold,
            "digests_fail": self.digests_fail,
            "sha256": self._digest.hexdigest(),
        }


async def export(
    documents: Documents, ring: KeyRing, person: Person, wanted: Iterable[str], manifest: Manifest
) -> AsyncIterator[bytes]:
    """All documents of a person, oldest first, a JSON line each: the document as it is stored,
    what of it was opened, and whether its digest holds. Counts in `manifest` as it goes."""
    layers_wanted = tuple(wanted)
    known: dict[str, SubjectKey | None] = {}
    await documents.refresh()
    async for found in documents.scan(person.query()):
        key = await _cached_key(ring, found.source, known)
        content = opened(found.source, key, layers_wanted, manifest.erasures)
        verified = verify_document(found.source, key)
        manifest.count(content)
        row = {
            "index": found.index,
            "document": found.source,
            "content": content,
            "digest_holds": verified.holds,
        }
        line = orjson.dumps(row, option=orjson.OPT_SORT_KEYS) + b"\n"
        manifest.add(line, found.id, verified.holds)
        yield line


async def _cached_key(
    ring: KeyRing, document: Mapping[str, Any], known: dict[str, SubjectKey | None]
) -> SubjectKey | None:
    key_id = layers.value_at(document, ("gatebook", "sealed", "key_id"))
    if not key_id:
        return None
    if key_id not in known:
        known[key_id] = await key_of(ring, document)
    return known[key_id]


# --- pseudonyms --------------------------------------------------------------------------------


def pseudonym_in(text: str) -> str:
    """The pseudonym itself, out of the mask a person may have copied: [EMAIL_e1_...:@host]."""
    return text.strip().strip("[]").partition(":")[0]


def kind_of(pseudonym: str) -> str:
    """The kind of value a pseudonym stands for: `api_key` of API_KEY_e1_...; empty where it is no
    pseudonym."""
    found = _PSEUDONYM.fullmatch(pseudonym)
    return found[1].lower() if found else ""


def _epoch_of(pseudonym: str) -> str:
    found = _PSEUDONYM.fullmatch(pseudonym)
    return found[2] if found else ""


def value_behind(
    redactor: Redactor, pseudonym: str, texts: Iterable[str], tenant: str = ""
) -> str | None:
    """The value that has this pseudonym, where it is in one of the texts; None where not.

    There is no table of values: each text is redacted again, with the pseudonyms of the epoch that
    this one is of, and its pseudonyms are compared.
    """
    kind = kind_of(pseudonym)
    if not kind:
        return None
    redactor = redactor.at_epoch(_epoch_of(pseudonym))
    for text in texts:
        if redactor.pseudonyms.of(kind, text, tenant) == pseudonym:
            return text  # masked as a whole, as under a key named `password`
        try:
            found = redactor.find(text, tenant=tenant)
        except RedactionFailed:
            continue
        for one in found:
            if one.pseudonym == pseudonym:
                return one.value
    return None


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included, and those that objects are read as."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if is_keyed(value):
            yield from texts_with_keys(value, _MOST_DEPTH)[0]
        for name, inner in value.items():
            yield str(name)
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def pseudonym_query(pseudonym: str, text_fields: Iterable[str], names: Iterable[str]) -> Any:
    """Documents that may hold a pseudonym: in text, in a masked name, or sealed, by its kind."""
    wild = {"value": f"*{pseudonym}*"}
    should = [
        *({"match": {name: {"query": pseudonym, "operator": "and"}}} for name in text_fields),
        *({"wildcard": {name: wild}} for name in names),
        {"term": {"gatebook.redaction.entities": {"value": kind_of(pseudonym)}}},
    ]
    return {"bool": {"should": should, "minimum_should_match": 1}}


async def reidentify(
    documents: Documents,
    ring: KeyRing,
    redactor: Redactor,
    pseudonym: str,
    query: Any,
    limit: int,
) -> tuple[str | None, int]:
    """The value behind a pseudonym, from the sealed originals of events that may hold it, and how
    many events were opened. Only events kept at level `full` still hold their original."""
    known: dict[str, SubjectKey | None] = {}
    looked = 0
    async for found in documents.scan(query):
        key = await _cached_key(ring, found.source, known)
        content = opened(found.source, key, (FULL,))[FULL]
        if content["state"] != OPENED:
            continue
        looked += 1
        tenant = found.source.get("organization", {}).get("id", "")
        value = value_behind(redactor, pseudonym, texts_of(content["content"]), tenant)
        if value is not None or looked >= limit:
            return value, looked
    return None, looked
