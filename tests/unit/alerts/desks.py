"""A desk with targets that only remember, and time that a test moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.alerts.findings import NS, START_NS

from gatebook.processors.alerts.base import Delivery, Finding
from gatebook.processors.alerts.desk import Desk, Job, StateEntry
from gatebook.processors.alerts.plan import AlertsFile, Plan
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.schemas.codec import Record, encode

SUCCESS = Delivery(outcome="success", status_code=202, attempts=1)
DOWN = Delivery(outcome="failure", reason="unreachable", attempts=3)


class StubTarget:
    """A target of a kind; what it is told, the test hands over."""

    def __init__(
        self, name: str, *, resends: bool = False, updates: bool = True, calls: bool = True
    ) -> None:
        self.name = name
        self.type = "stub"
        self.resends = resends
        self.updates = updates
        self.calls = calls

    async def deliver(self, finding: Finding) -> Delivery:
        return SUCCESS

    async def close(self) -> None:
        """Nothing to close."""


PAGER = StubTarget("pager")
MANAGER = StubTarget("manager", resends=True, calls=False)
CHAT = StubTarget("chat", updates=False, calls=False)


def plan_of(*targets: StubTarget, **file: Any) -> Plan:
    """A plan with these targets; `file` are tables of the alerts file, in place of which the
    targets stand."""
    import msgspec

    tables = msgspec.convert(file, AlertsFile)
    named: Mapping[str, StubTarget] = {target.name: target for target in targets or (PAGER,)}
    return Plan(AlertSettings(), tables, dict(named))


class Room:
    """A desk, what it stored, what it told its targets, and the clock."""

    def __init__(self, plan: Plan | None = None, partition: int = 0, partitions: int = 1) -> None:
        self.plan = plan or plan_of()
        self.now_ns = START_NS
        self.stored: list[StateEntry] = []
        self.told: list[tuple[str, str, str]] = []
        """Target, step and dedup key of each delivery."""
        self.jobs: list[Job] = []
        self.records: list[Record] = []
        self.answers: dict[str, Delivery] = {}
        self.offset = -1
        self._place = partition, partitions
        self.desk = Desk(self.plan, *self._place)

    def restart(self, end_offset: int | None = None) -> None:
        """Another worker takes over from what was stored."""
        self.desk = Desk(self.plan, *self._place)
        self.desk.load(self.stored, end_offset)

    def store(self) -> None:
        self.stored += self.desk.drain_state()

    def take(self, *findings: Record, offset: int | None = None) -> None:
        """Findings come, one a message, and are stored."""
        for found in findings:
            self.offset = self.offset + 1 if offset is None else offset
            self.desk.take(self.offset, found, self.now_ns)
        self.store()

    def due(self) -> list[Job]:
        jobs = self.desk.tick(self.now_ns)
        self.store()
        return jobs

    def deliver(self) -> list[tuple[str, str, str]]:
        """All that is due, until nothing more is; what was told."""
        told: list[tuple[str, str, str]] = []
        while jobs := self.due():
            for job in jobs:
                told.append((job.target, job.step, job.key))
                answer = self.answers.get(job.target, SUCCESS)
                for record in self.desk.settle(job, answer, self.now_ns):
                    encode("alert.v2", record)
                    self.records.append(record)
                encode("finding.v2", job.finding)
                self.jobs.append(job)
            self.store()
        self.told += told
        return told

    def pass_seconds(self, seconds: float) -> list[tuple[str, str, str]]:
        """Time goes by, second by second where something is due; what was told meanwhile."""
        end_ns, told = self.now_ns + round(seconds * NS), []
        while (at := self.desk.next_ns) is not None and at <= end_ns:
            self.now_ns = max(self.now_ns, at)
            told += self.deliver()
        self.now_ns = end_ns
        return told + self.deliver()

    def steps(self, target: str) -> list[tuple[str, str]]:
        """Step and key of all that a target was told."""
        return [(step, key) for name, step, key in self.told if name == target]
