"""notify: findings to the alert targets, and a record of every delivery.

Findings change the state of problems; the state lies in a compacted topic beside them, partition
by partition; what targets must be told follows from the state alone, in a task of its own. So a
target that is away stops no other, and what was owed when a worker died is owed by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gatebook.processors import metrics
from gatebook.processors.alerts.base import FIRING, Delivery
from gatebook.processors.alerts.desk import NANOSECONDS, Desk, Job, StateEntry
from gatebook.processors.alerts.plan import Plan
from gatebook.processors.alerts.statelog import (
    end_of,
    partitions_of,
    read_to_end,
    reader,
)
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.stages.base import Held, Incoming
from gatebook.schemas.codec import SINGLE_OBJECT, Record, decode, encode
from gatebook.schemas.errors import Fatal, RecordRejected
from gatebook.schemas.topics import ALERT, FINDING, NOTIFY_STATE, topic_name
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE, as the worker's own
DELIVERIES_AT_ONCE = 8  # a target
SPARE_THREADS = 8
LONGEST_WAIT_SECONDS = 1.0
BEAT_SECONDS = 1.0
LEAVE_SECONDS = 3.0  # how long deliveries under way may take when a partition is given up


class NotifyStage:
    """One desk per partition. At least once: a target's deduplication key makes the second
    delivery the same alert."""

    def __init__(
        self, settings: WorkerSettings, plan: Plan, wire: WireFormat = SINGLE_OBJECT
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._wire = wire
        self.topics = (topic_name(settings.namespace, FINDING),)
        self._alert_topic = topic_name(settings.namespace, ALERT)
        self._state_topic = topic_name(settings.namespace, NOTIFY_STATE)
        self._desks: dict[int, Desk] = {}
        self._assigned: set[int] = set()
        self._records: list[Record] = []
        self._under_way: defaultdict[int, set[asyncio.Task[None]]] = defaultdict(set)
        # Whoever changes a desk and stores the change holds this: the state topic has one writer.
        self._storing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._doubt_until = 0.0
        self._slots = {name: asyncio.Semaphore(DELIVERIES_AT_ONCE) for name in plan.targets}

    async def start(self) -> None:
        self._deliverer = Deliverer(
            {**kafka_properties(self._settings.kafka_bootstrap), "linger.ms": 0}
        )
        # Names that are slow to resolve and brokers that are away hold threads; storing needs one.
        threads = DELIVERIES_AT_ONCE * len(self._plan.targets) + SPARE_THREADS
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads, "notify"))
        self._pulse_at = time.monotonic()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._beat())]

    async def tick(self, held: Sequence[Held]) -> None:
        """What the problems of a partition owe is due, findings or not."""
        ours = {one.partition for one in held}
        if self._assigned - ours:
            async with self._storing:  # what another owns is not ours to tell, nor to store
                for number in self._assigned - ours:
                    self._desks.pop(number, None)
                self._assigned &= ours
        if ours - self._assigned and not self._is_in_doubt():
            self._assigned |= ours
            self._wake.set()

    async def process(self, batch: Sequence[Incoming]) -> None:
        async with self._storing:
            try:
                await self._take(batch)
                # If we die before this is stored, the batch is read again; after, what it leads
                # to is owed by whoever loads the state.
                await self._store()
            except BaseException:
                for partition in {message.partition for message in batch}:
                    self._desks.pop(partition, None)  # loaded anew, without what is not stored
                raise
        self._wake.set()

    async def _take(self, batch: Sequence[Incoming]) -> None:
        for message in batch:
            desk = await self._desk(message.partition)
            if (finding := self._finding(message)) is not None:
                desk.take(message.offset, finding, time.time_ns())

    def _finding(self, message: Incoming) -> Record | None:
        try:
            return decode("finding.v2", message.value, self._wire)
        except RecordRejected:
            return None  # index, which reads the same message, writes the dead letter

    # --- time ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """What is due, as time goes by, until the worker ends."""
        try:
            while True:
                await self._round()
                await self._rest()
        except Fatal as error:
            log.critical("%s; %s", error, error.next_step)
            os._exit(EXIT_FAILED)
        except Exception as error:
            # If we die here, everything owed is in the state topic.
            log.critical("notify failed: %s", type(error).__name__, exc_info=True)
            os._exit(EXIT_FAILED)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._stood_still_seconds():
                async with self._storing:
                    self._look_back()
            self._pulse_at = time.monotonic()

    def _stood_still_seconds(self) -> float:
        """How long this process did not run, where that was long enough to lose partitions."""
        gap = time.monotonic() - self._pulse_at
        return gap if gap >= self._settings.session_timeout_seconds / 2 else 0.0

    def _look_back(self) -> None:
        """After a time in which this process stood still, others may have our partitions: what
        is kept of them is forgotten, and loaded anew where they turn out to be ours still. Else
        we would tell what is no longer true, and store it. Not amid a batch: it would be lost."""
        stood_still = self._stood_still_seconds()
        if not stood_still:
            return
        log.warning("stood still for %.0f s; what is owed is read anew", stood_still)
        self._desks.clear()
        self._assigned.clear()
        self._doubt_until = time.monotonic() + self._settings.session_timeout_seconds / 2

    def _is_in_doubt(self) -> bool:
        """Whether the group may not have told us yet that our partitions are another's."""
        return time.monotonic() < self._doubt_until

    async def _round(self) -> None:
        self._wake.clear()
        async with self._storing:
            self._look_back()
            for partition in self._assigned - self._desks.keys():
                await self._desk(partition)
            now_ns = time.time_ns()
            due = [(p, desk, desk.tick(now_ns)) for p, desk in self._desks.items()]
            await self._store()
            if self._stood_still_seconds():  # meanwhile: what is owed may be another's now
                return
            for partition, desk, jobs in due:
                for job in jobs:
                    self._begin(partition, desk, job)
        self._measure()

    async def _rest(self) -> None:
        due = [at for desk in self._desks.values() if (at := desk.next_ns) is not None]
        left = (min(due) - time.time_ns()) / NANOSECONDS if due else LONGEST_WAIT_SECONDS
        try:
            async with asyncio.timeout(min(max(left, 0.0), LONGEST_WAIT_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _measure(self) -> None:
        desks = self._desks.values()
        metrics.INCIDENTS.set(sum(len(desk.incidents) for desk in desks))
        metrics.ALERTS_OWED.set(sum(len(tasks) for tasks in self._under_way.values()))
        for desk in desks:
            for why, count in desk.counts.quiet.items():
                metrics.NOT_PAGED.labels(why).inc(count)
            desk.counts.quiet = {}

    # --- deliveries ------------------------------------------------------------------------------

    def _begin(self, partition: int, desk: Desk, job: Job) -> None:
        task = asyncio.create_task(self._deliver(desk, job))
        self._under_way[partition].add(task)
        task.add_done_callback(self._under_way[partition].discard)

    async def _deliver(self, desk: Desk, job: Job) -> None:
        try:
            async with self._slots[job.target]:
                delivery = await self._plan.targets[job.target].deliver(job.finding)
        except asyncio.CancelledError:
            desk.cancel(job)
            raise
        except Exception as error:
            log.error("a target failed: %s", type(error).__name__, exc_info=True)
            delivery = Delivery(outcome="failure", reason="error")
        if delivery.detail:
            log.error("target %s: %s: %s", job.target, delivery.reason, delivery.detail)
        now_ns = time.time_ns()
        # If we die here, the step is sent again under the same dedup key.
        self._records += desk.settle(job, delivery, now_ns)
        metrics.ALERTS.labels(job.target, delivery.outcome).inc()
        if job.step == FIRING and not job.repeated and delivery.outcome == "success":
            seconds = (now_ns - job.finding["timestamp"]) / NANOSECONDS
            metrics.ALERT_SECONDS.labels(job.target).observe(max(0.0, seconds))
        self._wake.set()

    async def _store(self) -> None:
        """Records, then state: a delivery whose record is lost is made again and recorded under
        the same id. Both are taken at once: a delivery that is settled while the records are on
        their way is not stored as made before its own record is."""
        records, self._records = self._records, []
        changes = [
            Outgoing(self._state_topic, value, key, partition)
            for partition, desk in self._desks.items()
            for key, value in desk.drain_state()
        ]
        try:
            await self._deliverer.deliver([self._outgoing(record) for record in records])
            await self._deliverer.deliver(changes)
        except BaseException:
            self._desks.clear()  # loaded anew, without what is not stored
            raise

    def _outgoing(self, record: Record) -> Outgoing:
        key = record["gatebook"]["dedup_key"].encode("utf-8", "replace")
        return Outgoing(self._alert_topic, encode("alert.v2", record, self._wire), key)

    # --- partitions ------------------------------------------------------------------------------

    async def _desk(self, partition: int) -> Desk:
        desk = self._desks.get(partition)
        if desk is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(None, self._read_state, partition)
            entries, end, partitions = found
            desk = Desk(self._plan, partition, partitions)
            desk.load(entries, end)
            self._desks[partition] = desk
            self._assigned.add(partition)
        return desk

    def _read_state(self, partition: int) -> tuple[list[StateEntry], int, int]:
        """The state of a partition, and the end and the number of partitions of the findings."""
        properties = kafka_properties(self._settings.kafka_bootstrap)
        client = reader(properties, f"{self._settings.namespace}-notify-state")
        try:
            findings = self.topics[0]
            count = partitions_of(client, findings)
            if partitions_of(client, self._state_topic) <= partition:
                raise Fatal(
                    f"topic {self._state_topic} has fewer partitions than {findings}",
                    "run `gatebook setup`, and give it as many",
                )
            entries = read_to_end(client, self._state_topic, partition)
            return entries, end_of(client, findings, partition), count
        finally:
            client.close()

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        # The next owner reads the state only after we have left the group: what was delivered
        # must stand in it. What is cut off here is sent again by the next owner.
        numbers = {number for _, number in partitions} & (self._assigned | self._desks.keys())
        if not numbers:
            return  # as before the first assignment
        async with self._storing:
            await self._end_deliveries(numbers)
            await self._store()
            for number in numbers:
                self._desks.pop(number, None)
                self._assigned.discard(number)

    async def _end_deliveries(self, numbers: set[int]) -> None:
        tasks = [task for number in numbers for task in self._under_way[number]]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        async with self._storing:
            await self._end_deliveries(set(self._under_way))
            await self._store()
            self._desks.clear()
        for target in self._plan.targets.values():
            await target.close()
