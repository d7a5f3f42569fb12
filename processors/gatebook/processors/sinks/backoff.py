"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random


@dataclass
class Backoff:
    """Exponential backoff with full jitter: wait n is uniform in [0, min(cap, base * 2^n)).

    `uniform` gives numbers in [0, 1); tests pass their own.
    """

    base_seconds: float
    cap_seconds: float
    uniform: Callable[[], float] = random
    attempts: int = 0

    def next_wait_seconds(self) -> float:
        """The wait before the next try; each call counts as one failed try."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return ceiling * self.uniform()

    def reset(self) -> None:
        """Something worked: start from the base again."""
        self.attempts = 0
