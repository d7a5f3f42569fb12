"""An export that is killed at a point of its way: `python export_child.py POINT ARGUMENTS...`.

POINT: `mid-file` (a file is half written), `after-file` (a file is whole, which is not noted yet),
`after-progress` (it is noted), `before-manifest` (all files are there), `after-manifest`.
Where DAYS_AGO is set, the command is given so many days before now.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.cli import archive_commands, main
from gatebook.processors.archive import export
from gatebook.processors.archive.container import AvroWriter

POINTS = ("mid-file", "after-file", "after-progress", "before-manifest", "after-manifest")
FILES_BEFORE = 2


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(method: Callable[..., Any], at_call: int, before: bool) -> Callable[..., Any]:
    calls = 0

    def wrapped(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == at_call:
            die()
        found = method(*given, **more)
        if calls == at_call:
            die()
        return found

    return wrapped


def set_trap(point: str) -> None:
    """Die there."""
    if point == "mid-file":
        AvroWriter.add = _dying(AvroWriter.add, 20, before=False)  # type: ignore[method-assign]
    elif point == "after-file":
        done = export._Open.finish
        export._Open.finish = _dying(done, FILES_BEFORE, before=False)  # type: ignore[method-assign]
    elif point == "after-progress":  # the first call is the beginning's
        noted = export.write_progress
        export.write_progress = _dying(noted, FILES_BEFORE + 1, before=False)
    else:
        written = export.write_manifest
        export.write_manifest = _dying(written, 1, before=point == "before-manifest")


def set_clock(days_ago: int) -> None:
    """Begin then."""
    then = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days_ago)
    archive_commands._now = lambda: then


if __name__ == "__main__":
    set_trap(sys.argv[1])
    set_clock(int(os.environ.get("DAYS_AGO", "0")))
    main.main(sys.argv[2:])
