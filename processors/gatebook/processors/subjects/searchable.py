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
        tags = {d["gatebook"]["subject"] for d in documents if d is not None}
        unknown = {tag for tag in tags if not self._ring.has(tag)}
        if unknown:
            await self._ring.fetch(unknown, create=False)
        return [
            row if document is None else self._filled(row, document)
            for row, document in zip(rows, documents, strict=True)
        ]

    def _filled(self, row: Row, document: dict[str, Any]) -> Row:
        entry = self._ring.get(document["gatebook"]["subject"])
        if entry is None or entry.key.id != document["gatebook"]["sealed"]["key_id"]:
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
