"""The fields a query may name, read from the generated index templates."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

# Keyword fields that hold sentences: free text looks into them too.
SENTENCE_FIELDS = ("error.message", "event.reason", "rule.name")


@dataclass(frozen=True, slots=True)
class FieldList:
    """The fields of one kind of document: dotted path to Elasticsearch type."""

    types: Mapping[str, str]

    def type_of(self, name: str) -> str | None:
        """The type of a field; `flattened` also for a key below a flattened field; None where
        there is no such field."""
        if name in self.types:
            return self.types[name]
        roots = [path for path, kind in self.types.items() if kind == "flattened"]
        return "flattened" if any(name.startswith(f"{root}.") for root in roots) else None

    def close_to(self, name: str) -> list[str]:
        """Up to three fields that a person may have meant."""
        names = list(self.types)
        below = [n for n in names if n.startswith(f"{name}.") or n.endswith(f".{name}")]
        by_lower = {n.lower(): n for n in names}
        alike = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.75)
        return list(dict.fromkeys([*below, *(by_lower[n] for n in alike)]))[:3]

    @property
    def text_fields(self) -> list[str]:
        """Analysed text: prompts and answers."""
        return [name for name, kind in self.types.items() if kind == "text"]

    @property
    def sentence_fields(self) -> list[str]:
        """Keyword fields that free text looks into."""
        return [name for name in SENTENCE_FIELDS if name in self.types]


@cache
def fields_of(kind: str) -> FieldList:
    """The fields of `access`, `finding`, `deadletter` or `alert`."""
    folder = resources.files("gatebook.schemas") / "generated"
    template = json.loads((folder / f"{kind}.template.json").read_text(encoding="utf-8"))
    return FieldList(dict(_walk(template["template"]["mappings"]["properties"], "")))


def _walk(properties: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, definition in properties.items():
        if "properties" in definition:
            yield from _walk(definition["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, str(definition["type"])
