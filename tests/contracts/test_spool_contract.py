"""What every spool promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gatebook.producers.spool import FileSpool, MemorySpool, Spool, SpoolFull

MAX_BYTES = 100_000


@pytest.fixture(params=["file", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spool]:
    made: Spool
    if request.param == "file":
        made = FileSpool.create(tmp_path, "svc", 1, MAX_BYTES)
    else:
        made = MemorySpool(MAX_BYTES)
    yield made
    made.close()


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [str(first + n).encode() for n in range(count)]


def test_events_come_back_in_order_under_their_numbers(spool: Spool) -> None:
    """Several appends read as one row."""
    spool.append(0, numbered(3))
    spool.append(3, numbered(2, 3))

    assert [(e.sequence, e.data) for e in spool.peek(100, 1000)] == list(enumerate(numbered(5)))


def test_peeking_removes_nothing(spool: Spool) -> None:
    """Until they are acknowledged, the same events are there."""
    spool.append(0, numbered(3))

    assert spool.peek(2, 1000) == spool.peek(2, 1000)
    assert len(spool.peek(2, 1000)) == 2
    assert not spool.drained


def test_acknowledged_events_are_gone(spool: Spool) -> None:
    """A part may be acknowledged; the rest follows."""
    spool.append(0, numbered(5))
    spool.peek(5, 1000)
    spool.acknowledge(2)

    assert [e.sequence for e in spool.peek(5, 1000)] == [2, 3, 4]
    spool.acknowledge(5)
    assert spool.drained
    assert spool.peek(5, 1000) == []


def test_a_limit_in_bytes_cuts_but_gives_at_least_one(spool: Spool) -> None:
    """An event above the limit is not stuck for ever."""
    spool.append(0, [b"x" * 50, b"y" * 50, b"z" * 500])

    assert len(spool.peek(10, 100)) == 2
    spool.acknowledge(2)
    assert len(spool.peek(10, 100)) == 1


def test_a_gap_in_the_numbers_ends_what_is_read_at_once(spool: Spool) -> None:
    """A frame has one first number: events after a gap go into the next one."""
    spool.append(0, numbered(2))
    spool.append(10, numbered(2, 10))

    assert [e.sequence for e in spool.peek(10, 1000)] == [0, 1]
    spool.acknowledge(2)
    assert [e.sequence for e in spool.peek(10, 1000)] == [10, 11]


def test_a_full_spool_refuses_the_newest_and_keeps_the_oldest(spool: Spool) -> None:
    """Nothing that was accepted is given up; once acknowledged, there is room again."""
    batch = [b"x" * 900] * 10
    accepted = 0

    def fill() -> None:
        nonlocal accepted
        while True:
            spool.append(accepted, batch)
            accepted += len(batch)

    with pytest.raises(SpoolFull):
        fill()
    assert accepted > 0
    assert spool.peek(1, 1000)[0].sequence == 0
    while not spool.drained:
        spool.acknowledge(spool.peek(100, 100_000)[-1].sequence + 1)
    spool.append(accepted, batch)
    assert [e.sequence for e in spool.peek(1, 1000)] == [accepted]


def test_an_acknowledgement_of_all_may_come_before_any_peek(spool: Spool) -> None:
    """The cursor is a number, not a position."""
    spool.append(0, numbered(4))
    spool.acknowledge(3)

    assert [e.sequence for e in spool.peek(10, 1000)] == [3]


def test_closing_twice_is_harmless(spool: Spool) -> None:
    """The end of a process may come from two sides."""
    spool.append(0, numbered(1))
    spool.close()
    spool.close()
