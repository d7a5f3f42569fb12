"""Spans of RE2 matches without the match objects in between.

`re2` makes four Python objects for each match, which costs more than the matching of a short
window. What it calls beneath gives the spans at once; where a version of `re2` should not have it,
the public way gives the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import re2

from .budget import Budget

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1

Extent = tuple[int, int]

_MATCH_COST = 2


class Settled:
    """Extents that stronger rules have found: a weaker one could add nothing within one of them."""

    __slots__ = ("_extents", "_reach", "_starts")

    def __init__(self) -> None:
        self._extents: list[Extent] = []
        self._starts: list[int] = []
        self._reach: list[int] = []
        """By start, in order: the furthest end of an extent that begins there or before."""

    def __bool__(self) -> bool:
        return bool(self._extents)

    def add(self, extents: Iterable[Extent]) -> None:
        """Take up what one rule has found."""
        self._extents += extents
        if len(self._extents) > _FEW:
            self._extents.sort()
            self._starts = [start for start, _ in self._extents]
            self._reach = list(accumulate((end for _, end in self._extents), max))

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all from one byte to another lies within a single extent."""
        if self._starts:
            at = bisect_right(self._starts, start)
            return at > 0 and self._reach[at - 1] >= end
        for left, right in self._extents:  # noqa: SIM110 - a third of what `any` takes
            if left <= start and end <= right:
                return True
        return False


_FEW = 24
"""Up to so many extents are looked through as they are."""

Matches = tuple[list[Extent], list[Extent]]
"""All matches whole, and of each the group that took part (the whole where there is none)."""
Spans = Callable[[bytes, int, int, Budget], Matches]


def spans_of(pattern: re2._Regexp) -> Spans:
    """Return what finds all matches between two bytes, in order.

    Each match costs units of the budget, so that a text of matches only ends in time.
    """
    match, anchor = _beneath(pattern)
    if match is None or anchor is None:
        return partial(_public, pattern)
    if not pattern.groups:
        return _whole_only(wholes_of(pattern))
    return _direct(match, anchor)


def wholes_of(pattern: re2._Regexp) -> Callable[[bytes, int, int, Budget], list[Extent]]:
    """Return what finds whole matches, in the same way."""
    match, anchor = _beneath(pattern)
    if match is None or anchor is None:
        return lambda data, start, end, budget: _public(pattern, data, start, end, budget)[0]

    def wholes(data: bytes, start: int, end: int, budget: Budget) -> list[Extent]:
        found: list[Extent] = []
        while start <= end:
            whole = match(anchor, data, start, end)[0]
            first, last = whole
            if first < 0:
                break
            found.append(whole)
            budget.left -= _MATCH_COST
            if budget.left < 0:
                break
            start = last if last > start else start + 1
        budget.spend(0)
        return found

    return wholes


def _beneath(pattern: Any) -> tuple[Any, Any]:
    match = getattr(getattr(pattern, "_regexp", None), "Match", None)
    return match, getattr(getattr(re2, "_Anchor", None), "UNANCHORED", None)


def _whole_only(wholes: Callable[[bytes, int, int, Budget], list[Extent]]) -> Spans:
    def spans(data: bytes, start: int, end: int, budget: Budget) -> Matches:
        found = wholes(data, start, end, budget)
        return found, found

    return spans


def _direct(match: Callable[..., list[Extent]], anchor: Any) -> Spans:
    def spans(data: bytes, start: int, end: int, budget: Budget) -> Matches:
        wholes: list[Extent] = []
        values: list[Extent] = []
        while start <= end:
            groups = match(anchor, data, start, end)
            whole = groups[0]
            if whole[0] < 0:
                break
            budget.spend(_MATCH_COST)
            wholes.append(whole)
            values.append(_taken(groups))
            start = whole[1] if whole[1] > start else start + 1
        return wholes, values

    return spans


def _taken(groups: list[Extent]) -> Extent:
    for group in groups[:0:-1]:
        if group[0] >= 0:
            return group
    return groups[0]


def _public(pattern: Any, data: bytes, start: int, end: int, budget: Budget) -> Matches:
    wholes: list[Extent] = []
    values: list[Extent] = []
    for match in pattern.finditer(data, start, end):
        budget.spend(_MATCH_COST)
        wholes.append(match.span())
        values.append(match.span(match.lastindex or 0))
    return wholes, values


def set_match(patterns: re2.Set) -> Callable[[bytes], Sequence[int]]:
    """What says which patterns match; as above, without the wrapper where it can be."""
    beneath = getattr(getattr(patterns, "_set", None), "Match", None)
    return beneath or (lambda data: patterns.Match(data) or ())


def tells(pattern: bytes) -> Callable[[bytes], Sequence[int]]:
    """What says whether a pattern matches anywhere, without telling where: empty for no."""
    one = re2.Set.SearchSet(_LATIN1)
    one.Add(pattern)
    one.Compile()
    return set_match(one)
