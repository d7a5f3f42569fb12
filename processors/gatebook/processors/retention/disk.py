"""What goes, and in which order, when disks fill up: before Elasticsearch blocks writing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gatebook.processors.retention import metrics
from gatebook.processors.retention.elastic import Cluster, IndexState
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.plan import ACCESS, DISK, Force
from gatebook.processors.retention.policy import FULL, REDACTED, Policy, age_seconds

log = logging.getLogger(__name__)

STRIPS = {"strip_full": (FULL,), "strip_redacted": (FULL, REDACTED)}
COPY_ROOM = 1.2  # a rewrite needs room for the copy
FINE, WARN, ACT, HELPLESS = range(4)
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

    async def forces(self, found: Pressure) -> dict[str, Force]:
        """What has to go, by index: the steps of the policy in order, oldest days first, until
        enough is freed. Empty where nothing may go: then a person has to act."""
        if found.state != ACT:
            return {}
        chosen: dict[str, Force] = {}
        left = found.excess
        for step in self._policy.file.disk.order:
            for index in await self._candidates(step, found):
                if left < 0:
                    return chosen
                if index.name.name in chosen:
                    continue
                freed = await self._freed(index, _force(step))
                if freed:
                    chosen[index.name.name] = _force(step)
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

    async def _freed(self, index: IndexState, force: Force) -> int:
        """About how many bytes would be free; 0 where nothing would be done. What is held stays,
        so an index that is held as a whole frees nothing."""
        plan = await self._manager.plan({index.name.name: force})
        items = [one for one in plan.items if one.index == index.name.name and one.why == DISK]
        if not items:
            return 0
        item = items[0]
        if force.drop:
            return index.bytes * sum(item.drop.values()) // max(1, item.documents)
        return index.bytes * max(item.strip.values(), default=0) // max(1, item.documents) // 2


def _force(step: str) -> Force:
    return Force(strip=STRIPS[step]) if step in STRIPS else Force(drop=True)
