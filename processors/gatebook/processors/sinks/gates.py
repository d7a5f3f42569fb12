"""What retention tells the sinks, read from one document and remembered for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from gatebook.processors.sinks.connection import Connection, Unreachable
from gatebook.processors.sinks.slots import OPEN, Gates

LEASE_SECONDS = 10.0
GATES = "gates"


def retention_index(namespace: str) -> str:
    """Name of the index of retention's state."""
    return f"{namespace}-retention-state"


class GateKeeper:
    """The gates as of at most LEASE_SECONDS ago. Retention waits that long before it takes away
    what a sink might still write to."""

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._connection = connection
        self._path = f"/{retention_index(namespace)}/_doc/{GATES}"
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._gates = OPEN
        self._version: tuple[Any, Any] | None = None
        self._read_at: float | None = None

    def forget(self) -> None:
        """Read anew before the next write."""
        self._read_at = None

    async def now(self) -> Gates:
        """The gates; the last ones while they are fresh. Raises Unreachable, also where the
        cluster does not tell them: nothing is written without knowing."""
        began = self._clock()
        if self._read_at is None or began - self._read_at >= self._lease_seconds:
            await self._read()
            self._read_at = began
        return self._gates

    async def _read(self) -> None:
        head = await self._get({"_source": "false"})
        if head is None:
            self._gates, self._version = OPEN, None
            return
        version = head.get("_seq_no"), head.get("_primary_term")
        if version == self._version:
            return
        found = await self._get({})
        self._gates, self._version = OPEN, None
        if found is not None:
            self._gates = msgspec.convert(found["_source"]["gates"], Gates)
            self._version = found.get("_seq_no"), found.get("_primary_term")

    async def _get(self, params: dict[str, str]) -> dict[str, Any] | None:
        answer = await self._connection.request("GET", self._path, params=params)
        if answer.status == 200 and isinstance(answer.body, dict):
            return answer.body
        if answer.status == 404:
            return None  # retention has never run here, or never closed anything
        raise Unreachable(answer.error_type or f"status {answer.status}")
