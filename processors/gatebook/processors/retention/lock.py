"""One run at a time in a namespace: a lease in the state index, by whoever runs."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gatebook.processors.retention.elastic import Away
from gatebook.processors.retention.state import LOCK, State
from gatebook.schemas.errors import GatebookError

MAX_TRIES = 20


class Busy(GatebookError):
    """Another process runs retention here."""

    exit_code = 5
    next_step = "wait for it; `gatebook retention status` shows how far it is"


class Lock:
    """A lease that is renewed by each step. One whose process died on this machine is taken over
    at once, any other once it has run out."""

    def __init__(
        self, state: State, lease_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._lease_seconds = lease_seconds
        self._clock = clock
        # Two of one process are two: a sink in it must not take a living run for its own.
        token = secrets.token_hex(8)
        host, boot = socket.gethostname(), _started(0)
        self._owner = {"host": host, "pid": os.getpid(), "boot": boot, "token": token}

    async def take(self) -> None:
        """Take or renew the lease. Raises Busy."""
        for _ in range(MAX_TRIES):
            stored, now = await self._state.get(LOCK), self._clock()
            source = {"type": LOCK, "owner": self._owner, "until": now + self._lease_seconds}
            if stored is None:
                if await self._state.create(LOCK, source):
                    return
                continue
            owner = stored.source["owner"]
            if owner != self._owner and stored.source["until"] > now and may_live(owner):
                raise Busy(f"process {owner['pid']} on {owner['host']} runs retention")
            if await self._state.replace(stored, source):
                return
        raise Away("the lease of retention keeps being changed")

    async def release(self) -> None:
        """Give the lease back; one that cannot be given back runs out."""
        with suppress(Away):
            stored = await self._state.get(LOCK)
            if stored is not None and stored.source["owner"] == self._owner:
                await self._state.delete(LOCK)


def may_live(owner: dict[str, Any]) -> bool:
    """Whether the process may still be there: on another machine nobody knows."""
    if owner["host"] != socket.gethostname():
        return True
    return bool(_started(owner["pid"]) == owner["boot"])


def _started(pid: int) -> str:
    """When a process started, as the kernel counts; tells it from a later one of the same number.
    0: this one. "" where there is none, or no such table."""
    try:
        with open(f"/proc/{pid or os.getpid()}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
