"""Patterns on fields that hold sentences, spelled out as the few values that match them.

Elasticsearch makes the automaton of a pattern anew in every index for every request: words looked
for over a month take longer than all else. Messages and reasons repeat. So their values are listed
first, a list that Elasticsearch remembers for days gone by, and those that match are asked for.
Where there are more than MAX_VALUES the pattern stays; the matches are the same either way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from gatebook.processors.search.asking import ask
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.fields import SENTENCE_FIELDS
from gatebook.processors.search.question import Question, moment, stamp
from gatebook.processors.search.times import LATEST
from gatebook.processors.sinks.connection import Connection

MAX_VALUES = 500
DAY = timedelta(days=1)
_PART = re.compile(r"\\(.)|(\*)|([^\\*]+)", re.DOTALL)  # a ? of ours is always escaped


async def spelled_out(
    client: Connection, question: Question, index: str = "", view: str | None = None
) -> Question:
    """The same question, its patterns on sentences replaced where that can be done. The values are
    read from where matches will be: an index, or a view (a point in time of it).
    Raises ViewGone, SearchFailed, Unreachable."""
    names = sorted({name for name, _ in _patterns(list(question.filters))})
    if not names:
        return question
    known = await _values(client, question, names, index, view)
    return replace(question, filters=tuple(_spelled(part, known) for part in question.filters))


def _patterns(dsl: Any) -> Iterator[tuple[str, Dsl]]:
    """Field and options of each pattern that can be spelled out."""
    if isinstance(dsl, dict):
        if (found := _pattern_of(dsl)) is not None:
            yield found
        dsl = list(dsl.values())
    for part in dsl if isinstance(dsl, list) else ():
        yield from _patterns(part)


def _pattern_of(dsl: Dsl) -> tuple[str, Dsl] | None:
    """What is not ASCII stays with Elasticsearch: which letters are alike is for it to say."""
    for name, options in dsl.get("wildcard", {}).items():
        if name in SENTENCE_FIELDS and options["value"].isascii():
            return name, options
    return None


async def _values(
    client: Connection, question: Question, names: Sequence[str], index: str, view: str | None
) -> Mapping[str, list[str]]:
    """All values of those fields that have few, in whole days: of these each index is within the
    range or outside, and its list is remembered. Only what who asks may see is listed."""
    listed = {
        name: {"terms": {"field": name, "size": MAX_VALUES, "shard_size": MAX_VALUES}}
        for name in names
    }
    days = replace(question, filters=question.scope).within(*_whole_days(question))
    body: Dsl = {"size": 0, "query": days.dsl, "track_total_hits": False, "aggs": listed}
    path = f"/{index}/_search"
    if view is not None:
        body["pit"], path = {"id": view}, "/_search"
    found = (await ask(client, path, absent={}, json=body)).get("aggregations", {})
    return {
        name: [bucket["key"] for bucket in values["buckets"]]
        for name, values in found.items()
        if not values["sum_other_doc_count"]
    }


def _whole_days(question: Question) -> tuple[str | None, str | None]:
    first, last = (_midnight(text) for text in (question.since, question.until))
    return (
        stamp(first) if first else None,
        stamp(last + DAY) if last and last < LATEST else None,
    )


def _midnight(text: str | None) -> datetime | None:
    return moment(text).replace(hour=0, minute=0, second=0, microsecond=0) if text else None


def _spelled(dsl: Any, known: Mapping[str, list[str]]) -> Any:
    if isinstance(dsl, list):
        return [_spelled(part, known) for part in dsl]
    if not isinstance(dsl, dict):
        return dsl
    found = _pattern_of(dsl)
    if found is None or found[0] not in known:
        return {name: _spelled(part, known) for name, part in dsl.items()}
    name, options = found
    values = matching(options["value"], known[name], options.get("case_insensitive", False))
    return {"terms": {name: values}} if values else {"match_none": {}}


def matching(pattern: str, values: Sequence[str], ignores_case: bool) -> list[str]:
    """The values that a pattern of ours matches, as Elasticsearch reads it: ASCII letters alone
    may differ in case. Takes no more steps than value and pattern are long, multiplied."""
    pieces = [_octets(piece, ignores_case) for piece in _pieces(pattern)]
    return [value for value in values if _is_like(_octets(value, ignores_case), pieces)]


def _octets(text: str, ignores_case: bool) -> bytes:
    octets = text.encode("utf-8", "surrogatepass")
    return octets.lower() if ignores_case else octets  # of bytes: ASCII letters only


def _pieces(pattern: str) -> list[str]:
    """What stands between the stars, without the backslashes."""
    pieces = [""]
    for escaped, star, plain in _PART.findall(pattern):
        if star:
            pieces.append("")
        pieces[-1] += escaped + plain
    return pieces


def _is_like(value: bytes, pieces: Sequence[bytes]) -> bool:
    first, *rest = pieces
    if not rest:
        return value == first
    *middle, last = rest
    end = len(value) - len(last)
    if not value.startswith(first) or not value.endswith(last):
        return False
    at = len(first)
    for piece in middle:
        found = value.find(piece, at, end) if at <= end else -1
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end
