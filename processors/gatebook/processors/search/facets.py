"""The most frequent values of fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gatebook.processors.search.dsl import Dsl, has_pattern
from gatebook.processors.search.histogram import Source, aggregate
from gatebook.processors.search.question import Question
from gatebook.processors.search.spelling import spelled_out
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
    question = await spelled_out(client, question, index)
    # Counting different values is dear, so only those fields are asked for whose values were not
    # all listed, in a second request; but a query with patterns is dearer still to read twice.
    at_once = names if has_pattern(question.dsl) else []
    aggregations = {**_values(names, max(MIN_SHARD_VALUES, 4 * size)), **_different(at_once)}
    found = await aggregate(client, index, question, aggregations, total=True)
    if "values0" not in found:
        return Facets(0, {name: Facet() for name in names})
    known = {name: _facet(found, number, size) for number, name in enumerate(names)}
    many = [name for number, name in enumerate(names) if _is_unlisted(found, number)]
    distinct = (
        found if at_once or not many else await aggregate(client, index, question, _different(many))
    )
    for name in many:
        known[name] = _with(known[name], int(distinct.get(_distinct(name), {}).get("value", 0)))
    return Facets(found["total"], known)


def _values(names: Sequence[str], size: int) -> Dsl:
    """More values than are shown: where they are all there are, they need not be counted."""
    aggregations: Dsl = {}
    for number, name in enumerate(names):
        terms = {"field": name, "size": size, "shard_size": size}
        aggregations[f"values{number}"] = {"terms": terms}
        aggregations[f"missing{number}"] = {"missing": {"field": name}}
    return aggregations


def _different(names: Sequence[str]) -> Dsl:
    return {
        _distinct(name): {"cardinality": {"field": name, "precision_threshold": DISTINCT_PRECISION}}
        for name in names
    }


def _distinct(name: str) -> str:
    return f"distinct {name}"


def _is_unlisted(found: dict[str, Any], number: int) -> bool:
    return bool(found[f"values{number}"]["sum_other_doc_count"])


def _facet(found: dict[str, Any], number: int, size: int) -> Facet:
    terms = found[f"values{number}"]
    listed = [(_value(bucket), bucket["doc_count"]) for bucket in terms["buckets"]]
    return Facet(
        listed[:size],
        terms["sum_other_doc_count"] + sum(count for _, count in listed[size:]),
        found[f"missing{number}"]["doc_count"],
        len(listed),
        terms["doc_count_error_upper_bound"] == 0,
    )


def _value(bucket: Dsl) -> Scalar:
    text = bucket.get("key_as_string")
    if text in ("true", "false") and bucket["key"] in (0, 1):
        return bool(bucket["key"])
    key: Scalar = bucket["key"]
    return key


def _with(facet: Facet, distinct: int) -> Facet:
    """`distinct` is an estimate beyond DISTINCT_PRECISION; so many were listed at least."""
    return replace(facet, distinct=max(distinct, facet.distinct))
