"""The demo's model service: the gateway behind Gatebook's middleware, in a process of its own.

Told to stop, it flushes what it has recorded and prints its counters as one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import click
import uvicorn

from gatebook.cli.demo.gateway import create_app
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder

FLUSH_DEADLINE_SECONDS = 30.0


@click.command()
@click.option("--upstream", required=True, help="URL of the model server.")
@click.option("--port", required=True, type=int, help="Port on loopback.")
@click.option("--timeout-seconds", default=30.0, help="Patience with the model server.")
def serve(upstream: str, port: int, timeout_seconds: float) -> None:
    """Serve until SIGTERM."""
    recorder = Recorder(ProducerSettings.from_env())
    app = GatebookMiddleware(create_app(upstream, timeout_seconds), recorder=recorder)
    # uvicorn raises the signal again once it has stopped; by then it has been obeyed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)
    report(recorder)


def report(recorder: Recorder) -> None:
    """Print what was recorded and what of it has arrived."""
    recorder.close(FLUSH_DEADLINE_SECONDS)
    counters = recorder.counters()
    found = {
        "emitted": counters.emitted,
        "acknowledged": counters.acknowledged,
        "dropped": sum(counters.dropped.values()),
    }
    sys.stdout.write(json.dumps(found) + os.linesep)
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
