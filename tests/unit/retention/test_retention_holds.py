"""What a hold covers follows from the hold alone, whenever it is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from gatebook.processors.retention.holds import Hold, query_of

AT = "2026-03-31T12:00:00Z"
EXACT = "2026-03-31T12:00:00.000000Z"
MALLORY = {"term": {"user.id": {"value": "mallory"}}}


def hold(query: str, at: str = AT) -> Hold:
    """A hold by query, placed then."""
    return Hold(id="case", reason="case 1", by="ada", at=at, query=query)


@pytest.mark.parametrize(
    ("query", "bounds"),
    [
        ("@timestamp >= now-30d", {"gte": "2026-03-01T12:00:00.000000Z"}),
        ("@timestamp >= 30d", {"gte": "2026-03-01T12:00:00.000000Z"}),
        ("@timestamp >= now-1y", {"gte": f"{EXACT}||-1y"}),
        ("@timestamp: now-1M/d", {"gte": f"{EXACT}||-1M/d", "lte": f"{EXACT}||-1M/d"}),
        ("@timestamp < 2026-01-05", {"lt": "2026-01-05"}),
    ],
)
def test_relative_times_in_a_hold_are_relative_to_when_it_was_placed(
    query: str, bounds: dict[str, str]
) -> None:
    """Were they relative to now, today's evidence would not be covered any more in 40 days."""
    found = query_of(hold(f"user.id:mallory and {query}"), "access")
    told: Any = {"bool": {"filter": [MALLORY, {"range": {"@timestamp": bounds}}]}}
    assert found == {"bool": {"filter": [told]}}


def test_a_word_that_looks_like_a_time_is_a_word() -> None:
    """`now` as somebody's name is left alone."""
    assert query_of(hold("user.id:now-1y"), "access") == {
        "bool": {"filter": [{"term": {"user.id": {"value": "now-1y"}}}]}
    }
