"""What a policy makes of the indices there are: one item an index. The weighing is pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from gatebook.processors.retention.elastic import Cluster, IndexState
from gatebook.processors.retention.evidence import NONE_CITED, Cited, cited_in
from gatebook.processors.retention.holds import Holds
from gatebook.processors.retention.policy import (
    METADATA,
    POSITION,
    STORED_AT,
    Due,
    Policy,
    age_seconds,
)
from gatebook.processors.retention.rows import SUMMARY_KINDS
from gatebook.processors.retention.state import REWRITTEN, State
from gatebook.processors.retention.topics import TopicChange
from gatebook.processors.sinks.base import KINDS
from gatebook.processors.sinks.codec import BEST
from gatebook.processors.sinks.slots import Closed, Group, group_tag

ACCESS = "access"
REPLACE, MERGE = "replace", "merge"
EXPIRED, COLD, DISK = "expired", "cold", "disk"
MAX_TENANTS_TOLD = 200  # of a day that is gone; with more of them it is said to be everybody's
MATCH_ALL: dict[str, Any] = {"match_all": {}}


class Force(msgspec.Struct, frozen=True, kw_only=True):
    """What goes though the policy's durations would keep it: because disks fill up."""

    drop: bool = False
    strip: tuple[str, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to an index that is there. Says nothing of documents that came in since: then
    `documents` does not fit any more."""

    documents: int
    stripped: dict[str, tuple[str, ...]] = {}
    thinned: dict[str, int] = {}
    spared: int = 0


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with one index. Counts are of documents, as of the plan; what is done is
    worked out anew under a write block. spared: would be thinned out, and findings cite them."""

    kind: str
    slot: str
    day: str
    index: str
    revision: int
    is_held: bool
    action: str
    why: str
    documents: int
    bytes: int
    held: int = 0
    drop: dict[str, int] = {}
    strip: dict[str, int] = {}
    thin: dict[str, int] = {}
    spared: dict[str, int] = {}
    codec: str = ""
    force: Force = Force()

    @property
    def is_whole(self) -> bool:
        """Nothing of the index would be left."""
        return sum(self.drop.values()) == self.documents


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done as of one moment. looked_at: indices, with those where nothing is due."""

    namespace: str
    as_of_ns: int
    policy: str
    policy_digest: str
    items: tuple[Item, ...]
    holds: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    looked_at: int = 0
    topics: tuple[TopicChange, ...] = ()


class Weighed(msgspec.Struct, kw_only=True):
    """What is due in an index: counts by rule and class, or by layer; and what sinks and the
    record have to be told. whose: tenants by tag of what is dropped or thinned."""

    drop: Counter[str]
    strip: Counter[str]
    thin: Counter[str]
    keep: int = 0
    spared: Counter[str] = msgspec.field(default_factory=Counter)
    dropped: set[str] = msgspec.field(default_factory=set)
    thinned: dict[str, int] = msgspec.field(default_factory=dict)
    stripped: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    whose: dict[str, str] = msgspec.field(default_factory=dict)
    unknown: set[str] = msgspec.field(default_factory=set)
    cited: frozenset[str] = frozenset()

    @property
    def is_nothing(self) -> bool:
        """Nothing is due."""
        return not (self.drop or self.strip or self.thin)


class Judge:
    """What is due for a group in one slot; remembered by group. Pure."""

    def __init__(self, policy: Policy, kind: str, day: str, now: float, force: Force) -> None:
        self._policy = policy
        self._kind = kind
        self._day = day
        self._now = now
        self._force = force
        self._known: dict[Group, Due] = {}

    def due(self, group: Group) -> Due:
        """What is due for documents of this group that nobody holds."""
        found = self._known.get(group)
        if found is None:
            found = self._known[group] = self._due(group)
        return found

    def _due(self, group: Group) -> Due:
        if self._kind != ACCESS:
            kept = self._policy.kind_seconds(self._kind)
            return Due(drop=age_seconds(self._day, self._now) >= kept)
        if self._force.drop:
            return Due(drop=True)
        due = self._policy.due(group, self._day, self._now)
        there = STORED_AT.get(group[POSITION["level"]], ())
        forced = frozenset(self._force.strip).intersection(there)
        return due if due.drop else Due(False, due.strip | forced, due.keep_one_in)

    def label(self, group: Group) -> str:
        """What decided: rule and class, as certificates count by it."""
        if self._kind != ACCESS:
            return self._kind
        terms = self._policy.terms(group)
        return f"{terms.rule}/{terms.classes[METADATA]}"

    @property
    def tells_tenants(self) -> bool:
        """Whether groups are apart by tenant; other kinds go as a whole."""
        return self._kind == ACCESS

    def unknown(self, group: Group) -> Sequence[str]:
        """Classes on the group's events that the policy does not know."""
        return self._policy.terms(group).unknown_classes if self._kind == ACCESS else ()


def weigh(
    judge: Judge,
    groups: Mapping[Group, int],
    documents: int,
    record: Record | None,
    cited: Cited = NONE_CITED,
) -> Weighed:
    """What is due of the documents in an index that nobody holds. `cited` ones are not thinned
    out; where there are fewer of them than before, what is not cited any more is."""
    found = Weighed(drop=Counter(), strip=Counter(), thin=Counter())
    found.spared = cited.spared(judge.due, judge.label)
    clean = record if record is not None and record.documents == documents else None
    is_thin = clean is not None and clean.spared <= found.spared.total()
    for group, count in groups.items():
        due, tag = judge.due(group), group_tag(group)
        found.unknown.update(judge.unknown(group))
        if judge.tells_tenants and (due.drop or due.keep_one_in > 1):
            found.whose[tag] = group[POSITION["tenant"]]
        if due.drop:
            found.drop[judge.label(group)] += count
            found.dropped.add(tag)
            continue
        found.keep += count
        if due.keep_one_in > 1:
            found.thinned[tag] = due.keep_one_in
            if not is_thin or clean is None or clean.thinned.get(tag) != due.keep_one_in:
                found.thin[judge.label(group)] += count - count // due.keep_one_in
        if due.strip:
            found.stripped[tag] = tuple(sorted(due.strip))
            for layer in due.strip - set(clean.stripped.get(tag, ()) if clean else ()):
                found.strip[layer] += count
    for label, spared in found.spared.items():
        if label in found.thin:  # a guess, but never that nothing goes where something may
            found.thin[label] = max(1, found.thin[label] - spared)
    return found


def closing(weighed: Weighed) -> Closed:
    """What sinks are told: where nothing is kept that came in freely, the slot is closed."""
    gone = weighed.keep == 0 and bool(weighed.drop)
    return Closed(
        gone=gone,
        dropped=() if gone else tuple(sorted(weighed.dropped)),
        thinned={} if gone else weighed.thinned,
        whose=_tenants_of(weighed) if gone else _tags_of(weighed),
    )


def _tags_of(weighed: Weighed) -> dict[str, tuple[str, ...]]:
    tags: dict[str, list[str]] = {}
    for tag, tenant in sorted(weighed.whose.items()):
        tags.setdefault(tenant, []).append(tag)
    return {tenant: tuple(its) for tenant, its in tags.items()}


def _tenants_of(weighed: Weighed) -> dict[str, tuple[str, ...]]:
    """Without their tags: what sinks read does not grow with all days that ever were."""
    tenants = sorted(set(weighed.whose.values()))
    return dict.fromkeys(tenants, ()) if len(tenants) <= MAX_TENANTS_TOLD else {}


class Planner:
    """Looks at the indices and weighs them."""

    def __init__(self, cluster: Cluster, state: State, policy: Policy) -> None:
        self._cluster = cluster
        self._state = state
        self._policy = policy

    async def plan(
        self,
        holds: Holds,
        now_ns: int,
        forces: Mapping[str, Force] | None = None,
        compress: bool = False,
        only: Collection[str] | None = None,
    ) -> tuple[Plan, dict[tuple[str, str], Closed]]:
        """The plan as of now, and what sinks have to be told of it, by kind and slot. `forces`: by
        index. `compress`: cold days are written anew with best_compression. `only`: names of the
        indices that are looked at; None: all."""
        records = await self._records()
        items: list[Item] = []
        gates: dict[tuple[str, str], Closed] = {}
        warnings = [*self._policy.warnings()]
        looked_at = 0
        for kind in (*KINDS, *SUMMARY_KINDS):
            for index in await self._cluster.indices(kind):
                if only is not None and index.name.name not in only:
                    continue
                looked_at += 1
                force = (forces or {}).get(index.name.name, Force())
                found, weighed = await self._look(
                    kind, index, holds, now_ns, force, records.get(index.name.name), compress
                )
                if weighed is not None and weighed.unknown:
                    names = ", ".join(sorted(weighed.unknown))
                    warnings.append(f"{index.name.name}: kept for ever, unknown class {names}")
                if found is None:
                    continue
                items.append(found)
                closed = closing(weighed) if weighed else Closed()
                if closed != Closed():
                    gates[kind, index.name.slot] = closed
        plan = Plan(
            namespace=self._cluster.namespace,
            as_of_ns=now_ns,
            policy=self._policy.file.name,
            policy_digest=self._policy.digest,
            items=tuple(items),
            holds=tuple(holds.told()),
            warnings=tuple(dict.fromkeys(warnings)),
            looked_at=looked_at,
        )
        return plan, gates

    async def _records(self) -> dict[str, Record]:
        found = await self._state.find(REWRITTEN)
        return {one.source["index"]: msgspec.convert(one.source["record"], Record) for one in found}

    async def _look(
        self,
        kind: str,
        index: IndexState,
        holds: Holds,
        now_ns: int,
        force: Force,
        record: Record | None,
        compress: bool,
    ) -> tuple[Item | None, Weighed | None]:
        """The item of one index; None where nothing is to be done."""
        age, now = age_seconds(index.name.day, now_ns / 1e9), now_ns / 1e9
        item = Item(
            kind=kind,
            slot=index.name.slot,
            day=index.name.day,
            index=index.name.name,
            revision=index.name.revision,
            is_held=index.name.is_held,
            action=REPLACE,
            why=DISK if force != Force() else EXPIRED,
            documents=index.documents,
            bytes=index.bytes,
            force=force,
        )
        weighed: Weighed | None = None
        if force != Force() or age >= self._first_due(kind):
            await self._cluster.refresh(index.name.name)
            weighed, held = await weighed_now(self._cluster, self._policy, item, holds, now, record)
            if not weighed.is_nothing:
                told = msgspec.structs.replace(
                    item,
                    held=held,
                    drop=dict(weighed.drop),
                    strip=dict(weighed.strip),
                    thin=dict(weighed.thin),
                    spared=dict(weighed.spared),
                )
                return told, weighed
        if kind in SUMMARY_KINDS:
            return None, weighed  # whoever sums up writes to them as long as they are there
        cold = age >= self._policy.seconds_of(self._policy.file.cold.after)
        if cold and compress and index.codec != BEST and kind == ACCESS and index.documents:
            return msgspec.structs.replace(item, why=COLD, codec=BEST), None
        if cold and index.segments > 1:
            return msgspec.structs.replace(item, action=MERGE, why=COLD), None
        return None, weighed

    def _first_due(self, kind: str) -> float:
        if kind != ACCESS:
            return self._policy.kind_seconds(kind)
        return self._policy.first_due_seconds()


async def weighed_now(
    cluster: Cluster,
    policy: Policy,
    item: Item,
    holds: Holds,
    now_seconds: float,
    record: Record | None,
) -> tuple[Weighed, int]:
    """What is due in an index by what a search finds now, and how many documents are held."""
    held_query = holds.query(item.kind)
    held = await cluster.count(item.index, held_query)
    judge = Judge(policy, item.kind, item.day, now_seconds, item.force)
    free = {"bool": {"must_not": [held_query]}}
    groups: dict[Group, int]
    cited = NONE_CITED
    if item.kind == ACCESS:
        groups = await cluster.groups(item.index, free)
        if any(judge.due(group).keep_one_in > 1 for group in groups):
            cited = await cited_in(cluster, item.index, item.day, free)
    else:
        count = await cluster.count(item.index, free)
        groups = {("",) * len(POSITION): count} if count else {}
    weighed = weigh(judge, groups, held + sum(groups.values()), record, cited)
    weighed.cited = cited.ids
    return weighed, held
