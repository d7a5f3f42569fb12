"""What index does with sealed content: opens the redacted layer where it may be searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from gatebook.processors import metrics
from gatebook.processors.sinks.base import Row
from gatebook.processors.subjects import layers
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.keys import CannotOpen
from gatebook.processors.subjects.layers import KeyEntry

MARK = b'"sealed":{'


class SearchText:
    """Adds redacted text to documents that may be searched. event.hash does not cover it."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def fill(self, rows: Sequence[Row]) -> list[Row]:
        """The rows in order, with text where policy and key allow it. Waits for as long as the
        keys' store is away. Raises Fatal."""
        self._ring.expire()
        documents = [_searchable(row) for row in rows]
        unknown = {d["gatebook"]["subject"] for d in documents if d and self._entry(d) is None}
        if unknown:  # also where the key we know is not the one: there may be a new one
            await self._ring.fetch(unknown, create=False)
        return [
            row if document is None else self._filled(row, document)
            for row, document in zip(rows, documents, strict=True)
        ]

    def _entry(self, document: dict[str, Any]) -> KeyEntry | None:
        """The entry whose key the document is sealed under, where we know it."""
        entry = self._ring.get(document["gatebook"]["subject"])
        sealed_under = document["gatebook"]["sealed"]["key_id"]
        return entry if entry is not None and entry.key.id == sealed_under else None

    def _filled(self, row: Row, document: dict[str, Any]) -> Row:
        entry = self._entry(document)
        if entry is None:
            metrics.UNSEARCHABLE.inc()  # erased, or sealed before the last erasure
            return row
        try:
            layers.place_text(document, layers.open_redacted(document, entry.key))
        except CannotOpen:
            metrics.UNSEARCHABLE.inc()
            return row
        return replace(row, body=orjson.dumps(document, option=orjson.OPT_SORT_KEYS))


def _searchable(row: Row) -> dict[str, Any] | None:
    """The document of a row with content that may be searched."""
    if row.kind != "access" or MARK not in row.body:
        return None
    document = orjson.loads(row.body)
    sealed = document["gatebook"].get("sealed", {})
    held = sealed.get("redacted") and sealed.get("key_id") and document["gatebook"].get("subject")
    return document if held and layers.is_searchable(document) else None
