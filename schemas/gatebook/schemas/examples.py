"""Examples of records, shipped as examples/<schema>/<example>.json.

They hold what matters and leave the rest to the schema's defaults. JSON has no bytes: the text of
a bytes field stands for its UTF-8 bytes.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from gatebook.schemas.registry import Schema, load

Record = dict[str, Any]


def examples(name: str) -> dict[str, Record]:
    """The examples of schema `name`: file name without suffix to record, fresh on every call."""
    folder = resources.files("gatebook.schemas") / "examples" / name
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    return {
        file.removesuffix(".json"): from_json(load(name).raw, json.loads(text))
        for file, text in sorted(texts.items())
    }


def from_json(kind: Any, value: Any) -> Any:
    """A JSON value as a datum of an Avro type; only bytes differ."""
    if isinstance(kind, list):
        return None if value is None else from_json(next(k for k in kind if k != "null"), value)
    if kind == "bytes":
        return value.encode("utf-8")
    if isinstance(kind, dict) and kind["type"] == "array":
        return [from_json(kind["items"], item) for item in value]
    if isinstance(kind, dict) and kind["type"] == "record":
        return _record(kind, value)
    return value


def _record(schema: Schema, value: Record) -> Record:
    types = {field["name"]: field["type"] for field in schema["fields"]}
    return {name: from_json(types[name], item) for name, item in value.items()}
