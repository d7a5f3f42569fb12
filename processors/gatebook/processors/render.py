"""The one rendering of a document: canonical JSON, digested, indexed as it is.

A document that carries a commitment to its content is digested without what may be erased from
it: the digest covers the commitment instead, and verifies when the content is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from gatebook.processors.subjects.layers import without_erasable
from gatebook.schemas.documents import Document, timestamp_text

# Not covered by the digest: they say when and as what the same document was stored.
UNHASHED = ("hash", "ingested")
COMMITMENT = ("gatebook", "content", "commitment")


def canonical(document: Document) -> bytes:
    """Canonical bytes: UTF-8 JSON, keys sorted, no spaces, without event.hash and event.ingested,
    and without erasable fields where the document commits to them.

    Raises TypeError for what JSON cannot hold (a lone surrogate, for example).
    """
    covered = without_erasable(document) if commits(document) else dict(document)
    covered["event"] = event = dict(document.get("event", {}))
    for name in UNHASHED:
        event.pop(name, None)
    return orjson.dumps(covered, option=orjson.OPT_SORT_KEYS)


def commits(document: Mapping[str, Any]) -> bool:
    """Whether a document carries a commitment in place of its erasable fields."""
    return bool(document.get("gatebook", {}).get("content", {}).get("commitment"))


def digest(document: Document) -> str:
    """event.hash of a document: SHA-256 of its canonical bytes, in hex."""
    return hashlib.sha256(canonical(document)).hexdigest()


def render(document: Document, ingested_at_ns: int, known_digest: str = "") -> tuple[str, bytes]:
    """Digest and bytes of a document; the bytes carry event.hash and event.ingested."""
    found = known_digest or digest(document)
    event: dict[str, Any] = dict(document.get("event", {}))
    event["hash"], event["ingested"] = found, timestamp_text(ingested_at_ns)
    return found, orjson.dumps({**document, "event": event}, option=orjson.OPT_SORT_KEYS)
