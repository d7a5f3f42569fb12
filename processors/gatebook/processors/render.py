"""The one rendering of a document: canonical JSON, digested, indexed as it is."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from gatebook.schemas.documents import Document, timestamp_text

# Not covered by the digest: they say when and as what the same document was stored.
UNHASHED = ("hash", "ingested")


def canonical(document: Document) -> bytes:
    """Canonical bytes: UTF-8 JSON, keys sorted, no spaces, without event.hash and event.ingested.

    Raises TypeError for what JSON cannot hold (a lone surrogate, for example).
    """
    event = {k: v for k, v in document.get("event", {}).items() if k not in UNHASHED}
    return orjson.dumps({**document, "event": event}, option=orjson.OPT_SORT_KEYS)


def digest(document: Document) -> str:
    """event.hash of a document: SHA-256 of its canonical bytes, in hex."""
    return hashlib.sha256(canonical(document)).hexdigest()


def render(document: Document, ingested_at_ns: int, known_digest: str = "") -> tuple[str, bytes]:
    """Digest and bytes of a document; the bytes carry event.hash and event.ingested."""
    found = known_digest or digest(document)
    event: dict[str, Any] = dict(document.get("event", {}))
    event["hash"], event["ingested"] = found, timestamp_text(ingested_at_ns)
    return found, orjson.dumps({**document, "event": event}, option=orjson.OPT_SORT_KEYS)
