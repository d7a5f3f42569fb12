"""Spreads of durations: exact in adding up, to one per cent in quantiles."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.summaries.spread import RELATIVE_ERROR, Spread

NANOSECONDS = st.integers(min_value=-5, max_value=10**18)


def spread_of(values: list[int]) -> Spread:
    spread = Spread()
    for value in values:
        spread.add(value)
    return spread


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9, 10**12])
def test_a_quantile_is_right_to_one_per_cent(scale: int) -> None:
    """Whatever the unit and the shape, the value told is within 1 % of one that was measured."""
    draw = random.Random(scale)
    values = sorted(max(1, int(draw.lognormvariate(3, 2) * scale)) for _ in range(5_000))
    spread = spread_of(values)
    for fraction in (0.0, 0.01, 0.5, 0.95, 0.99, 0.999, 1.0):
        rank = fraction * (len(values) - 1)
        exact = values[math.floor(rank)]
        found = spread.quantile(fraction)
        assert found is not None
        assert abs(found - exact) <= exact * RELATIVE_ERROR + 1e-6, (fraction, found, exact)


@given(st.lists(NANOSECONDS), st.lists(NANOSECONDS))
def test_parts_add_up_to_the_whole_bit_for_bit(first: list[int], second: list[int]) -> None:
    """A merge of parts is the spread of all their values, in whatever order they came."""
    whole, merged = spread_of(second + first), spread_of(first)
    merged.merge(spread_of(second))
    assert (merged.pack(), merged.sum_ns, merged.max_ns) == (
        whole.pack(),
        whole.sum_ns,
        whole.max_ns,
    )
    assert merged.count == len(first) + len(second)


@given(st.lists(NANOSECONDS), st.lists(NANOSECONDS))
def test_a_part_can_be_taken_away_again(first: list[int], second: list[int]) -> None:
    """What is left is the spread of the other part; of its largest value a bound."""
    left = spread_of(first + second)
    left.subtract(spread_of(second))
    rest = spread_of(first)
    assert (left.pack(), left.count, left.sum_ns) == (rest.pack(), rest.count, rest.sum_ns)
    assert left.max_ns >= rest.max_ns


@given(st.lists(NANOSECONDS))
def test_what_is_packed_is_read_again(values: list[int]) -> None:
    """A stored spread is the same spread."""
    spread = spread_of(values)
    again = Spread.unpack(spread.pack(), spread.sum_ns, spread.max_ns)
    assert (again.buckets, again.count) == (spread.buckets, spread.count)


def test_nothing_has_no_quantile() -> None:
    """No value is None, not zero; and a stored text that was cut is an error."""
    assert Spread().quantile(0.5) is None
    with pytest.raises(ValueError, match="cut off"):
        Spread.unpack("gA==", 0, 0)
