"""Await a condition: the one place in the tests where time passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1


def wait_until(
    what: str,
    condition: Callable[[], T],
    timeout_seconds: float = 60.0,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """The first true value of `condition`; AssertionError naming `what` at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s: {what} (last: {found!r})")
        time.sleep(poll_seconds)


async def until(what: str, condition: Callable[[], T], timeout_seconds: float = 60.0) -> T:
    """The same for what happens in this event loop."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s: {what} (last: {found!r})")
        await asyncio.sleep(POLL_SECONDS / 10)
    return found
