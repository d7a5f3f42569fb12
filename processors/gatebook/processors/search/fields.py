"""The fields a query may name, read from the generated index templates."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

# Keyword fields that hold sentences: free text looks into them too.
SENTENCE_FIELDS = ("error.message", "event.reason", "rule.name")


@dataclass(frozen=True, slots=True)
class FieldList:
    """The fields of one kind of document: dotted path to Elasticsearch type; those that have no
    doc values, and those that have no index."""

    types: Mapping[str, str]
    without_values: frozenset[str] = frozenset()
    without_index: frozenset[str] = frozenset()

    def type_of(self, name: str) -> str | None:
        """The type of a field; `flattened` also for a key below a flattened field; None where
        there is no such field."""
        if name in self.types:
            return self.types[name]
        roots = [path for path, kind in self.types.items() if kind == "flattened"]
        return "flattened" if any(name.startswith(f"{root}.") for root in roots) else None

    def has_values(self, name: str) -> bool:
        """Whether a field's values can be sorted and counted, as far as storage goes; says nothing
        of its type, nor whether there is such a field."""
        return name not in self.without_values

    def is_searchable(self, name: str) -> bool:
        """Whether documents can be found by a field. One with doc values alone can, but slower."""
        return not (name in self.without_index and name in self.without_values)

    def only(self, names: Collection[str]) -> FieldList:
        """The same of some of the fields."""
        kept = {name: kind for name, kind in self.types.items() if name in names}
        return replace(self, types=kept)

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
    found = dict(_walk(template["template"]["mappings"]["properties"], ""))
    return FieldList(
        {name: str(definition["type"]) for name, definition in found.items()},
        frozenset(name for name, one in found.items() if one.get("doc_values") is False),
        frozenset(name for name, one in found.items() if one.get("index") is False),
    )


def _walk(properties: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in properties.items():
        if "properties" in definition:
            yield from _walk(definition["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, definition
