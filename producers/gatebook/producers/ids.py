"""UUIDv7: event ids that sort by time, made without coordination."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0
_POOL_BYTES = 8 * 256
_pool = b""
_used = 0


def uuid7() -> str:
    """A UUIDv7 (RFC 9562) as text. In one process each is greater than the one before.

    48 bits of milliseconds, 12 bits of the millisecond's fraction (method 3 of the RFC: a clock
    that stands still or steps back counts on from the last value), 62 random bits.
    """
    global _last, _pool, _used
    now = time.time_ns()
    ticks = (now // 1_000_000 << 12) | ((now % 1_000_000) * 4096 // 1_000_000)
    with _lock:
        _last = ticks = ticks if ticks > _last else _last + 1
        if _used >= len(_pool):
            _pool, _used = os.urandom(_POOL_BYTES), 0
        tail = int.from_bytes(_pool[_used : _used + 8], "big")
        _used += 8
    high = (ticks >> 12) << 16 | 0x7000 | (ticks & 0xFFF)
    low = 0x8000_0000_0000_0000 | (tail & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _after_fork_in_child() -> None:
    """A child must not draw the same random bytes as its parent, nor inherit a held lock."""
    global _lock, _pool, _used
    _lock, _pool, _used = threading.Lock(), b"", 0


os.register_at_fork(after_in_child=_after_fork_in_child)
