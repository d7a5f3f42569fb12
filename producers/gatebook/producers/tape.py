"""A bounded copy of a body that passes by: its beginning and its end."""

from __future__ import annotations

from collections import deque

TAIL_BYTES = 64 * 1024


class Tape:
    """Keeps references to the first `max_bytes` of chunks and, beyond that, the last 64 KiB: the
    end of a stream holds its usage and finish reason."""

    __slots__ = ("_head", "_head_bytes", "_max_bytes", "_tail", "_tail_bytes", "total_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.total_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self.total_bytes += len(chunk)
        if not self._tail and self._head_bytes + len(chunk) <= self._max_bytes:
            self._head.append(chunk)
            self._head_bytes += len(chunk)
            return
        self._tail.append(chunk[-TAIL_BYTES:])
        self._tail_bytes += len(self._tail[-1])
        while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def drop(self) -> None:
        """Keep only how long it was."""
        self._head.clear()
        self._tail.clear()
        self._head_bytes = self._tail_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return self.total_bytes == self._head_bytes

    @property
    def kept_bytes(self) -> int:
        """Memory it holds."""
        return self._head_bytes + self._tail_bytes

    def head(self) -> bytes:
        """The beginning; everything, if `complete`."""
        return b"".join(self._head)

    def tail(self) -> bytes:
        """The end of what the head does not hold."""
        return b"".join(self._tail)
