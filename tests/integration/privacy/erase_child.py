"""An erasure that is killed at a point of its way: `python erase_child.py POINT USER TENANT`.

POINT is a step (killed once it is noted as done) or the inside of one: `after-delete` (keys are
deleted, which is not noted yet), `after-rewrite` (some documents are stripped), `before-tell` (the
certificate is kept, the event of it is not recorded yet).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from gatebook.cli import main, subject_commands
from gatebook.processors.subjects import erasure
from gatebook.processors.subjects.documents import Documents
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.surroundings import Pipeline

INSIDE = ("after-delete", "after-rewrite", "before-tell")


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def set_trap(point: str) -> None:
    """Die at this point of the erasure that this process runs."""
    made = subject_commands._eraser

    def eraser(*given: Any, **more: Any) -> Any:
        found = made(*given, **more)
        found.told = lambda step: die() if step == point else None
        return found

    subject_commands._eraser = eraser
    if point == "after-delete":
        ElasticStore.delete = _then_die(ElasticStore.delete)  # type: ignore[method-assign]
    if point == "after-rewrite":
        erasure.REWRITE_AT_ONCE = 2
        Documents.rewrite = _then_die(Documents.rewrite)  # type: ignore[method-assign]
    if point == "before-tell":
        Pipeline.record = _die_at_certificate(Pipeline.record)  # type: ignore[method-assign]


def _then_die(method: Any) -> Any:
    async def wrapped(*given: Any, **more: Any) -> Any:
        await method(*given, **more)
        die()

    return wrapped


def _die_at_certificate(method: Any) -> Any:
    async def wrapped(self: Any, event: Any) -> None:
        if event.action == "subject.erased":
            die()
        await method(self, event)

    return wrapped


if __name__ == "__main__":
    where, user, tenant = sys.argv[1:]
    set_trap(where)
    main.main(["subject", "erase", user, "--tenant", tenant, "--reason", "test", "--yes", "--json"])
