"""A producer under far more load than fits, with its broker away. Prints what came of it as JSON.

Usage: degrade_child.py MODE EVENTS BODY_BYTES; settings by GATEBOOK_* variables.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft
from gatebook.producers.recorder import Recorder
from gatebook.producers.tape import Tape


def draft(settings: ProducerSettings, body_bytes: int, number: int) -> AccessDraft:
    """A chat with a long question, in memory of its own."""
    text = f"{number:010d}".encode() * (body_bytes // 10)
    made = AccessDraft(
        settings=settings,
        content_key=b"k" * 32,
        started_ns=time.time_ns(),
        method="POST",
        path="/v1/chat/completions",
        headers={"content-type": "application/json"},
        request=Tape(settings.body_max_bytes),
        answer=Tape(settings.body_max_bytes),
        status=200,
        sent_all=True,
    )
    made.request.add(b'{"model":"slm","messages":[{"role":"user","content":"' + text + b'"}]}')
    return made


def main(mode: str, events: int, body_bytes: int) -> None:
    settings = ProducerSettings.from_env()
    assert settings.delivery_mode == mode
    recorder = Recorder(settings)
    recorder.emit(draft(settings, body_bytes, 0))
    recorder.flush(0.5)  # what a running producer needs is there before we measure
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1, events):
        recorder.emit(draft(settings, body_bytes, number))
    recorder.flush(1.0)
    counters = recorder.counters()
    found = {
        "grown_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        "emitted": counters.emitted,
        "acknowledged": counters.acknowledged,
        "on_the_way": counters.on_the_way,
        "dropped": dict(counters.dropped),
        "reduced": dict(counters.reduced),
        "entered": dict(counters.steps_entered),
        "spool_bytes": counters.spool_bytes,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # nobody answers, so there is nothing to wait for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
