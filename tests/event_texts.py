"""The fields of an event in which text stands, as its schema has them."""

from __future__ import annotations

import json

from gatebook.schemas.documents import walk
from gatebook.schemas.registry import load


def texts_of_events() -> list[tuple[str, ...]]:
    """Paths of all texts, lists of texts and maps of texts, as documents name them."""
    fields = walk(load("access_event.v2").raw)
    return [path for path, field in fields if "string" in json.dumps(field["type"])]
