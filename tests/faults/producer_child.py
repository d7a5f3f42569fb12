"""A producer process to be killed. Says on stdout which events it was told are durable.

Usage: producer_child.py MODE; settings by GATEBOOK_* variables.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder


def say(word: str) -> None:
    """One line, whole, at once."""
    os.write(1, f"{word}\n".encode())


def emit_durably(recorder: Recorder) -> None:
    """Emit without end, saying each id once it is known to be durable."""
    while True:
        say(recorder.emit_durable({"event": {"kind": "event"}}, 30))


def emit_without_end(recorder: Recorder) -> None:
    """Load beside the durable events."""
    while True:
        recorder.emit({"event": {"kind": "event"}, "content": b"x" * 500})
        time.sleep(0.0002)  # waits: the pace of the load


def run_until_killed(recorder: Recorder) -> None:
    """Four threads of load."""
    for target in (emit_durably, emit_durably, emit_without_end):
        threading.Thread(target=target, args=(recorder,), daemon=True).start()
    emit_without_end(recorder)


def run_until_terminated(recorder: Recorder) -> None:
    """Emit a little, then end on SIGTERM as a server does: by leaving the main thread."""
    ending = threading.Event()

    def end(signal_number: int, frame: FrameType | None) -> None:
        ending.set()

    signal.signal(signal.SIGTERM, end)
    for _ in range(200):
        say(recorder.emit_durable({"event": {"kind": "event"}}, 30))
    say("ready")
    ending.wait()


def run_preloaded(recorder: Recorder) -> None:
    """As gunicorn --preload does: used in the parent, then forked into workers that use it too."""
    say(recorder.emit_durable({"event": {"kind": "event"}}, 30))
    recorder.flush(30)
    workers = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                say(recorder.emit_durable({"event": {"kind": "event"}}, 30))
            sys.exit(0)  # the interpreter ends in good order: atexit closes the recorder
        workers.append(pid)
    say(recorder.emit_durable({"event": {"kind": "event"}}, 30))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    say(f"workers {codes}")


MODES = {
    "killed": run_until_killed,
    "terminated": run_until_terminated,
    "preloaded": run_preloaded,
}

if __name__ == "__main__":
    MODES[sys.argv[1]](Recorder(ProducerSettings.from_env()))
