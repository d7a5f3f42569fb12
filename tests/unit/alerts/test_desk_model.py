"""A desk under whatever may happen, in any order: at rest, targets show exactly what is open."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.unit.alerts.desks import MANAGER, PAGER, SUCCESS, plan_of
from tests.unit.alerts.findings import NS, START_NS, finding, resolved, step

from gatebook.processors.alerts.base import Delivery
from gatebook.processors.alerts.desk import Desk, Job, StateEntry
from gatebook.processors.alerts.incidents import GROUP, PAGE

FAILED = Delivery(outcome="failure", reason="server_error", attempts=1)
PRINCIPALS = [f"acme/u{n}" for n in range(6)]


class Target:
    """What a pager keeps: who is open, and how often each was opened."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.opened: dict[str, int] = {}

    def take(self, job: Job) -> None:
        if job.step == "resolved":
            self.open.discard(job.key)
        elif job.step == "firing" and job.key not in self.open:
            self.open.add(job.key)
            self.opened[job.key] = self.opened.get(job.key, 0) + 1


class World:
    """A log of findings, a worker that dies at any point, a state topic, two targets."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.plan = plan_of(
            PAGER,
            MANAGER,
            noise={"group_size": self.dice.choice((0, 2, 50)), "group_update_seconds": 30},
            teams={"t": {"page_budget": self.dice.choice((2, 1000)), "critical_share": 0}},
        )
        self.now_ns = START_NS
        self.log: list[dict[str, Any]] = []
        self.committed = 0
        self.stored: list[StateEntry] = []
        self.targets = {"pager": Target(), "manager": Target()}
        self.fails = 0.0
        self.dies = 0.0
        self.firing: dict[str, dict[str, Any]] = {}
        self.starts: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        self.desk = Desk(self.plan)
        self.desk.load(self.stored, len(self.log))

    def store(self) -> bool:
        """Whether all changes arrived; else the worker died amid them."""
        changes = self.desk.drain_state()
        if changes and self.dice.random() < self.dies:
            self.stored += changes[: self.dice.randrange(len(changes) + 1)]
            self.restart()
            return False
        self.stored += changes
        return True

    def read(self) -> None:
        while self.committed < len(self.log):
            batch = self.log[self.committed : self.committed + self.dice.randint(1, 4)]
            for offset, record in enumerate(batch, self.committed):
                self.desk.take(offset, record, self.now_ns)
            if self.store():
                self.committed += len(batch)

    def deliver(self) -> None:
        """One round: what is due, in any order, each accepted, refused, kept though refused, or
        cut off by the worker's death."""
        jobs = self.desk.tick(self.now_ns)
        if not self.store():
            return
        self.dice.shuffle(jobs)
        for job in jobs:
            fails = self.dice.random() < self.fails
            if not fails or self.dice.random() < 0.5:
                self.targets[job.target].take(job)
            if self.dice.random() < self.dies:
                self.restart()
                return
            self.desk.settle(job, FAILED if fails else SUCCESS, self.now_ns)
        self.store()

    def act(self) -> None:
        who = self.dice.choice(PRINCIPALS)
        kind = self.dice.choices(("fire", "end", "ack", "close", "wait"), (6, 4, 1, 1, 4))[0]
        if kind == "wait":
            self.now_ns += self.dice.choice((1, 20, 90, 700, 4000)) * NS
        elif kind == "fire":
            number = self.starts[who] = self.starts.get(who, 0) + (who not in self.firing)
            severity = self.dice.choice(("warning", "error", "critical"))
            self.firing[who] = finding(
                who, self.now_ns, incident=f"{who}/{number}", team="t", severity=severity
            )
            self.log.append(self.firing[who])
        elif who in self.firing:
            said = self.firing[who] if kind == "ack" else self.firing.pop(who)
            word = {"end": "resolved", "ack": "acknowledged", "close": "closed"}[kind]
            record = step(said, word)
            record["gatebook"]["verdict"] = "true_positive" if kind == "close" else ""
            self.log.append(record)

    def settle(self, seconds: int) -> None:
        """Nobody dies and nothing fails any more, and time passes."""
        self.fails = self.dies = 0.0
        self.read()
        end_ns = self.now_ns + seconds * NS
        while (at := self.desk.next_ns) is not None and at <= end_ns:
            self.now_ns = max(self.now_ns, at)
            self.deliver()
        self.now_ns = end_ns


@pytest.mark.parametrize("seed", range(300))
def test_targets_show_what_is_open_whatever_happened(seed: int) -> None:
    """Findings, ends, verdicts, refusals, refusals that were kept, deaths at every point: once
    things are calm, each target shows exactly the pages that are open, those of groups among
    them; when all has ended nothing is open and nothing is remembered; and no problem was opened
    more often than it began."""
    world = World(seed)
    for _ in range(80):
        if world.dice.random() < 0.1:
            world.fails, world.dies = world.dice.choice(((0, 0), (0.5, 0), (0, 0.2), (0.4, 0.1)))
        world.act()
        world.read()
        world.deliver()
    world.settle(650)
    incidents = world.desk.incidents
    paged = {k for k, i in incidents.items() if i.way == PAGE and not i.is_over}
    heads = {i.group for i in incidents.values() if i.way == GROUP and not i.is_over}
    alive = {k for k in paged if incidents[k].kind == "finding"}
    assert heads == {k for k in paged if incidents[k].kind == "group"}
    for name, target in world.targets.items():
        assert target.open == {k for k in paged if name in incidents[k].owed}
    assert {k for k, i in incidents.items() if i.kind == "finding" and not i.is_over} == {
        f["gatebook"]["dedup_key"] for f in world.firing.values()
    }
    assert alive <= {f["gatebook"]["dedup_key"] for f in world.firing.values()}
    world.log += [resolved(f) for f in world.firing.values()]
    world.settle(5000)
    world.settle(5000)
    for target in world.targets.values():
        assert target.open == set()
        for who, starts in world.starts.items():
            assert target.opened.get(f"failure_burst|{who}", 0) <= starts
    assert world.desk.incidents == {}
    world.restart()
    assert world.desk.incidents == {}
