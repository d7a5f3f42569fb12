"""The degrade ladder: what is given up, step by step, as the buffers fill.

    step       from fill   new events                                            said in
    full          0 %      as the capture level has them
    metadata     50 %      lose their content                                    degraded_reason
    bare         80 %      lose their bodies unread: no model, no tokens         degraded_reason
    counters    100 %      that do not fit are counted, by reason                loss statements

Fill is that of memory or of the spool, whichever is fuller. A step is left again at four fifths
of the fill at which it begins, so that a buffer that stands at the edge does not swing. Every
change of step is logged once and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from gatebook.producers.shrink import without_content

log = logging.getLogger("gatebook.producers")

STEPS = ("full", "metadata", "bare", "counters")
FULL, METADATA, BARE, COUNTERS = range(4)
BEGINS_AT = (0.0, 0.5, 0.8, 1.0)
LEFT_AT_SHARE = 0.8
REASON = "buffer"  # in gatebook.capture.degraded_reason
MAX_UNSAID = 100


def next_step(step: int, fill: float) -> int:
    """The step to stand on at this fill, coming from `step`. `fill` 1.0 means: exactly full."""
    while step < COUNTERS and _begun(step + 1, fill):
        step += 1
    while step > FULL and fill < BEGINS_AT[step] * LEFT_AT_SHARE:
        step -= 1
    return step


def _begun(step: int, fill: float) -> bool:
    return fill > 1.0 if step == COUNTERS else fill >= BEGINS_AT[step]


class Ladder:
    """Where a recorder stands. Methods that say `held` are called with its accounts' lock."""

    def __init__(self) -> None:
        self.step = FULL
        self.reduced: dict[str, int] = {}  # events that lost their `content` or `bodies`
        self.entered: dict[str, int] = {}  # changes of step, by the new one
        self._memory_fill = self._spool_fill = 0.0
        self._unsaid: list[int] = []

    def see_memory_held(self, fill: float) -> None:
        """Memory is so full; above 1.0: something did not fit."""
        self._memory_fill = fill
        self._move()

    def see_spool_held(self, fill: float) -> None:
        """The spool is so full."""
        self._spool_fill = fill
        self._move()

    def _move(self) -> None:
        step = next_step(self.step, max(self._memory_fill, self._spool_fill))
        if step != self.step:
            self.step = step
            self.entered[STEPS[step]] = self.entered.get(STEPS[step], 0) + 1
            self._unsaid = [*self._unsaid[-MAX_UNSAID:], step]

    def reduced_held(self, what: str) -> None:
        """One more event lost its `content` or its `bodies`."""
        self.reduced[what] = self.reduced.get(what, 0) + 1

    def take_unsaid_held(self) -> list[int]:
        """The changes of step that were not logged yet."""
        unsaid, self._unsaid = self._unsaid, []
        return unsaid


def say(steps: list[int]) -> None:
    """Log changes of step. Not within a request: a log handler may be slow."""
    for step in steps:
        level = logging.INFO if step == FULL else logging.WARNING
        log.log(level, "the buffers fill or empty: now recording step %s", STEPS[step])


def lighter(event: Any, step: int) -> tuple[Any, str]:
    """An event with what its step takes away before it is queued, and what that was."""
    if step == FULL:
        return event, ""
    if isinstance(event, Mapping):
        return (without_content(event, REASON), "content") if event.get("content") else (event, "")
    shed = getattr(event, "shed", None)
    if step >= BARE and shed is not None and shed(REASON):
        return event, "bodies"
    return event, ""
