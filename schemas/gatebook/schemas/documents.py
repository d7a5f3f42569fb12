"""From an Avro record to the document that is indexed: renamed, pruned, timestamps as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from math import isfinite
from time import gmtime, strftime
from typing import Any

from gatebook.schemas.registry import Schema, load

Document = dict[str, Any]
_NS = 1_000_000_000


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))


def timestamp_text(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 in UTC with nine decimals, as date_nanos reads it."""
    second, rest = divmod(nanoseconds, _NS)
    return f"{_second_text(second)}.{rest:09d}Z"


def day_text(nanoseconds: int) -> str:
    """The UTC day of a timestamp as it stands in an index name: YYYY.MM.DD."""
    return _second_text(nanoseconds // _NS)[:10].replace("-", ".")


def es_path(field: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a field stands in the document, below its group."""
    return tuple(str(field.get("es_name", field["name"])).split("."))


def is_group(field: Mapping[str, Any]) -> bool:
    """Whether a field is a nested record."""
    return isinstance(field["type"], dict) and field["type"].get("type") == "record"


def walk(schema: Schema, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every leaf that is indexed: its path in the document and its field definition."""
    for field in schema["fields"]:
        if is_group(field):
            yield from walk(field["type"], prefix + es_path(field))
        elif field.get("es_mapping", "") is not None:
            yield prefix + es_path(field), field


Plan = list[tuple[str, str, Callable[[Any], Any] | None, "Plan | None", tuple[str, ...]]]


def is_time(field: Mapping[str, Any]) -> bool:
    """Whether a field holds nanoseconds that are indexed as a date."""
    mapping = field.get("es_mapping")
    return isinstance(mapping, dict) and mapping.get("type") == "date_nanos"


def known_time(nanoseconds: int) -> str | None:
    """A timestamp as text; 0 means not known."""
    return timestamp_text(nanoseconds) if nanoseconds else None


def finite(value: float) -> float | None:
    """A number JSON can hold; NaN and infinity cannot be indexed, and say nothing."""
    return value if isfinite(value) else None


def converter(field: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """How a field's value is rendered; None where it stays as it is."""
    if is_time(field):
        return known_time
    return finite if "double" in field["type"] else None


def _plan(schema: Schema) -> Plan:
    plan: Plan = []
    for field in schema["fields"]:
        if field.get("es_mapping", "") is None:
            continue
        path = es_path(field)
        inner = _plan(field["type"]) if is_group(field) else None
        plan.append((field["name"], path[-1], converter(field), inner, path[:-1]))
    return plan


@cache
def _plan_of(name: str) -> Plan:
    return _plan(load(name).raw)


def to_document(name: str, record: Mapping[str, Any]) -> Document:
    """The document of a record of schema `name`: nothing empty in it, fields that are not indexed
    left out. A value of 0 or False stays; a timestamp of 0 means unknown and goes."""
    if name == "access_event.v2":
        return _access_document()(record)
    return render_by_plan(name, record)


@cache
def _access_document() -> Callable[[Mapping[str, Any]], Document]:
    """The generated function that does for an access event what render_by_plan does for all.
    Imported late: what generates it needs this module."""
    from gatebook.schemas.generated.access_codec import document

    return document


def render_by_plan(name: str, record: Mapping[str, Any]) -> Document:
    """What to_document returns, by walking the schema; the reference for generated code."""
    return _render(_plan_of(name), record)


def _render(plan: Plan, record: Mapping[str, Any]) -> Document:
    out: Document = {}
    for name, key, convert, inner, parents in plan:
        value = record.get(name)
        if inner is not None:
            value = _render(inner, value) if value else None
        elif convert is not None and value is not None:
            value = convert(value)
        if value is None or value == "" or value == [] or value == {}:
            continue
        target = out
        for parent in parents:
            target = target.setdefault(parent, {})
        target[key] = value
    return out
