"""How the writer's thread shares the interpreter with the event loop it works beside.

A thread that has only work to do keeps the interpreter for 5 ms at a time (sys.getswitchinterval, a
process's own affair); a request that comes in meanwhile waits so long. So the writer lets go of it
after a fraction of a millisecond, for as long as it takes another thread to wake up.

Where it does not get it back soon (a service that computes without a pause, a machine with too
much to do), this would leave the writer with nothing: it then takes whole turns for a while. So it
does where much is queued, which `hurried` says: to lose events would be worse than to make
requests wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable

AFTER_SECONDS = 0.0003
FOR_SECONDS = 0.00005
TOO_LONG_SECONDS = 0.0005
WHOLE_TURNS_SECONDS = 0.02


class Breath:
    """Asked after every piece of work; takes a break where one is due."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._due = clock() + AFTER_SECONDS

    def take(self, hurried: bool) -> None:
        """A break, if it is time."""
        now = self._clock()
        if hurried or now < self._due:
            return
        time.sleep(FOR_SECONDS)  # lets go of the interpreter
        back = self._clock()
        slow = back - now > TOO_LONG_SECONDS
        self._due = back + (WHOLE_TURNS_SECONDS if slow else AFTER_SECONDS)
