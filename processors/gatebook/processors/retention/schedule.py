"""Running without end: what is due every so often, disks and sizes more often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from gatebook.processors.retention import metrics
from gatebook.processors.retention.disk import DiskKeeper
from gatebook.processors.retention.elastic import Away
from gatebook.processors.retention.lock import Busy
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.policy import Policy
from gatebook.processors.retention.rollover import cut_large_days
from gatebook.processors.retention.topics import TopicChange, Topics
from gatebook.processors.retention.work import NotReplaced
from gatebook.processors.sinks.connection import Unreachable
from gatebook.schemas.errors import Fatal, GatebookError

log = logging.getLogger(__name__)

PUT_OFF = (Away, Busy, NotReplaced, Unreachable)
REASON = "schedule"
RETRY_SECONDS = 5.0


@dataclass
class PatientTopics:
    """Topics for runs that nobody looks at: a Kafka that is away, or refuses, costs what the run
    would have set there and not the run; it is said, and what was refused is not asked for again
    by this process."""

    topics: Topics
    _refused: set[str] = field(default_factory=set)

    async def changes(self, policy: Policy) -> list[TopicChange]:
        """See Topics."""
        try:
            found = await self.topics.changes(policy)
        except Fatal as error:
            log.warning("topics stay as they are until the next run: %s", error)
            return []
        return [one for one in found if one.name not in self._refused]

    async def set(self, changes: Sequence[TopicChange]) -> list[TopicChange]:
        """See Topics."""
        return [await self._set(one) for one in changes]

    async def _set(self, change: TopicChange) -> TopicChange:
        try:
            (found,) = await self.topics.set([change])
        except Fatal as error:
            log.error("%s; %s", error, error.next_step)
            self._refused.add(change.name)
            return replace(change, failed=str(error))
        return found


@dataclass
class Schedule:
    """Runs a manager every `interval_seconds`, and looks at disks and sizes every
    `watch_seconds`. What fails is put off to the next time, and told."""

    manager: Manager
    by: str
    interval_seconds: float
    watch_seconds: float

    async def run_until(self, stopping: asyncio.Event) -> None:
        """Until told to stop. An item under way is ended first or taken back."""
        loop = asyncio.get_running_loop()
        next_run = next_watch = loop.time()
        while not stopping.is_set():
            now = loop.time()
            is_due, is_watch = now >= next_run, now >= next_watch
            next_run = now + self.interval_seconds if is_due else next_run
            next_watch = now + self.watch_seconds if is_watch else next_watch
            wait = min(self.watch_seconds, self.interval_seconds)
            if not await self._once(is_due, is_watch):
                wait = min(wait, RETRY_SECONDS)
            try:
                await asyncio.wait_for(stopping.wait(), wait)
            except TimeoutError:
                continue

    async def _once(self, is_due: bool, is_watch: bool) -> bool:
        """False where another run is under way, dead perhaps: that is looked at again soon."""
        try:
            # First of all, and at once after a start: what the dead left closed holds events up.
            is_free = await self._recovered()
            if is_watch:
                await self.watch()
            # One that was interrupted is gone on with at once.
            if is_due or (is_free and await self.manager.unfinished() is not None):
                await self.manager.apply(self.by, REASON)
                for one in self.manager.refused:
                    log.warning("%s: not set, %s has not read what is there", one.name, one.waiting)
        except PUT_OFF as error:
            log.warning("retention is put off: %s", error)
            return not isinstance(error, Busy)
        except GatebookError as error:
            metrics.RUNS.labels("failed").inc()
            log.error("retention failed: %s", error)
        return is_free

    async def _recovered(self) -> bool:
        """Whether what a dead run left closed is open now; False where it may live."""
        try:
            for name in await self.manager.recover():
                log.warning("%s was left closed by a run that died: opened", name)
        except Busy:
            return False
        return True

    async def watch(self) -> None:
        """Look at disks and sizes, and do what the policy says of them."""
        policy = Policy.read(self.manager.policy_text)
        now = self.manager.clock_ns() / 1e9
        await cut_large_days(self.manager.cluster, self.manager.state, policy, now)
        await DiskKeeper(self.manager, policy).free(self.by)
