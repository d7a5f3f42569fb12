"""When a worker counts as stalled."""

from __future__ import annotations

from gatebook.processors.watchdog import StallDetector

P = ("topic", 0)


def test_waiting_work_without_progress_is_a_stall() -> None:
    """Lag and an offset that does not move for the whole time end the worker."""
    detector = StallDetector(10)
    assert not detector.see({P: 5}, lag=3, busy=False, now=100)
    assert not detector.see({P: 5}, lag=3, busy=False, now=109)
    assert detector.see({P: 5}, lag=3, busy=False, now=110)


def test_progress_an_empty_topic_and_a_batch_under_way_are_no_stall() -> None:
    """Whoever moves, has nothing to do, or waits for a dependency is left alone."""
    detector = StallDetector(10)
    assert not detector.see({P: 5}, lag=3, busy=False, now=100)
    assert not detector.see({P: 6}, lag=3, busy=False, now=120)
    assert not detector.see({P: 6}, lag=0, busy=False, now=140)
    assert not detector.see({P: 6}, lag=3, busy=True, now=160)
    assert detector.see({P: 6}, lag=3, busy=False, now=170)


def test_time_in_which_nobody_looked_is_no_stall() -> None:
    """The broker was away or the process was stopped for long: the first look after it does not
    end the worker."""
    detector = StallDetector(10, look_seconds=2)
    assert not detector.see({P: 5}, lag=3, busy=False, now=100)
    assert not detector.see({P: 5}, lag=3, busy=False, now=5000)
    assert [detector.see({P: 5}, lag=3, busy=False, now=5000 + n) for n in (2, 4, 6, 8)] == [
        False,
        False,
        False,
        True,
    ]


def test_a_reset_begins_the_count_anew() -> None:
    """What looked like waiting work and was none is forgotten."""
    detector = StallDetector(10)
    assert not detector.see({P: 5}, lag=1, busy=False, now=0)
    assert detector.see({P: 5}, lag=1, busy=False, now=10)
    detector.reset()
    assert not detector.see({P: 5}, lag=1, busy=False, now=11)
    assert not detector.see({P: 5}, lag=1, busy=False, now=20)
