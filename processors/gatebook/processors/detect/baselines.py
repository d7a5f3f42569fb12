"""Streaming statistics that forget slowly: what is usual, in a few numbers.

A weight, a mean and a variance, all exponentially weighted, in 40 bytes. Libraries of streaming
statistics keep the same figures, but store them as pickled objects of several hundred bytes; here
they are stored for every key of every rule.
"""

from __future__ import annotations

from math import sqrt

import msgspec

# A steady figure of 40 reads as 40, not as 39.999999999999986.
DECIMALS = 3


class Usual(msgspec.Struct, array_like=True):
    """Exponentially weighted sums: of figures, of their squares, of weights; and how many figures
    were learned in all."""

    total: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    learned: int = 0

    @property
    def mean(self) -> float:
        """The usual figure; 0 where nothing is learned."""
        return round(self.total / self.weight, DECIMALS) if self.weight else 0.0

    @property
    def deviation(self) -> float:
        """How far from it figures usually are."""
        if not self.weight:
            return 0.0
        mean = self.mean
        return sqrt(max(0.0, self.squares / self.weight - mean * mean))

    def learn(self, figure: float, decay: float) -> None:
        """Take one figure in; what was learned before weighs `decay` of what it did."""
        self.total = self.total * decay + figure
        self.squares = self.squares * decay + figure * figure
        self.weight = self.weight * decay + 1.0
        self.learned += 1

    def learn_zeros(self, number: int, decay: float) -> None:
        """Take any number of zeros in, in one step."""
        if number <= 0:
            return
        faded = decay**number
        self.total *= faded
        self.squares *= faded
        self.weight = self.weight * faded + (1.0 - faded) / (1.0 - decay)
        self.learned += number


def decay_of(half_life: float) -> float:
    """The factor by which a figure that is `half_life` figures old weighs half."""
    return float(0.5 ** (1.0 / half_life))
