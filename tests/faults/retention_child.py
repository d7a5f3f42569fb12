"""A run of retention that is killed at a point of its way: `python retention_child.py POINT`.

POINT is a step (killed once it is noted, before it is done) or the inside of one: `after-write`
(some documents are in the new index), `after-swap` (the old index is gone, which is not noted).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from gatebook.cli import main, retention_commands
from gatebook.processors.retention.elastic import Cluster

INSIDE = ("after-write", "after-swap")
CALM = "calm"


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def set_trap(point: str) -> None:
    """Die at this point of the run that this process does; no waiting for leases of sinks."""
    made = retention_commands.Desk.manager

    def manager(*given: Any, **more: Any) -> Any:
        found = made(*given, **more)
        found.gate_lease_seconds = -1.0
        found.told = lambda item, step: die() if step == point else None
        return found

    retention_commands.Desk.manager = manager  # type: ignore[method-assign]
    if point == "after-write":
        Cluster.write = _then_die(Cluster.write)  # type: ignore[method-assign]
    if point == "after-swap":
        Cluster.swap = _then_die(Cluster.swap)  # type: ignore[method-assign]


def _then_die(method: Any) -> Any:
    async def wrapped(*given: Any, **more: Any) -> Any:
        await method(*given, **more)
        die()

    return wrapped


if __name__ == "__main__":
    set_trap(sys.argv[1])
    main.main(["retention", "apply", "--reason", "test", "--yes", "--json"])
