"""Writes what follows from the .avsc files: index templates, types, the table of fields, a codec.

`python -m gatebook.schemas.generate` writes schemas/gatebook/schemas/generated/; with `--check`
it writes nothing, prints what differs and exits 1 if anything does. The files are committed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatebook.schemas.documents import is_group, walk
from gatebook.schemas.generate_codec import access_codec
from gatebook.schemas.registry import CURRENT_SCHEMAS, Schema, load
from gatebook.schemas.storage import STORAGE, Storage

GENERATED = Path(__file__).parent / "generated"
# Far below Lucene's 32,766 bytes a term, at up to four bytes a character.
KEYWORD: Schema = {"type": "keyword", "ignore_above": 1024}
FLATTENED: Schema = {"type": "flattened", "ignore_above": 1024}
MAPPINGS: dict[str, Schema] = {
    "string": KEYWORD,
    "int": {"type": "long"},
    "long": {"type": "long"},
    "double": {"type": "double"},
    "boolean": {"type": "boolean"},
    "map": FLATTENED,
}
PYTHON_TYPES = {
    "string": "str",
    "int": "int",
    "long": "int",
    "double": "float",
    "boolean": "bool",
    "bytes": "bytes",
}
# What every document carries, whatever its kind; defined once, in enrichment.v2.
STAMP_FIELDS = ("event.hash", "event.ingested")
STAMP_NOTE = "Set by intake for accesses, by the index worker for every other kind."
# What is to be added to the text of a schema that is released.
FIELD_NOTES = {
    "gatebook.subject": "A caller who proved to be a person (verified by oidc, sso or header) is "
    "the subject, whatever end user the request names.",
}


@dataclass(frozen=True)
class Kind:
    """One kind of document: its schema, and who fills it."""

    name: str
    schema: str
    set_by: str


KINDS = (
    Kind("access", "access_event.v2", "producer"),
    Kind("finding", "finding.v2", "detect"),
    Kind("deadletter", "dead_letter.v2", "the stage that rejected it"),
    Kind("alert", "alert.v2", "notify"),
)


@dataclass(frozen=True)
class Leaf:
    """One indexed field of a document: dotted path, definition, who sets it."""

    path: str
    field: Schema
    set_by: str


def leaves(kind: Kind) -> list[Leaf]:
    """Every indexed field of a kind of document, enrichment included."""
    own = [Leaf(".".join(p), f, kind.set_by) for p, f in walk(load(kind.schema).raw)]
    added = [Leaf(".".join(p), f, "intake") for p, f in walk(load("enrichment.v2").raw)]
    if kind.name != "access":
        added = [Leaf(a.path, a.field, "index") for a in added if a.path in STAMP_FIELDS]
    return own + added


def plain_type(field: Mapping[str, Any]) -> str:
    """A field's Avro type without null: string, long, array<string>, map<long>, ..."""
    kind = field["type"]
    if isinstance(kind, list):
        kind = next(branch for branch in kind if branch != "null")
    if not isinstance(kind, dict):
        return str(kind)
    inner = kind.get("items", kind.get("values"))
    inner = inner if isinstance(inner, str) else inner["name"] if inner else ""
    return f"{kind['type']}<{inner}>" if inner else str(kind["name"])


def mapping_of(field: Mapping[str, Any]) -> Schema:
    """How Elasticsearch indexes a field. KeyError where an Avro type has no default mapping."""
    if "es_mapping" in field:
        return dict(field["es_mapping"])
    kind = plain_type(field)
    if kind.startswith("array<"):
        kind = kind[len("array<") : -1]
    return dict(MAPPINGS[kind.partition("<")[0]])


def properties(fields: Sequence[Leaf], storage: Mapping[str, Storage] | None = None) -> Schema:
    """The nested `properties` of a mapping. ValueError where two fields claim one path, or storage
    is chosen for a field that is not there."""
    chosen = storage or {}
    if unknown := sorted(set(chosen) - {leaf.path for leaf in fields}):
        raise ValueError(f"storage is chosen for {unknown[0]}, and there is no such field")
    root: Schema = {}
    for leaf in fields:
        *parents, last = leaf.path.split(".")
        level = root
        for parent in parents:
            node = level.setdefault(parent, {"properties": {}})
            level = node.get("properties", {last: node})
        if last in level:
            raise ValueError(f"two fields map to {leaf.path}")
        kept = chosen[leaf.path].mapping if leaf.path in chosen else {}
        level[last] = {**mapping_of(leaf.field), **kept}
    return root


def index_template(kind: Kind) -> Schema:
    """The body of PUT _index_template; `{namespace}` is filled in at setup."""
    fields = leaves(kind)
    alias = f"{{namespace}}-{kind.name}"
    return {
        "index_patterns": [f"{alias}-*"],
        "priority": 200,
        "template": {
            "settings": {
                "index": {
                    "number_of_shards": 1,
                    "number_of_replicas": 0,
                    "refresh_interval": "1s",
                }
            },
            "mappings": {"dynamic": "strict", "properties": properties(fields, STORAGE[kind.name])},
            "aliases": {alias: {}},
        },
        "_meta": {
            "description": load(kind.schema).raw["doc"],
            "generated_from": [f"{kind.schema}.avsc", "enrichment.v2.avsc"],
        },
    }


# --- models.py ---------------------------------------------------------------------------------


def python_type(kind: Any) -> str:
    """The Python type of an Avro type."""
    if isinstance(kind, list):
        return " | ".join(sorted(map(python_type, kind), key=lambda name: name == "None"))
    if isinstance(kind, str):
        return "None" if kind == "null" else PYTHON_TYPES[kind]
    if kind["type"] == "array":
        return f"list[{python_type(kind['items'])}]"
    if kind["type"] == "map":
        return f"dict[str, {python_type(kind['values'])}]"
    return str(kind["name"])


def records(kind: Any, doc: str = "") -> Iterator[Schema]:
    """Every record type below `kind`, inner ones first. A record without a doc of its own takes
    that of the field it stands in."""
    if isinstance(kind, dict):
        for field in kind.get("fields", ()):
            yield from records(field["type"], field["doc"])
        yield from records(kind.get("items"), doc)
        if kind["type"] == "record":
            yield {"doc": doc, **kind}


def _quoted(text: str, indent: str) -> str:
    body = textwrap.fill(text, 96, initial_indent=indent + '"""', subsequent_indent=indent)
    return body + '"""\n'


def typed_dict(record: Schema) -> str:
    """A record as a TypedDict: a field without a default is required."""
    out = [f"class {record['name']}(TypedDict, total=False):\n"]
    out.append(_quoted(record["doc"], "    ") + "\n")
    for field in record["fields"]:
        kind = python_type(field["type"])
        out.append(f"    {field['name']}: {kind if 'default' in field else f'Required[{kind}]'}\n")
        out.append(_quoted(field["doc"], "    "))
    return "".join(out)


def models() -> str:
    """models.py: each record of each schema, once."""
    head = (
        '"""The records as types. Generated by gatebook.schemas.generate; do not edit."""\n\n'
        "from __future__ import annotations\n\nfrom typing import Required, TypedDict\n"
    )
    classes: dict[str, str] = {}
    for name in CURRENT_SCHEMAS:
        for record in records(load(name).raw):
            text = typed_dict(record)
            if classes.setdefault(record["name"], text) != text:
                raise ValueError(f"two records are called {record['name']}")
    return "\n\n".join([head, *classes.values()])


# --- FIELDS.md ---------------------------------------------------------------------------------

CONTENT_NOTE = """\
Who sends events to `gatebook agent` gives `content` as a JSON object, and no `content_encoding`:

```json
{"content": {"input_messages": [{"role": "user", "content": "Why?"}],
             "output_messages": [{"role": "assistant", "content": "Because."}]}}
```

Its parts, each of which may be left out: `content.input_messages`, `content.system_instructions`,
`content.output_messages`, `content.tools` (each as the model's API has it) and
`content.error_text`. It is kept where the agent captures content (`GATEBOOK_CAPTURE_LEVEL`).
"""


def fields_table() -> str:
    """FIELDS.md: every field of every document, and what is on the wire only."""
    out = ["<!-- Generated by gatebook.schemas.generate; do not edit. -->\n# Fields\n"]
    out.append(
        "\nAn empty string, null or empty list means: not known; documents leave it out.\n"
        f"`event.hash` and `event.ingested` stand on every document. {STAMP_NOTE}\n"
        "\nHow a field is indexed says what can be done with it: `no sorting or counting` is found "
        "by its\nvalue alone, `slower to search` is sorted and counted as any other, `shown only` "
        "neither. Why:\n[storage.py](../storage.py).\n"
    )
    for kind in KINDS:
        out.append(f"\n## {kind.name}\n\n{load(kind.schema).raw['doc']}\n\n")
        out.append("| field | type | indexed as | set by | meaning |\n|---|---|---|---|---|\n")
        out += [_row(leaf, STORAGE[kind.name].get(leaf.path)) for leaf in leaves(kind)]
    out.append(f"\n## On the wire only, never indexed\n\n{CONTENT_NOTE}\n")
    out.append("| schema | field | type | meaning |\n")
    out.append("|---|---|---|---|\n")
    out += [row for name in CURRENT_SCHEMAS for row in _unindexed(name)]
    return "".join(out)


def _row(leaf: Leaf, storage: Storage | None) -> str:
    kind, mapped = plain_type(leaf.field), mapping_of(leaf.field)["type"]
    mapped += f"; {storage.note}" if storage else ""
    meaning = " ".join(filter(None, (leaf.field["doc"], FIELD_NOTES.get(leaf.path))))
    return f"| `{leaf.path}` | {kind} | {mapped} | {leaf.set_by} | {meaning} |\n"


def _unindexed(name: str) -> Iterator[str]:
    indexed = {kind.schema for kind in KINDS} | {"enrichment.v2"}
    for field in load(name).raw["fields"]:
        if not is_group(field) and (name not in indexed or field.get("es_mapping", "") is None):
            yield f"| {name} | `{field['name']}` | {plain_type(field)} | {field['doc']} |\n"


# --- writing and checking ----------------------------------------------------------------------


def outputs() -> dict[str, str]:
    """Every generated file: name to text."""
    out = {
        f"{kind.name}.template.json": json.dumps(index_template(kind), indent=2) + "\n"
        for kind in KINDS
    }
    out |= {"models.py": models(), "FIELDS.md": fields_table()}
    return {**out, "access_codec.py": access_codec()}


def differences(folder: Path) -> Iterator[str]:
    """Unified diffs between the files in `folder` and what they ought to be."""
    for name, wanted in outputs().items():
        path = folder / name
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != wanted:
            yield "".join(
                difflib.unified_diff(
                    found.splitlines(True), wanted.splitlines(True), f"{name} (found)", name
                )
            )


def main(arguments: Sequence[str] | None = None, folder: Path = GENERATED) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gatebook.schemas.generate")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on difference")
    if parser.parse_args(arguments).check:
        found = list(differences(folder))
        sys.stdout.write("".join(found))
        return 1 if found else 0
    folder.mkdir(exist_ok=True)
    for name, text in outputs().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
