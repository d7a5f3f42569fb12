"""Spans of RE2 matches without the match objects in between.

`re2` makes four Python objects for each match, which costs more than the matching of a short
window. What it calls beneath gives the spans at once; where a version of `re2` should not have it,
the public way gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import re2

from .budget import Budget

Extent = tuple[int, int]

_MATCH_COST = 2

Spans = Callable[[bytes, int, int, Budget], list[tuple[Extent, Extent]]]


def spans_of(pattern: re2._Regexp) -> Spans:
    """Return what finds (whole match, the group that took part) between two bytes, in order.

    Each match costs units of the budget, so that a text of matches only ends in time.
    """
    match = getattr(getattr(pattern, "_regexp", None), "Match", None)
    anchor = getattr(getattr(re2, "_Anchor", None), "UNANCHORED", None)
    if match is None or anchor is None:
        return partial(_public, pattern)
    return partial(_direct, match, anchor)


def _direct(
    match: Callable[..., list[Extent]],
    anchor: Any,
    data: bytes,
    start: int,
    end: int,
    budget: Budget,
) -> list[tuple[Extent, Extent]]:
    found: list[tuple[Extent, Extent]] = []
    while start <= end:
        groups = match(anchor, data, start, end)
        whole = groups[0]
        if whole[0] < 0:
            break
        budget.spend(_MATCH_COST)
        found.append((whole, _taken(groups) if len(groups) > 1 else whole))
        start = whole[1] if whole[1] > start else start + 1
    return found


def _taken(groups: list[Extent]) -> Extent:
    for group in groups[:0:-1]:
        if group[0] >= 0:
            return group
    return groups[0]


def _public(
    pattern: Any, data: bytes, start: int, end: int, budget: Budget
) -> list[tuple[Extent, Extent]]:
    found = []
    for match in pattern.finditer(data, start, end):
        budget.spend(_MATCH_COST)
        found.append((match.span(), match.span(match.lastindex or 0)))
    return found
