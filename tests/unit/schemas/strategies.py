"""Records of our schemas, drawn by hypothesis from the .avsc files themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gatebook.schemas.registry import load

LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": LONGS | st.integers(-70, 70),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=80),
    "bytes": st.binary(max_size=80),
}


def values(kind: Any, complete: bool) -> st.SearchStrategy[Any]:
    """Values of an Avro type; in incomplete records fields with a default may be missing."""
    if isinstance(kind, list):
        return st.one_of([values(branch, complete) for branch in kind])
    if isinstance(kind, str):
        return PRIMITIVES[kind]
    if kind["type"] == "array":
        return st.lists(values(kind["items"], complete), max_size=3)
    if kind["type"] == "map":
        return st.dictionaries(PRIMITIVES["string"], values(kind["values"], complete), max_size=3)
    drawn = {field["name"]: values(field["type"], complete) for field in kind["fields"]}
    optional = set() if complete else {f["name"] for f in kind["fields"] if "default" in f}
    required = {name: value for name, value in drawn.items() if name not in optional}
    return st.fixed_dictionaries(
        required, optional={name: drawn[name] for name in sorted(optional)}
    )


def records(name: str, complete: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Records of schema `name`."""
    return values(load(name).raw, complete)
