"""When a partition is read to its end."""

from __future__ import annotations

import pytest

from gatebook.processors.fenced import nothing_left


@pytest.mark.parametrize(
    ("low", "high", "next_offset", "nothing"),
    [
        pytest.param(0, 0, 0, True, id="nothing was ever written"),
        pytest.param(0, 14, 14, True, id="read to the end"),
        pytest.param(0, 14, 8, False, id="unread messages wait"),
        pytest.param(12, 14, 8, False, id="some were lost unread, others wait"),
        pytest.param(14, 14, 8, True, id="all that was unread is lost"),
        pytest.param(0, 0, 14, True, id="made anew, and empty"),
        pytest.param(0, 3, 14, False, id="made anew, and written to"),
    ],
)
def test_nothing_is_left_where_nothing_more_can_be_read(
    low: int, high: int, next_offset: int, nothing: bool
) -> None:
    """A partition that lost its messages before they were read holds up nobody's time."""
    assert nothing_left(low, high, next_offset) is nothing
