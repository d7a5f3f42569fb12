"""What a run that died left closed to writes is opened again, by whoever finds it first.

A run closes an index while it rewrites it. Killed in the midst, it opens nothing; the run itself
is gone on with when retention runs again, but events that belong into the index must not wait for
that. So a sink that is refused looks every few seconds whether the run still lives, and so does
retention when it starts. The run that is taken for dead may stand still instead: it loses its
ticket first, and without that it cannot swap any more (see Cluster.swap).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.retention.lock import Busy, Lock, may_live
from gatebook.processors.retention.rows import SUMMARY_KINDS
from gatebook.processors.retention.state import ITEM, LOCK, RUN, State, Stored
from gatebook.processors.sinks.base import KINDS
from gatebook.processors.sinks.connection import Connection, Unreachable
from gatebook.schemas.errors import Fatal

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
LEASE_SECONDS = 30.0
REWRITING, LEFT, OTHER = "rewriting", "left", "other"


async def under_way(state: State) -> list[Stored]:
    """Items of runs that have not ended, of which something was begun and not ended."""
    items = []
    for run in await state.find(RUN, done=False):
        items += await state.find(ITEM, run=run.id, done=False)
    return [item for item in items if item.source["step"]]


async def open_left(cluster: Cluster, state: State, lock: Lock) -> list[str]:
    """Open what a dead run left closed; the names. Raises Busy where the run lives, Away, Fatal."""
    if not await under_way(state):
        return []
    await lock.take()
    try:
        # Looked for again, now that nobody else begins anything.
        found = [await _open(cluster, item) for item in await _fenced(cluster, state)]
    finally:
        await lock.release()
    return [name for name in found if name]


async def _fenced(cluster: Cluster, state: State) -> list[Stored]:
    """The items, none of which can be swapped any more by whoever began it."""
    # If we die right after this, a run that only stood still fails at its swap, and opens.
    await cluster.cancel_tickets()
    return await under_way(state)


async def _open(cluster: Cluster, item: Stored) -> str:
    """Open the index of an item, or what took its place; the name, "" where it is open."""
    for index in (item.source["item"]["index"], _target(item)):
        if index and await cluster.exists(index):
            if not await cluster.is_blocked(index):
                return ""
            await cluster.unblock(index)
            return str(index)
    return ""


def _target(item: Stored) -> str:
    """What takes the place of an item's index; "" where it is not said yet, or nothing does."""
    return str(item.source["noted"].get("outcome", {}).get("target", ""))


async def blocked(cluster: Cluster, state: State) -> list[dict[str, Any]]:
    """Indices that take no writes, and why: `rewriting` by a run that may live, `left` by one that
    does not, `other`: not by retention. `until`: when a run that tells nothing counts as dead, in
    seconds since 1970."""
    target_of = {i.source["item"]["index"]: _target(i) for i in await under_way(state)}
    stored = await state.get(LOCK)
    until = stored.source["until"] if stored else 0.0
    lives = stored is not None and until > time.time() and may_live(stored.source["owner"])
    found = [one for kind in (*KINDS, *SUMMARY_KINDS) for one in await cluster.indices(kind)]
    copies = {target_of.get(one.name.name, "") for one in found}  # nobody writes to them yet
    ours = {*target_of, *target_of.values()}
    names = [o.name.name for o in found if o.is_blocked and o.name.name not in copies]
    return [
        {"index": name, "why": (REWRITING if lives else LEFT) if name in ours else OTHER}
        | ({"until": until} if lives and name in ours else {})
        for name in names
    ]


class Rescue:
    """For a sink that is refused: looks at most every LOOK_SECONDS, and never fails."""

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = Cluster(connection, namespace)
        self._state = State(self._cluster)
        self._clock = clock
        self._next = clock()
        self._looking = asyncio.Lock()
        self._is_told = False

    async def look(self) -> None:
        """Open what a dead run left closed."""
        if self._looking.locked() or self._clock() < self._next:
            return
        async with self._looking:
            with suppress(Busy, Unreachable):  # it lives, or nobody knows: look again later
                await self._open()
            self._next = self._clock() + LOOK_SECONDS

    async def _open(self) -> None:
        lock = Lock(self._state, LEASE_SECONDS)
        try:
            for name in await open_left(self._cluster, self._state, lock):
                log.warning("%s was left closed by a run of retention that died: opened", name)
        except (Away, Fatal) as error:
            if not self._is_told:
                log.warning(
                    "whether a dead run of retention left an index closed cannot be told, or it "
                    "cannot be opened (%s); `gatebook retention status` shows it, "
                    "`gatebook retention apply` opens it",
                    error,
                )
            self._is_told = True
