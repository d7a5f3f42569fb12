"""What runs, written down: `home/engines/state.json`, and a lock so that one command at a
time changes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gatebook.engines.errors import BadSetting, HomeBusy
from gatebook.engines.processes import ProcessRecord


class State(msgspec.Struct, frozen=True, kw_only=True):
    engine: str = "none"
    """Who runs the engines: none, embedded, docker or external."""

    processes: dict[str, ProcessRecord] = {}
    """Embedded engines by name."""

    containers: dict[str, str] = {}
    """Docker: container name by engine name."""

    addresses: dict[str, str] = {}
    """Docker and external: address by engine name."""


def read(engines_dir: Path) -> State:
    """The recorded state; an empty one where there is no file or it cannot be read.

    An unreadable file is treated as absent because nothing in it is needed for data to survive:
    an engine that still runs then shows up as `port taken`, with its pid.
    """
    try:
        return msgspec.json.decode((engines_dir / "state.json").read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return State()


def write(engines_dir: Path, state: State) -> None:
    """Replace the state file. If we die before the rename, the old state stays whole."""
    temporary = engines_dir / "state.json.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(engines_dir / "state.json")


@contextlib.contextmanager
def exclusive(engines_dir: Path) -> Iterator[None]:
    """Hold the home for one change; HomeBusy if another command holds it.

    The kernel drops the lock with the process, so a killed command leaves nothing to clean.
    """
    _make(engines_dir)
    with (engines_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HomeBusy(
                f"Another gatebook command is starting or stopping engines in {engines_dir}.",
                "wait for it to end, then run this one again",
            ) from error
        yield


def _make(engines_dir: Path) -> None:
    try:
        engines_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSetting(
            f"{engines_dir} cannot be made: {error.strerror}.",
            "set GATEBOOK_HOME to a directory that you may write to",
        ) from error
