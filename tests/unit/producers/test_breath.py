"""The writer's breaks: where the interpreter is shared, and where work comes first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatebook.producers import breath
from gatebook.producers.breath import AFTER_SECONDS, TOO_LONG_SECONDS, WHOLE_TURNS_SECONDS, Breath


class Clock:
    """Time that passes by itself only in breaks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.break_seconds = 0.0001
        self.breaks = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.breaks += 1
        self.now += self.break_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(breath.time, "sleep", made.sleep)
    return made


def work(clock: Clock, taken: Breath, seconds: float, hurried: bool = False) -> int:
    """Pieces of 0.1 ms for so long; the breaks that were taken."""
    before, until = clock.breaks, clock.now + seconds
    while clock.now < until:
        clock.now += 0.0001
        taken.take(hurried)
    return clock.breaks - before


def test_work_is_interrupted_every_fraction_of_a_millisecond(clock: Clock) -> None:
    """A request never waits for a whole batch."""
    found = work(clock, Breath(clock), 0.1)
    assert 0.1 / found < AFTER_SECONDS * 2


def test_where_much_is_queued_work_comes_first(clock: Clock) -> None:
    """Losing events would be worse than a request that waits."""
    assert work(clock, Breath(clock), 0.1, hurried=True) == 0


def test_where_a_break_takes_long_the_writer_has_whole_turns_for_a_while(clock: Clock) -> None:
    """A service that computes without a pause does not starve it, and later it is polite again."""
    taken = Breath(clock)
    clock.break_seconds = TOO_LONG_SECONDS * 2
    assert work(clock, taken, WHOLE_TURNS_SECONDS * 0.9) == 1
    clock.break_seconds = 0.0001
    assert work(clock, taken, WHOLE_TURNS_SECONDS) > 20
