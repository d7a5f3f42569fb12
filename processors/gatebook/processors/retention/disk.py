"""What goes, and in which order, when disks fill up: before Elasticsearch blocks writing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gatebook.processors.retention import metrics
from gatebook.processors.retention.elastic import Cluster, IndexState
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.plan import ACCESS, DISK, Force, Item
from gatebook.processors.retention.policy import FULL, REDACTED, Policy, age_seconds

log = logging.getLogger(__name__)

STRIPS = {"strip_full": (FULL,), "strip_redacted": (FULL, REDACTED)}
COPY_ROOM = 1.2  # a rewrite needs room for the copy
FINE, WARN, ACT, HELPLESS = range(4)
REASON = "disks are full"
MEASURED_SECONDS = 1.1  # Elasticsearch looks at its disks once a second
Usage = Callable[[], Awaitable[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full the fullest data node is, and what the policy says of that. Bytes."""

    used: int
    total: int
    state: int
    excess: int

    @property
    def ratio(self) -> float:
        """0 to 1."""
        return self.used / max(1, self.total)


def pressure(policy: Policy, used: int, total: int) -> Pressure:
    """What the policy says of so much. Pure."""
    disk = policy.file.disk
    percent = 100 * used / max(1, total)
    state = ACT if percent >= disk.act_percent else WARN if percent >= disk.warn_percent else FINE
    return Pressure(used, total, state, max(0, used - total * disk.act_percent // 100))


class DiskKeeper:
    """Looks at the disks; where they are too full, says what has to go."""

    def __init__(self, manager: Manager, policy: Policy, usage: Usage | None = None) -> None:
        self._manager = manager
        self._cluster: Cluster = manager.cluster
        self._policy = policy
        self._usage = usage or self._cluster.disk

    async def look(self) -> Pressure:
        """How things stand, also as metrics and as a line of the log."""
        found = pressure(self._policy, *await self._usage())
        metrics.DISK_USED.set(found.ratio)
        metrics.DISK_STATE.set(found.state)
        if found.state == WARN:
            log.warning("disks of Elasticsearch are %.0f %% full", 100 * found.ratio)
        if found.state == ACT:
            log.error("disks of Elasticsearch are %.0f %% full: freeing", 100 * found.ratio)
        return found

    async def free(self, by: str) -> None:
        """Let go one index after the other, and look after each, until it is enough. Raises what
        Manager.apply raises; what is left to do is found out anew then."""
        for index, force in (await self.forces(await self.look())).items():
            await self._manager.apply(by, REASON, {index: force}, only=(index,))
            await asyncio.sleep(MEASURED_SECONDS)
            if (await self.look()).state != ACT:
                return

    async def forces(self, found: Pressure) -> dict[str, Force]:
        """What has to go, by index: the steps of the policy in order, oldest days first, until
        enough would be freed. Empty where nothing may go: then a person has to act."""
        if found.state != ACT:
            return {}
        chosen: dict[str, Force] = {}
        left = found.excess
        for step in self._policy.file.disk.order:
            if left < 0:
                return chosen
            old = [i for i in await self._candidates(step, found) if i.name.name not in chosen]
            for index, freed in (await self._freed(old, _force(step))).items():
                if left < 0:
                    return chosen
                chosen[index] = _force(step)
                left -= freed
        if not chosen:
            metrics.DISK_STATE.set(HELPLESS)
            log.critical("disks are full, and the policy lets nothing go: add disks, or change it")
        return chosen

    async def _candidates(self, step: str, found: Pressure) -> list[IndexState]:
        now = self._manager.clock_ns() / 1e9
        least = self._policy.seconds_of(self._policy.file.disk.keep_at_least)
        old = [
            one
            for one in await self._cluster.indices(ACCESS)
            if age_seconds(one.name.day, now) >= least and not one.name.is_held
        ]
        if step in STRIPS:
            room = found.total - found.used
            return [one for one in old if one.bytes * COPY_ROOM < room]
        if step == "delete_snapshotted" and self._policy.file.snapshot is not None:
            held = await self._cluster.in_snapshots(self._policy.file.snapshot.repository)
            return [one for one in old if one.name.name in held]
        return old

    async def _freed(self, old: Sequence[IndexState], force: Force) -> dict[str, int]:
        """About how many bytes would be free, by index, in order; without those of which nothing
        would be done. What is held stays, so an index that is held as a whole frees nothing."""
        names = [one.name.name for one in old]
        plan = await self._manager.plan(dict.fromkeys(names, force), only=set(names))
        items = {item.index: item for item in plan.items if item.why == DISK}
        found = {one: _bytes_freed(items[one], force) for one in names if one in items}
        return {name: freed for name, freed in found.items() if freed}


def _bytes_freed(item: Item, force: Force) -> int:
    if force.drop:
        return item.bytes * sum(item.drop.values()) // max(1, item.documents)
    return item.bytes * max(item.strip.values(), default=0) // max(1, item.documents) // 2


def _force(step: str) -> Force:
    return Force(strip=STRIPS[step]) if step in STRIPS else Force(drop=True)
