"""Something that is done before the first byte of standard output, and never after it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any


def before_first_output(act: Callable[[], None]) -> None:
    """Have `act` called before anything reaches what standard output is now. It is called at once
    where that is no stream of bytes, or is closed. What it raises, the one who writes gets; what
    was to be written then is dropped, and `sys.stdout` is again what it was.

    `sys.stdout` is another text stream from here on: of the same descriptor, encoding and
    buffering, and writing through the one before, which stays open.
    """
    shown = sys.stdout
    if not isinstance(getattr(shown, "buffer", None), io.IOBase):
        act()
        return
    shown.flush()  # what stands there was written before, and is no matter of this
    gate: Any = _Gate(shown, act)
    through = getattr(shown, "write_through", False)  # python -u
    sys.stdout = io.TextIOWrapper(
        gate if through else io.BufferedWriter(gate),
        encoding=shown.encoding,
        errors=shown.errors,
        line_buffering=getattr(shown, "line_buffering", False),
        write_through=through,
    )


_USED: list[Any] = []
"""Streams that somebody may be writing to right now: `print` only borrows `sys.stdout`."""


class _Gate(io.RawIOBase):
    """The bytes of a text stream, and what is done before the first of them."""

    def __init__(self, shown: Any, act: Callable[[], None]) -> None:
        super().__init__()
        self._shown = shown  # kept: a text stream that nobody has closes its descriptor
        self._act = act
        self._is_open = self._is_shut = False
        self.name = getattr(shown, "name", "<stdout>")

    def write(self, data: Any) -> int | None:
        """See RawIOBase: as many bytes as were taken, None where that would have to wait."""
        if self._is_shut or not data:  # click tries a stream by writing nothing
            return len(data)
        if not self._is_open:
            self._open()
        taken: int | None = self._shown.buffer.write(data)
        self._shown.buffer.flush()
        return taken

    def _open(self) -> None:
        try:
            self._act()
        except BaseException:
            self._is_shut = True
            _USED.append(sys.stdout)
            sys.stdout = self._shown
            raise
        self._is_open = True

    def writable(self) -> bool:
        """See IOBase."""
        return True

    def fileno(self) -> int:
        """See IOBase."""
        return int(self._shown.fileno())

    def isatty(self) -> bool:
        """See IOBase."""
        return bool(self._shown.isatty())
