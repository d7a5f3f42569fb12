"""The packaged schemas: every released version, by name and by fingerprint.

A released .avsc never changes (schemas.lock.json holds its digest); a new version is a new
file `<name>.v<N>.avsc`. Readers accept the schemas in this folder and no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from gatebook.schemas.errors import Fatal

Schema = dict[str, Any]
ReadText = Callable[[str], str]
# The one schema others name: the frame holds access events.
EVENT_NAME = re.compile(r"gatebook\.access\.(v\d+)\.AccessEvent")

# What we write, and beside it what older producers and workers wrote and readers still read.
WIRE_SCHEMAS = (
    "access_event.v2",
    "frame.v2",
    "document_frame.v1",
    "dead_letter.v2",
    "finding.v2",
    "alert.v2",
)
OLDER_SCHEMAS = (
    "access_event.v1",
    "frame.v1",
    "dead_letter.v1",
    "finding.v1",
    "alert.v1",
)
CURRENT_SCHEMAS = (*WIRE_SCHEMAS, "enrichment.v2")
ALL_SCHEMAS = (*CURRENT_SCHEMAS, *OLDER_SCHEMAS, "enrichment.v1")


@dataclass(frozen=True)
class PackagedSchema:
    """One schema: as written, as fastavro wants it, and its CRC-64-AVRO fingerprint: 8 bytes,
    little-endian, as they stand on the wire (and as fastavro gives them)."""

    name: str
    raw: Schema
    parsed: Schema
    fingerprint: bytes

    @property
    def canonical(self) -> str:
        """Parsing canonical form, self-contained."""
        return str(to_parsing_canonical_form(self.raw))


def read_text(name: str) -> str:
    """The .avsc file of a schema, as it is shipped."""
    path = resources.files("gatebook.schemas") / "avsc" / f"{name}.avsc"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Fatal(
            f"no schema {name!r} is packaged", "name one of " + ", ".join(ALL_SCHEMAS)
        ) from None


def _expand(node: Any, read: ReadText) -> Any:
    """Put the definition of the access event where only its name stands."""
    if isinstance(node, str):
        named = EVENT_NAME.fullmatch(node)
        return json.loads(read(f"access_event.{named[1]}")) if named else node
    if isinstance(node, list):
        return [_expand(item, read) for item in node]
    if isinstance(node, dict):
        return {
            key: _expand(value, read) if key in ("type", "items", "values", "fields") else value
            for key, value in node.items()
        }
    return node


def self_contained(name: str, read: ReadText = read_text) -> Schema:
    """A schema as a dict that needs no other; `read` gives the .avsc text of a name."""
    return cast(Schema, _expand(json.loads(read(name)), read))


@cache
def load(name: str) -> PackagedSchema:
    """A packaged schema by name, for example `frame.v1`."""
    raw = self_contained(name)
    digest = fingerprint(to_parsing_canonical_form(raw), "CRC-64-AVRO")
    parsed = cast(Schema, fastavro.parse_schema(raw))
    return PackagedSchema(name, raw, parsed, bytes.fromhex(digest))


@cache
def by_fingerprint() -> dict[bytes, PackagedSchema]:
    """The allow list of writer schemas: 8-byte fingerprint to schema."""
    return {schema.fingerprint: schema for schema in map(load, (*WIRE_SCHEMAS, *OLDER_SCHEMAS))}
