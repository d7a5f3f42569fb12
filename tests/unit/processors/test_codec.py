"""What the answer to a trial of a codec means."""

from __future__ import annotations

from typing import Any

import pytest

from gatebook.processors.sinks.codec import committed
from gatebook.processors.sinks.connection import Answer


@pytest.mark.parametrize(
    ("status", "body", "done"),
    [
        (200, {"_shards": {"total": 1, "successful": 1, "failed": 0}}, True),
        (200, {"_shards": {"total": 1, "successful": 0, "failed": 1}}, False),
        (200, {"_shards": {"total": 1, "successful": 0, "failed": 0}}, False),
        (200, None, False),
        (500, {"error": {"type": "flush_failed_engine_exception"}}, False),
        (503, {"_shards": {"total": 1, "successful": 1, "failed": 0}}, False),
    ],
)
def test_only_a_commit_of_the_shard_counts(status: int, body: Any, done: bool) -> None:
    """A shard that failed, or was lost before it could answer, is not one that was committed."""
    assert committed(Answer(status, body)) is done
