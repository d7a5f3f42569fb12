"""The most frequent values of fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.histogram import Source, aggregate
from gatebook.processors.search.question import Question
from gatebook.processors.sinks.connection import Connection

MIN_SHARD_VALUES = 100
DISTINCT_PRECISION = 1_000
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of one field with their counts, most frequent first; how many documents stand
    behind the values that are not listed, how many have none, and how many values there are
    (near enough beyond 1,000). exact: whether no shard left out a value that counts. source: what
    was counted."""

    values: list[tuple[Scalar, int]] = field(default_factory=list)
    other: int = 0
    missing: int = 0
    distinct: int = 0
    exact: bool = True
    source: Source = "details"


@dataclass(frozen=True, slots=True)
class Facets:
    """How many documents match, and the facets by field, in the order they were asked for.
    source: what the total was counted from, and since and until its range, where that is not the
    question's own."""

    total: int
    facets: dict[str, Facet]
    source: Source = "details"
    since: str | None = None
    until: str | None = None


async def facets(
    client: Connection, namespace: str, question: Question, fields: Sequence[str], size: int = 10
) -> Facets:
    """Facets of fields that `question.countable` takes. Raises SearchFailed, Unreachable."""
    index = f"{namespace}-{question.kind}"
    names = list(dict.fromkeys(fields))
    aggregations: Dsl = {}
    for number, name in enumerate(names):
        shard_size = max(MIN_SHARD_VALUES, 4 * size)
        terms = {"field": name, "size": size, "shard_size": shard_size}
        aggregations[f"values{number}"] = {"terms": terms}
        aggregations[f"missing{number}"] = {"missing": {"field": name}}
    found = await aggregate(client, index, question, aggregations, total=True)
    if "values0" not in found:
        return Facets(0, {name: Facet() for name in names})
    known = {name: _facet(found, number) for number, name in enumerate(names)}
    # Counting different values is dear; where all of them are listed there is nothing to count.
    long = [name for name, facet in known.items() if facet.other]
    distinct = await _distinct(client, index, question, long)
    return Facets(
        found["total"],
        {name: _with(facet, distinct.get(name)) for name, facet in known.items()},
    )


def _facet(found: dict[str, Any], number: int) -> Facet:
    terms = found[f"values{number}"]
    values = [(_value(bucket), bucket["doc_count"]) for bucket in terms["buckets"]]
    return Facet(
        values,
        terms["sum_other_doc_count"],
        found[f"missing{number}"]["doc_count"],
        len(values),
        terms["doc_count_error_upper_bound"] == 0,
    )


def _value(bucket: Dsl) -> Scalar:
    text = bucket.get("key_as_string")
    if text in ("true", "false") and bucket["key"] in (0, 1):
        return bool(bucket["key"])
    key: Scalar = bucket["key"]
    return key


def _with(facet: Facet, distinct: int | None) -> Facet:
    if distinct is None:
        return facet
    counted = max(distinct, len(facet.values))
    return Facet(facet.values, facet.other, facet.missing, counted, facet.exact)


async def _distinct(
    client: Connection, index: str, question: Question, names: Sequence[str]
) -> dict[str, int]:
    if not names:
        return {}
    aggregations = {
        f"distinct{number}": {
            "cardinality": {"field": name, "precision_threshold": DISTINCT_PRECISION}
        }
        for number, name in enumerate(names)
    }
    found = await aggregate(client, index, question, aggregations)
    return {
        name: int(found.get(f"distinct{number}", {}).get("value", 0))
        for number, name in enumerate(names)
    }
