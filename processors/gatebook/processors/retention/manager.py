"""A run of retention: planned, told, done item by item, certified; gone on with after any end.

The run's document holds the policy and the moment it was planned for, so that whoever goes on
with it decides alike. A run is announced to the sinks first: what is about to go is not taken in
any more, once their leases have ended.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gatebook.processors.retention import metrics
from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.holds import Holds, all_holds, own_holds
from gatebook.processors.retention.lock import Lock
from gatebook.processors.retention.people import people_of
from gatebook.processors.retention.plan import Force, Item, Plan, Planner
from gatebook.processors.retention.policy import Policy
from gatebook.processors.retention.recovery import blocked, open_left
from gatebook.processors.retention.state import ITEM, RUN, State, Stored, with_closed
from gatebook.processors.retention.topics import TopicChange, Topics
from gatebook.processors.retention.work import NoSummaries, Replacer, Summaries
from gatebook.processors.sinks.gates import LEASE_SECONDS
from gatebook.processors.sinks.slots import Closed
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.erasure import Privileged
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import GatebookError

FORMAT = "gatebook-retention/1"
GATE_MARGIN_SECONDS = 1.0
BEAT_SECONDS = 1.0
Subjects = Callable[[], Awaitable[Mapping[str, Any]]]


class Recording(Protocol):
    """Makes the event of a privileged act durable."""

    async def __call__(self, act: Privileged) -> None:
        """Raises where that cannot be: then nothing is done."""


@dataclass
class Manager:
    """Plans and runs in one namespace. `told` hears each item and step before it is done;
    `subjects` gives the tags of subjects under hold; without `topics`, Kafka's stay as they are."""

    cluster: Cluster
    state: State
    policy_text: bytes
    signer: Signer
    record: Recording
    subjects: Subjects
    summaries: Summaries = field(default_factory=NoSummaries)
    lock: Lock | None = None
    told: Callable[[str, str], None] = lambda item, step: None
    clock_ns: Callable[[], int] = time.time_ns
    gate_lease_seconds: float = LEASE_SECONDS
    topics: Topics | None = None
    refused: tuple[TopicChange, ...] = ()  # by the last `apply`, as a group has not read

    async def holds(self) -> Holds:
        """All holds that stand now."""
        subjects = await self.subjects()
        people = await people_of(self.cluster, subjects)
        return all_holds(await own_holds(self.state), subjects, people)

    async def plan(
        self, forces: Mapping[str, Force] | None = None, only: Collection[str] | None = None
    ) -> Plan:
        """What a run would do now; `only`: with these indices, and no topics. Changes nothing (but
        for an index of one document, where it has to find out whether a codec can be had)."""
        return (await self._plan(forces, only))[0]

    async def _plan(
        self, forces: Mapping[str, Force] | None, only: Collection[str] | None
    ) -> tuple[Plan, dict[tuple[str, str], Closed]]:
        policy = Policy.read(self.policy_text)
        compress = policy.file.cold.best_compression
        if compress:
            compress = await self.cluster.has_best_compression()
        planner = Planner(self.cluster, self.state, policy)
        holds, now_ns = await self.holds(), self.clock_ns()
        plan, gates = await planner.plan(holds, now_ns, forces, compress, only)
        if only is not None:
            return plan, gates
        if self.topics is not None:
            changes = tuple(await self.topics.changes(policy))
            plan = msgspec.structs.replace(plan, topics=changes)
        metrics.DUE.set(len(plan.items))
        metrics.HELD.set(sum(item.held for item in plan.items))
        return plan, gates

    async def unfinished(self) -> Stored | None:
        """The run that has not ended, where there is one."""
        found = await self.state.find(RUN, done=False)
        return min(found, key=lambda one: one.source["at_ns"]) if found else None

    async def apply(
        self,
        by: str,
        reason: str,
        forces: Mapping[str, Force] | None = None,
        asked: bool = False,
        only: Collection[str] | None = None,
    ) -> dict[str, Any] | None:
        """Go on with a run that has not ended; else plan and do a new one, with `only` these
        indices. The certificate; None where nothing is due. `asked`, by a person: it is recorded
        also then, and also that a run is gone on with. Raises Busy, Away, NotReplaced,
        PolicyInvalid, and what recording and summaries raise; the run stays then, to be gone on
        with."""
        await self._take()
        try:
            self.refused = ()
            run = await self.unfinished()
            if run is None:
                run = await self._begun(by, reason, forces, asked, only)
            elif asked:
                await self._resumed(run, by, reason)
            found = None if run is None else await self._done(run, by)
        except BaseException:
            metrics.RUNS.labels("failed").inc()
            raise
        finally:
            await self._give()
        metrics.RUNS.labels("nothing" if found is None else "done").inc()
        metrics.LAST_DONE.set(self.clock_ns() / 1e9)
        return found

    async def recover(self) -> list[str]:
        """Let writes into what a dead run left closed; the names. The run is gone on with by
        `apply`. Raises Busy where the run lives, and Away."""
        if self.lock is None:
            return []
        return await open_left(self.cluster, self.state, self.lock)

    async def _take(self) -> None:
        if self.lock is not None:
            await self.lock.take()

    async def _give(self) -> None:
        if self.lock is not None:
            await self.lock.release()

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Renew the lease while one long request is waited for."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                # Whoever lost the lease hears of it at the next step; a beat that failed is made
                # up for by the next one.
                with suppress(GatebookError):
                    await self._take()

        task = asyncio.ensure_future(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # -- a run --------------------------------------------------------------------------------

    async def _begun(
        self,
        by: str,
        reason: str,
        forces: Mapping[str, Force] | None,
        asked: bool,
        only: Collection[str] | None,
    ) -> Stored | None:
        """A new run, with its items; None where nothing is due."""
        plan, gates = await self._plan(forces, only)
        topics = [one for one in plan.topics if not one.waiting]
        self.refused = tuple(one for one in plan.topics if one.waiting)
        is_due = bool(plan.items or topics)
        run_id = uuid.uuid4().hex[:12]
        if is_due:
            self.told("", "request")
        if is_due or asked:
            await self._recorded("retention.apply", run_id, by, reason, plan)
        if not is_due:
            return None
        policy = Policy.read(self.policy_text)
        if policy.file.snapshot is not None:
            await self.cluster.check_repository(policy.file.snapshot.repository)
        # If we die before the run's own document is there, the items are nobody's.
        for number, item in enumerate(plan.items):
            await self.state.create(f"item.{run_id}.{number}", _item_source(run_id, number, item))
        source = {
            "type": RUN,
            "done": False,
            "at_ns": plan.as_of_ns,
            "by": by,
            "reason": reason,
            "policy": self.policy_text.decode(),
            "holds": list(plan.holds),
            "gates": [
                {"kind": kind, "slot": slot, "closed": msgspec.to_builtins(closed)}
                for (kind, slot), closed in gates.items()
            ],
            "gated": False,
            "topics": msgspec.to_builtins(topics),
        }
        await self.state.create(f"run.{run_id}", source)
        return await self.state.get(f"run.{run_id}")

    async def _recorded(self, action: str, name: str, by: str, reason: str, plan: Plan) -> None:
        details = {
            "run": name,
            "reason": reason,
            "policy": plan.policy_digest,
            "indices": str(len(plan.items)),
        }
        if plan.topics:
            details["topics"] = "; ".join(_change(one) for one in plan.topics)
        await self.record(Privileged(action, name, by, plan.as_of_ns, details))

    async def _resumed(self, run: Stored, by: str, reason: str) -> None:
        """Record who goes on with a run: another person perhaps than who began it."""
        details = {"run": run.id.removeprefix("run."), "reason": reason, "resumed": "yes"}
        name = uuid.uuid4().hex
        await self.record(Privileged("retention.apply", name, by, self.clock_ns(), details))

    async def _done(self, run: Stored, by: str) -> dict[str, Any]:
        """Do what is left of a run; its certificate."""
        await self._announced(run)
        await self._set_topics(run)
        items = await self.state.find(ITEM, run=run.id)
        replacer = self._replacer(run)
        for stored in sorted(items, key=lambda one: one.source["number"]):
            if not stored.source["done"]:
                await self._item(stored, replacer)
        return await self._certified(run.id)

    async def _announced(self, run: Stored) -> None:
        """Tell the sinks, and wait until they all know."""
        if run.source["gated"]:
            return
        self.told("", "announce")
        changed = False
        for gate in run.source["gates"]:
            closed = msgspec.convert(gate["closed"], Closed)
            kind, slot = gate["kind"], gate["slot"]
            changed |= await self.state.change_gates(
                lambda gates, k=kind, s=slot, c=closed: with_closed(gates, k, s, c)  # type: ignore[misc]  # mypy infers no defaults
            )
        # If we die here, it is told again, and waited for again.
        if changed:
            await asyncio.sleep(self.gate_lease_seconds + GATE_MARGIN_SECONDS)
        await self.state.change(run.id, lambda s: {**s, "gated": True}, run.source)

    async def _set_topics(self, run: Stored) -> None:
        """Set what the run says of topics. If we die here, it is set again."""
        wanted = msgspec.convert(run.source.get("topics", []), list[TopicChange])
        if self.topics is None or not wanted or "topics_set" in run.source:
            return
        self.told("", "topics")
        found = await self.topics.set(wanted)
        self.refused += tuple(one for one in found if one.waiting)
        done = msgspec.to_builtins(found)
        await self.state.change(run.id, lambda s: {**s, "topics_set": done}, run.source)

    def _replacer(self, run: Stored) -> Replacer:
        policy = Policy.read(run.source["policy"].encode())
        return Replacer(
            self.cluster,
            self.state,
            policy,
            run.id.removeprefix("run."),
            run.source["at_ns"] / 1e9,
            self.holds,
            self.summaries if policy.file.summaries else NoSummaries(),
            self.summaries,
        )

    async def _item(self, stored: Stored, replacer: Replacer) -> None:
        item = msgspec.convert(stored.source["item"], Item)

        async def note(step: str, noted: Mapping[str, Any]) -> None:
            await self._take()  # renewed; Busy where another took over, and then we must stop
            await self.state.change(
                stored.id, lambda s: {**s, "step": step, "noted": dict(noted)}, stored.source
            )
            self.told(item.index, step)

        async with self._beating():
            found = await replacer.work(item, stored.source["step"], stored.source["noted"], note)
        await self.state.change(
            stored.id, lambda s: {**s, "done": True, "result": found}, stored.source
        )
        self.told(item.index, "done")

    # -- the certificate ----------------------------------------------------------------------

    async def _certified(self, run_id: str) -> dict[str, Any]:
        run = await self.state.get(run_id)
        assert run is not None
        if "certificate" not in run.source:
            self.told("", "certificate")
            signed = self.signer.sign(await self._statement(run), FORMAT)
            # Kept before it is told: if we die in between, the same one is told again.
            source = await self.state.change(
                run_id, lambda s: {"certificate": signed, **s}, run.source
            )
        else:
            source = run.source
        certificate: dict[str, Any] = source["certificate"]
        self.told("", "tell")
        details = {"run": certificate["run"], "signature": certificate["signature"]}
        at_ns = int(certificate["completed_at_ns"])
        await self.record(
            Privileged("retention.applied", certificate["run"], source["by"], at_ns, details)
        )
        await self.state.change(run_id, lambda s: {**s, "done": True}, source)
        return certificate

    async def _statement(self, run: Stored) -> dict[str, Any]:
        items = sorted(await self.state.find(ITEM, run=run.id), key=lambda i: i.source["number"])
        policy = Policy.read(run.source["policy"].encode())
        now_ns = self.clock_ns()
        told = [{**_named(one), **one.source["result"]} for one in items]
        return {
            "namespace": self.cluster.namespace,
            "run": run.id.removeprefix("run."),
            "as_of": timestamp_text(run.source["at_ns"]),
            "completed_at": timestamp_text(now_ns),
            "completed_at_ns": now_ns,
            "requested_by": run.source["by"],
            "reason": run.source["reason"],
            "policy": {"name": policy.file.name, "sha256": policy.digest},
            "holds": (await self.holds()).told(),
            "indices": told,
            "topics": run.source.get("topics_set", []),
            "totals": totals(told),
            "previous": await self._previous(),
        }

    async def _previous(self) -> str:
        """The signature of the certificate before this one: a chain shows that none is missing."""
        done = await self.state.find(RUN, done=True)
        if not done:
            return ""
        last = max(done, key=lambda one: one.source["certificate"]["completed_at_ns"])
        return str(last.source["certificate"]["signature"])

    async def status(self) -> dict[str, Any]:
        """How things stand: the run under way, holds, the last certificate, gates, blocks."""
        run = await self.unfinished()
        items = await self.state.find(ITEM, run=run.id) if run else []
        done = await self.state.find(RUN, done=True)
        last = max(done, key=lambda one: one.source["at_ns"], default=None)
        gates = await self.state.gates()
        return {
            "namespace": self.cluster.namespace,
            "run": None if run is None else _progress(run, items),
            "holds": (await self.holds()).told(),
            "last": None if last is None else _summary(last.source["certificate"]),
            "closed": {kind: len(slots) for kind, slots in gates.closed.items()},
            "cuts": {kind: dict(days) for kind, days in gates.cuts.items()},
            "blocked": await blocked(self.cluster, self.state),
        }


def _change(one: TopicChange) -> str:
    return one.told() + (f", refused: {one.waiting} has not read" if one.waiting else "")


def _item_source(run_id: str, number: int, item: Item) -> dict[str, Any]:
    return {
        "type": ITEM,
        "run": f"run.{run_id}",
        "number": number,
        "done": False,
        "item": msgspec.to_builtins(item),
        "step": "",
        "noted": {},
    }


def _named(stored: Stored) -> dict[str, Any]:
    item = stored.source["item"]
    return {name: item[name] for name in ("kind", "slot", "index", "action", "why")}


def totals(indices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over indices: deleted by rule and class, stripped by layer, thinned by rule; and what
    thinning spared because findings cite it."""
    names = ("dropped", "stripped", "thinned", "spared_as_evidence")
    sums: dict[str, Counter[str]] = {name: Counter() for name in names}
    for one in indices:
        for name, counter in sums.items():
            counter.update(one.get(name, {}))
    held = sum(one.get("held", 0) for one in indices)
    return {**{name: dict(counter) for name, counter in sums.items()}, "held": held}


def _progress(run: Stored, items: Sequence[Stored]) -> dict[str, Any]:
    under_way = [i for i in items if i.source["step"] and not i.source["done"]]
    return {
        "run": run.id.removeprefix("run."),
        "as_of": timestamp_text(run.source["at_ns"]),
        "items": len(items),
        "done": sum(item.source["done"] for item in items),
        "under_way": [[i.source["item"]["index"], i.source["step"]] for i in under_way],
    }


def _summary(certificate: Mapping[str, Any]) -> dict[str, Any]:
    names = ("run", "as_of", "completed_at", "totals", "signature")
    return {name: certificate[name] for name in names}
