"""A bounded copy of a body that passes by: its beginning and its end."""

from __future__ import annotations

from collections import deque

TAIL_BYTES = 64 * 1024


class Tape:
    """Keeps references to the first `max_bytes` of chunks and, beyond that, the last 64 KiB: the
    end of a stream holds its usage and finish reason.

    What is not there yet stands at its class's values: one is made for every body. Where a chunk
    costs too much already, a caller does what `add` does for one that fits: appends it to `parts`
    and counts its bytes.
    """

    total_bytes = 0
    _beyond = 0  # chunks that are not in `parts`
    _head_bytes: int | None = None  # None: all there was
    _tail: deque[bytes] | None = None
    _tail_bytes = 0

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.parts: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Take the next chunk."""
        before = self.total_bytes
        self.total_bytes = total = before + len(chunk)
        if total <= self.max_bytes and self._head_bytes is None:
            self.parts.append(chunk)
            return
        if self._head_bytes is None:
            self._head_bytes = before
        self._beyond += 1
        self._add_to_tail(chunk[-TAIL_BYTES:])

    def _add_to_tail(self, chunk: bytes) -> None:
        tail = self._tail = self._tail or deque()
        tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(tail.popleft())

    def follow(self) -> Tape:
        """A new one, for what comes instead of what was taken: it counts on."""
        new = Tape(self.max_bytes)
        new._beyond = self.chunks
        return new

    def drop(self) -> None:
        """Keep only how long it was, and of how many chunks."""
        self._beyond = self.chunks
        self.parts = []
        self._tail = None
        self._head_bytes = self._tail_bytes = 0

    @property
    def chunks(self) -> int:
        """Chunks that passed by."""
        return len(self.parts) + self._beyond

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return self._head_bytes is None or self._head_bytes == self.total_bytes

    @property
    def kept_bytes(self) -> int:
        """Memory it holds."""
        head = self._head_bytes
        return self.total_bytes if head is None else head + self._tail_bytes

    def head(self) -> bytes:
        """The beginning; everything, if `complete`."""
        return b"".join(self.parts)

    def tail(self) -> bytes:
        """The end of what the head does not hold."""
        return b"".join(self._tail or ())
