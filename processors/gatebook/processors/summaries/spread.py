"""How durations are spread: counts in buckets that grow by a fixed ratio.

A quantile read from it is off by at most 1 % of its value, whatever the spread. Unlike sketches
that choose their own points (KLL, t-digest), the buckets are the same everywhere, so adding two
spreads gives exactly the spread of all their values, in any order, and one can be taken from the
other again. That is what lets a day equal the sum of its hours, and an hour go on when the details
behind a part of it have gone.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)
# Nanoseconds of zero, or less where a clock stepped back, have a bucket of their own.
ZERO = -1
log, ceil = math.log, math.ceil


def bucket_of(nanoseconds: int) -> int:
    """The bucket of a value."""
    return ceil(log(nanoseconds) * _PER_LOG) if nanoseconds > 0 else ZERO


def value_of(bucket: int) -> float:
    """The value, in nanoseconds, that stands for all in a bucket."""
    return 0.0 if bucket == ZERO else 2 * math.exp(bucket / _PER_LOG) / (_GAMMA + 1)


class Spread:
    """Counts by bucket, the exact sum and the exact largest value, in nanoseconds.

    After `subtract` the largest value is an upper bound only: which value went is not known.
    """

    __slots__ = ("buckets", "count", "max_ns", "sum_ns")

    def __init__(
        self, buckets: Mapping[int, int] | None = None, sum_ns: int = 0, max_ns: int = 0
    ) -> None:
        self.buckets = dict(buckets or {})
        self.count = sum(self.buckets.values())
        self.sum_ns = sum_ns
        self.max_ns = max_ns

    def add(self, nanoseconds: int) -> None:
        """Count one value."""
        bucket = ceil(log(nanoseconds) * _PER_LOG) if nanoseconds > 0 else ZERO
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.sum_ns += nanoseconds
        if nanoseconds > self.max_ns:
            self.max_ns = nanoseconds

    def merge(self, other: Spread) -> None:
        """Count all values of another one."""
        buckets = self.buckets
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def subtract(self, other: Spread) -> None:
        """Take values away that were counted before. A count never falls below zero."""
        for bucket, count in other.buckets.items():
            left = self.buckets.get(bucket, 0) - count
            if left > 0:
                self.buckets[bucket] = left
            else:
                self.buckets.pop(bucket, None)
        self.count = sum(self.buckets.values())
        self.sum_ns = self.sum_ns - other.sum_ns if self.count else 0

    def quantile(self, fraction: float) -> float | None:
        """The value in nanoseconds below which `fraction` of all values lie, to 1 %; None where
        nothing was counted."""
        if not self.count:
            return None
        rank = fraction * (self.count - 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen > rank:
                return min(value_of(bucket), float(self.max_ns)) if self.max_ns > 0 else 0.0
        return float(self.max_ns)

    def pack(self) -> str:
        """Base64, for a document: the same text for the same values, in whatever order they
        came."""
        return base64.b64encode(bytes(self._bytes())).decode()

    def _bytes(self) -> Iterator[int]:
        before = ZERO
        for bucket in sorted(self.buckets):
            yield from _varint(bucket - before)
            yield from _varint(self.buckets[bucket])
            before = bucket

    @classmethod
    def unpack(cls, text: str, sum_ns: int, max_ns: int) -> Spread:
        """What `pack` gave, with the sums that stand beside it. Raises ValueError for junk."""
        numbers = _numbers(base64.b64decode(text, validate=True))
        buckets: dict[int, int] = {}
        bucket = ZERO
        for step, count in zip(numbers[::2], numbers[1::2], strict=True):
            bucket += step
            buckets[bucket] = count
        return cls(buckets, sum_ns, max_ns)


def _varint(number: int) -> Iterator[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number


def _numbers(data: bytes) -> list[int]:
    found: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(number)
            number = shift = 0
    if shift:
        raise ValueError("cut off")
    return found
