"""A tail shows each event once, whatever happens between two of its looks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.search.test_search import Book, book, make_row, stamp

from gatebook.processors.search.service import Tail
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.sinks.settings import ElasticsearchSettings

__all__ = ["book"]  # the fixture


def taken_in(number: int, at: datetime) -> Row:
    """An access that a worker stamped at a time."""
    made = make_row(number)
    document = json.loads(made.body)
    document["event"]["ingested"] = stamp(at)
    return Row(made.kind, made.day, made.id, made.hash, json.dumps(document).encode())


async def test_a_tail_repeats_nothing_of_the_second_its_window_begins_in(book: Book) -> None:
    """Two events about a window apart: the first one is not shown again, look after look."""
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)
    apart = (timedelta(seconds=0.5), timedelta(seconds=10.2))
    await book.write(*(taken_in(n, base + later) for n, later in enumerate(apart)))
    tail = Tail(book.connection, book.namespace, since="1m")
    looks = [[hit.id for hit in await tail.poll()] for _ in range(4)]
    assert looks == [["access-000000", "access-000001"], [], [], []]


class OnceCut(Connection):
    """A connection that breaks once, before the second page of a look."""

    is_cut = False

    async def request(self, method: str, path: str, **given: Any) -> Answer:
        if "search_after" in (given.get("json") or {}) and not self.is_cut:
            self.is_cut = True
            raise Unreachable("the connection broke")
        return await super().request(method, path, **given)


async def test_a_look_that_breaks_in_the_middle_loses_nothing(book: Book) -> None:
    """What the first page had is shown by the next look."""
    await book.write(*(make_row(n) for n in range(1_050)))
    connection = OnceCut(ElasticsearchSettings(url=book.url))
    tail = Tail(connection, book.namespace, since="1m")
    with pytest.raises(Unreachable):
        await tail.poll()
    assert len({hit.id for hit in await tail.poll()}) == 1_050
    await connection.close()
