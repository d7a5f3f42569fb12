"""Documents hold what is known of a record, under names and in forms the index takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatebook.schemas.documents import day_text, timestamp_text, to_document, walk
from gatebook.schemas.generate import GENERATED, KINDS, Kind
from gatebook.schemas.registry import load

from .mapping_check import complaints
from .strategies import LONGS, records

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, (1 << 63) - 1)


@given(TIMES)
@example(0)
@example((1 << 63) - 1)
@example(1_772_442_927_314_000_159)
def test_a_timestamp_keeps_every_nanosecond(nanoseconds: int) -> None:
    """Text and number say the same instant, down to the last digit."""
    text = timestamp_text(nanoseconds)
    second, rest = divmod(nanoseconds, 1_000_000_000)
    assert text.endswith(f".{rest:09d}Z")
    assert datetime.fromisoformat(text[:19] + "+00:00") == EPOCH + timedelta(seconds=second)
    assert day_text(nanoseconds) == text[:10].replace("-", ".")


# Pairs of the service's own: what they hold, empty or not, is not ours to drop.
FREE_PAIRS = ("labels", "attributes")


def empty_places(document: dict[str, Any]) -> list[str]:
    """The names in a document that say nothing."""
    found = [name for name, value in document.items() if value in (None, "", [], {})]
    for name, value in document.items():
        if isinstance(value, dict) and name not in FREE_PAIRS:
            found += empty_places(value)
    return found


TIME_FIELDS = ("timestamp", "end", "start", "created")


def indexable(record: dict[str, Any]) -> dict[str, Any]:
    """The record with timestamps and an address an index could hold; Avro's types reach further."""
    out: dict[str, Any] = {}
    for name, value in record.items():
        if name in TIME_FIELDS:
            out[name] = value % (1 << 63)
        elif name == "ip":
            out[name] = value and "192.0.2.1"
        else:
            inner = isinstance(value, dict) and name not in FREE_PAIRS
            out[name] = indexable(value) if inner else value
    return out


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_document_fits_the_strict_index_and_holds_nothing_empty(kind: Kind) -> None:
    """Of any record: only mapped paths, values of the mapped types, and no empty values."""
    template = json.loads((GENERATED / f"{kind.name}.template.json").read_text())
    properties = template["template"]["mappings"]["properties"]

    @settings(max_examples=80)
    @given(records(kind.schema))
    def check(record: dict[str, Any]) -> None:
        document = to_document(kind.schema, indexable(record))
        assert list(complaints(properties, document)) == []
        assert empty_places(document) == []

    check()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_full_record_reaches_every_path(kind: Kind) -> None:
    """No field is lost on the way: each mapped path of the schema is in the document."""
    document = to_document(kind.schema, full(load(kind.schema).raw))
    for path, _ in walk(load(kind.schema).raw):
        place: Any = document
        for name in path:
            place = place[name]


def full(kind: Any) -> Any:
    """A value with everything set."""
    if isinstance(kind, list):
        return full(kind[1])
    if isinstance(kind, str):
        return {"string": "x", "long": 7, "double": 0.5, "boolean": False, "bytes": b"x"}[kind]
    if kind["type"] == "array":
        return [full(kind["items"])]
    if kind["type"] == "map":
        return {"k": full(kind["values"])}
    return {field["name"]: full(field["type"]) for field in kind["fields"]}


@given(LONGS)
def test_zero_and_false_are_known_values(number: int) -> None:
    """0 tokens and `false` are facts and stay; only a timestamp of 0 means unknown."""
    record = {
        "timestamp": 0,
        "event": {"duration": number},
        "gen_ai": {"request": {"stream": False, "temperature": 0.0}, "usage": {"input_tokens": 0}},
    }
    assert to_document("access_event.v2", record) == {
        "event": {"duration": number},
        "gen_ai": {"request": {"stream": False, "temperature": 0.0}, "usage": {"input_tokens": 0}},
    }


def test_content_never_reaches_the_document() -> None:
    """Captured content is opened by intake alone; the document has no place for it."""
    record = {"event": {"id": "x"}, "content": b"secret", "content_encoding": "json"}
    assert to_document("access_event.v2", record) == {"event": {"id": "x"}}


def test_a_document_shares_nothing_with_other_documents() -> None:
    """Enrichment may write into a document without reaching another."""
    record = {"attributes": {"a": "b"}, "event": {"id": "x"}}
    first, second = (to_document("access_event.v2", record) for _ in range(2))
    first["gatebook"]["planted"] = first["event"]["planted"] = "x"
    assert "planted" not in second["gatebook"]
    assert "planted" not in second["event"]
