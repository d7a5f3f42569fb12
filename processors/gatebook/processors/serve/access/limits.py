"""How often a caller, or an address, may ask: a bucket of permits that fills with time."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 50_000
_IPV6_PREFIX_BITS = 64  # what one customer has


class Buckets:
    """A bucket per key, of `per_minute` permits. In memory, so each process counts for itself; a
    key that was not heard of for long is forgotten first."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> int:
        """Take a permit: 0, or after how many seconds there is one, and then nothing is taken."""
        now = self._clock()
        left = self._left(key, now)
        if left < 1:
            return self._wait_seconds(left)
        self._put(key, left - 1, now)
        return 0

    def empty(self, key: str) -> int:
        """The same without taking one."""
        left = self._left(key, self._clock())
        return 0 if left >= 1 else self._wait_seconds(left)

    def _wait_seconds(self, left: float) -> int:
        return max(1, math.ceil((1 - left) * 60 / self._per_minute))

    def _left(self, key: str, now: float) -> float:
        left, at = self._buckets.get(key, (self._per_minute, now))
        return min(self._per_minute, left + (now - at) * self._per_minute / 60)

    def _put(self, key: str, left: float, now: float) -> None:
        self._buckets[key] = (left, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)


def network_of(address: str) -> str:
    """What an address is counted as: itself, or the network of an IPv6 customer."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX_BITS), strict=False))
    return str(found)
