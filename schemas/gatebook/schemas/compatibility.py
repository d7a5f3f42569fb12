"""Whether a new version of a schema reads what an older one wrote (BACKWARD)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# What each written type may be read as, besides itself (Avro 1.12, schema resolution).
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def incompatibilities(reader: Any, writer: Any, path: str = "") -> Iterator[str]:
    """Each reason why `reader` cannot read all that `writer` writes, by field; none if it can.

    Both are self-contained schemas, or types within. Defaults are taken as they stand.
    """
    if isinstance(writer, list):
        for branch in writer:
            yield from incompatibilities(reader, branch, path)
    elif isinstance(reader, list):
        if all(any(incompatibilities(branch, writer, path)) for branch in reader):
            yield f"{path}: {_kind(writer)} is no longer one of its types"
    elif _kind(reader) != _kind(writer):
        if _kind(reader) not in PROMOTIONS.get(_kind(writer), ()):
            yield f"{path}: was {_kind(writer)}, is {_kind(reader)}"
    elif _kind(writer) == "record":
        yield from _record(reader, writer, path)
    elif _kind(writer) in ("array", "map"):
        inner = "items" if _kind(writer) == "array" else "values"
        yield from incompatibilities(reader[inner], writer[inner], path + "[]")
    elif isinstance(writer, dict):
        yield f"{path}: {_kind(writer)} is not supported"


def _kind(schema: Any) -> str:
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _record(reader: Any, writer: Any, path: str) -> Iterator[str]:
    if reader["name"] != writer["name"]:
        yield f"{path}: record {writer['name']} is called {reader['name']}"
    written = {field["name"]: field["type"] for field in writer["fields"]}
    for field in reader["fields"]:
        name = f"{path}.{field['name']}" if path else field["name"]
        if field["name"] in written:
            yield from incompatibilities(field["type"], written[field["name"]], name)
        elif "default" not in field:
            yield f"{name}: is new and has no default"
