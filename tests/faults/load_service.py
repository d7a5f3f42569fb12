"""A service under load, in a process of its own: emits events until told to stop.

    python -m tests.faults.load_service EVENTS_PER_SECOND SECONDS

Prints its counters as one line of JSON at the end. Killed, it prints nothing: what it left in its
spool is then what a successor publishes.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time

from tests.pipeline import make_event

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder

BURSTS_PER_SECOND = 20
CLOSE_SECONDS = 120.0


def main(rate: int, seconds: float) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    recorder = Recorder(ProducerSettings.from_env())
    until = time.monotonic() + seconds
    number = 0
    while not stopping.is_set() and time.monotonic() < until:
        for _ in range(rate // BURSTS_PER_SECOND):
            number += 1
            event = make_event(f"user{number % 11}", "failure" if number % 17 == 0 else "success")
            recorder.emit(event)
        stopping.wait(1 / BURSTS_PER_SECOND)
    recorder.close(CLOSE_SECONDS)
    counters = recorder.counters()
    found = {
        "emitted": counters.emitted,
        "acknowledged": counters.acknowledged,
        "recovered": counters.recovered,
        "dropped": sum(counters.dropped.values()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
