"""The end of a worker process: in good order if it can be, in time in any case."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

EXIT_KILLED_AT_DEADLINE = 124
SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


class Ending:
    """Waits for SIGTERM or SIGINT in a thread of its own, so that a blocked event loop cannot
    keep the process alive.

    The first signal asks the worker to stop, or ends the process where none runs yet; the second,
    or the deadline, ends it whatever is under way. What was not committed is read again by the
    next worker. Make it before any other thread: threads inherit that the signals are blocked,
    and a thread that had them unblocked would take them away from here.
    """

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self._stop: Callable[[], None] | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._wait, name="gatebook-signals", daemon=True).start()

    def ask(self, stop: Callable[[], None]) -> None:
        """What to call, from another thread, when the first signal comes."""
        self._stop = stop

    def _wait(self) -> None:
        signal.sigwait(SIGNALS)
        if self._stop is None:
            os._exit(0)  # nothing was begun
        timer = threading.Timer(self._deadline_seconds, _end, ("did not stop in time; ending",))
        timer.daemon = True
        timer.start()
        self._stop()
        signal.sigwait(SIGNALS)
        _end("told twice to stop; ending")


def _end(words: str) -> None:
    log.critical(words)
    os._exit(EXIT_KILLED_AT_DEADLINE)


def end_with_parent() -> None:
    """Stop in good order once whoever holds the other end of our standard input is gone: a
    supervisor that was killed leaves no worker behind."""

    def wait() -> None:
        while os.read(0, 1024):  # not sys.stdin, whose lock would be held when Python shuts down
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="gatebook-parent", daemon=True).start()
