"""The end of a recorder: that it was asked for, and until when it may take."""

from __future__ import annotations

import threading
import time


class Ending:
    """Set once, looked at by the writer and the sender."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._stop_at = float("inf")

    def begin(self, deadline_seconds: float) -> None:
        """The end is near: so much time is left."""
        self._stop_at = time.monotonic() + deadline_seconds
        self._begun.set()

    def begun(self) -> bool:
        """Whether the end was asked for."""
        return self._begun.is_set()

    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._stop_at

    def left_seconds(self) -> float:
        """Time left, at least 0."""
        return max(0.0, self._stop_at - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait, but near the end only a moment."""
        if self._begun.wait(seconds):
            time.sleep(min(seconds, 0.05))
