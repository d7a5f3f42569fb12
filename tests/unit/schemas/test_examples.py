"""Every shipped example is a valid record, survives the wire, and fits the index."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from gatebook.schemas import codec
from gatebook.schemas.documents import to_document
from gatebook.schemas.examples import examples
from gatebook.schemas.generate import GENERATED, KINDS
from gatebook.schemas.registry import ALL_SCHEMAS, WIRE_SCHEMAS, load

from .mapping_check import complaints

ALL = [(name, example) for name in ALL_SCHEMAS for example in examples(name)]
INDEXED = {kind.schema: kind.name for kind in KINDS}


def index_properties(kind: str) -> Any:
    template = json.loads((GENERATED / f"{kind}.template.json").read_text())
    return template["template"]["mappings"]["properties"]


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Two documents as one, the way enrichment joins an access."""
    out = dict(left)
    for key, value in right.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def holds(whole: Any, part: Any) -> bool:
    """Whether `whole` says all that `part` says; it may say more in its records."""
    if isinstance(part, dict):
        return all(holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


def test_every_schema_has_examples() -> None:
    """A reader finds an example of every schema, and several of an access."""
    assert {name for name, _ in ALL} == set(ALL_SCHEMAS)
    assert len(examples("access_event.v2")) >= 3


@pytest.mark.parametrize(("name", "example"), ALL)
def test_an_example_names_only_fields_of_its_schema(name: str, example: str) -> None:
    """Nothing in an example is silently dropped when it is written."""
    record = examples(name)[example]
    fastavro.schemaless_writer(io.BytesIO(), load(name).parsed, record, strict_allow_default=True)


@pytest.mark.parametrize(("name", "example"), [row for row in ALL if row[0] in WIRE_SCHEMAS])
def test_an_example_comes_back_from_the_wire(name: str, example: str) -> None:
    """Decoding gives what was encoded, defaults filled in."""
    record = examples(name)[example]
    back = codec.decode(name, codec.encode(name, record))
    assert holds(back, record)
    assert codec.encode(name, back) == codec.encode(name, record)


@pytest.mark.parametrize(("name", "example"), [row for row in ALL if row[0] in INDEXED])
def test_a_document_does_not_depend_on_defaults_written_out(name: str, example: str) -> None:
    """What travelled over the wire gives the document of what was recorded."""
    record = examples(name)[example]
    back = codec.decode(name, codec.encode(name, record))
    assert to_document(name, back) == to_document(name, record)


@pytest.mark.parametrize(("name", "example"), [row for row in ALL if row[0] in INDEXED])
def test_an_examples_document_fits_the_strict_index(name: str, example: str) -> None:
    """Every path of the document is mapped and every value has its field's type, stamped with
    event.hash and event.ingested like every document."""
    added = to_document("enrichment.v2", examples("enrichment.v2")["redacted_chat"])
    if name != "access_event.v2":
        added = {"event": added["event"]}
    document = merged(to_document(name, examples(name)[example]), added)
    json.dumps(document)
    assert list(complaints(index_properties(INDEXED[name]), document)) == []


def test_the_check_against_the_index_sees_unknown_paths_and_wrong_types() -> None:
    """The check of the test before can go red."""
    document = {"event": {"id": 7, "planted": "x"}, "content": "secret", "@timestamp": "today"}
    assert list(complaints(index_properties("access"), document)) == [
        "event.id: not a keyword",
        "event.planted: not in the mapping",
        "content: not in the mapping",
        "@timestamp: not a date_nanos",
    ]


def test_a_frame_example_opens_into_the_event_it_carries() -> None:
    """A frame written by any Avro writer, without our block sizes, is cut into the same events."""
    record = examples("frame.v2")["one_event"]
    opened = codec.open_frame(codec.encode("frame.v2", record))
    assert [codec.encode_event(event) for event in record["events"]] == list(opened.events)
    assert opened.header.first_sequence == record["first_sequence"]
