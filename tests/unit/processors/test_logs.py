"""What a worker's log says, and how often."""

from __future__ import annotations

import logging

from gatebook.processors.logs import Unrepeated


def record(name: str, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, text, ("x",), None)


def test_a_library_says_the_same_thing_once_a_while() -> None:
    """A broker that is away fills no log; when it is said again, so is how often it was not."""
    now = [0.0]
    unrepeated = Unrepeated(every_seconds=30.0, clock=lambda: now[0])
    passed = [unrepeated.filter(record("aiokafka", "no broker %s")) for _ in range(5)]
    assert passed == [True, False, False, False, False]
    assert unrepeated.filter(record("aiokafka", "something else %s"))
    now[0] = 31.0
    again = record("aiokafka", "no broker %s")
    assert unrepeated.filter(again)
    assert again.__dict__["gatebook"] == {"log.repeated": 4}


def test_our_own_lines_are_never_left_out() -> None:
    """Each of them is an act of its own."""
    unrepeated = Unrepeated()
    assert all(unrepeated.filter(record("gatebook.worker", "ended %s")) for _ in range(3))
