"""Doing one item of a plan: an index is replaced by what has to remain of it.

1. block    no write is let in; what is due is worked out anew from what is there
2. fill     what remains is written into a new index that no search sees, and compared
3. snapshot (where asked) what goes is put into a repository, without content
4. sum      summaries keep what the details will not say any more
5. swap     holds are looked at again; in one step the old index goes, the new one is found
6. settle   writes are let in, the new index is merged, and it is noted what it lacks

Each step is noted before it is done, and each may be done twice. If we die anywhere before the
swap, the old index is whole and found, and the next run begins again with the first step; if we
die after it, the next run sees that the old index is gone and settles.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import orjson

from gatebook.processors import render
from gatebook.processors.retention import metrics
from gatebook.processors.retention.elastic import Cluster, Found
from gatebook.processors.retention.evidence import cited_in
from gatebook.processors.retention.holds import Holds
from gatebook.processors.retention.lock import Busy
from gatebook.processors.retention.plan import (
    ACCESS,
    MERGE,
    Item,
    Judge,
    Record,
    Weighed,
    closing,
    weighed_now,
)
from gatebook.processors.retention.policy import FULL, REDACTED, Policy
from gatebook.processors.retention.rows import SUMMARY_KINDS, end_of, grain_of
from gatebook.processors.retention.state import REWRITTEN, State, with_settled
from gatebook.processors.sinks.slots import Closed, group_of, is_sampled, span_of
from gatebook.processors.subjects.layers import CONTENT_FIELDS, SEARCHED, value_at, without
from gatebook.processors.summaries.template import alias as summary_alias
from gatebook.schemas.errors import GatebookError

STEPS = ("block", "fill", "snapshot", "sum", "swap", "settle")
LAYER_FIELDS = {
    REDACTED: (*SEARCHED.values(), ("gatebook", "sealed", "redacted")),
    FULL: (("gatebook", "sealed", "full"),),
}
MAX_TRIES = 10
WRITE_DOCUMENTS = 1_000
_MODULUS = 1 << 256


class NotReplaced(GatebookError):
    """What was written is not what was read, or holds kept changing: nothing was deleted."""

    exit_code = 1
    next_step = "run it again; if it lasts, see Elasticsearch's log"


class Summaries(Protocol):
    """What keeps counts when details go: see summaries/keeping.py."""

    async def ensure(self, since: datetime, until: datetime) -> None:
        """Returns when every hour of the range is summed up. Raises where that is not so."""

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        """Keep what `leaving` says and `coming` will not."""

    async def forget(self, grain: str, until: datetime) -> None:
        """Returns when no row of an hour, or of a day, of before `until` is written any more."""


class NoSummaries:
    """Where the policy says that none are kept."""

    async def ensure(self, since: datetime, until: datetime) -> None:
        """Nothing is summed up."""

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        """Nothing is kept."""

    async def forget(self, grain: str, until: datetime) -> None:
        """Nobody writes any."""


class Fingerprint:
    """The same for the same documents in whatever order."""

    def __init__(self) -> None:
        self.documents = 0
        self._sum = 0

    def add(self, document_id: str, source: Mapping[str, Any]) -> None:
        """Take a document in."""
        body = orjson.dumps(source, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(document_id.encode("utf-8", "surrogatepass") + b"\0" + body)
        self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % _MODULUS
        self.documents += 1

    @property
    def text(self) -> str:
        """In hex, with the number of documents."""
        return f"{self.documents}:{self._sum:064x}"


@dataclass
class Outcome:
    """What was done to one index, as a certificate says it."""

    target: str = ""
    before: int = 0
    held: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    stripped: Counter[str] = field(default_factory=Counter)
    thinned: Counter[str] = field(default_factory=Counter)
    spared: Counter[str] = field(default_factory=Counter)
    cited: frozenset[str] = frozenset()
    uncommitted: int = 0
    remaining: str = "0:"
    snapshot: dict[str, Any] | None = None
    record: Record | None = None
    closed: Closed = field(default_factory=Closed)

    @property
    def after(self) -> int:
        """Documents that remain."""
        return self.before - sum(self.dropped.values()) - sum(self.thinned.values())

    @property
    def is_less(self) -> bool:
        """Whether documents go, not only layers."""
        return bool(self.dropped or self.thinned)

    def told(self) -> dict[str, Any]:
        """For the item's document and the certificate."""
        return {
            "target": self.target,
            "documents_before": self.before,
            "documents_after": self.after,
            "held": self.held,
            "dropped": dict(self.dropped),
            "stripped": dict(self.stripped),
            "thinned": dict(self.thinned),
            "spared_as_evidence": dict(self.spared),
            "digest_no_longer_covers_content": self.uncommitted,
            "remaining": self.remaining,
            "snapshot": self.snapshot,
        }

    def noted(self) -> dict[str, Any]:
        """What whoever settles has to know."""
        return {
            "outcome": self.told(),
            "record": msgspec.to_builtins(self.record),
            "closed": msgspec.to_builtins(self.closed),
        }


Note = Callable[[str, Mapping[str, Any]], Awaitable[None]]


@dataclass
class Replacer:
    """Does items of one run. `holds` tells those that stand now; `note` makes a step durable.
    `rows`: where summaries go themselves, also where the policy keeps none."""

    cluster: Cluster
    state: State
    policy: Policy
    run: str
    now_seconds: float
    holds: Callable[[], Awaitable[Holds]]
    summaries: Summaries
    rows: Summaries

    async def work(self, item: Item, step: str, before: Mapping[str, Any], note: Note) -> Any:
        """Do an item, or go on with it after `step`, of which `before` is what was noted. What was
        done, for the certificate. Raises Away, NotReplaced, and what summaries raise."""
        if item.action == MERGE:
            await note("merge", {})
            await self.cluster.merge(item.index)
            return {"merged": True}
        if step in ("swap", "settle") and not await self.cluster.exists(item.index):
            return await self._settled(item, before, note)
        try:
            return await self._replaced(item, note)
        except Busy:
            raise  # another goes on with this item, behind its own block
        except BaseException:
            # Not after SIGKILL: then whoever finds it lets writes in (see recovery).
            await self.cluster.unblock(item.index)
            raise

    async def _replaced(self, item: Item, note: Note) -> Any:
        is_summed = item.kind == ACCESS and (item.drop or item.thin)
        if is_summed:
            await self._ensure(item)  # before the block, which it would prolong
        if item.kind in SUMMARY_KINDS:
            # If we die here, rows stay that nobody adds to: they are due.
            await self.rows.forget(grain_of(item.kind), end_of(item.slot))
        await note("block", {})
        ticket = await self.cluster.new_ticket()
        await self.cluster.block(item.index)
        await self.cluster.refresh(item.index)
        for _ in range(MAX_TRIES):
            await note("fill", {})
            holds = await self.holds()
            outcome = await self._filled(item, holds, note)
            if item.kind == ACCESS and outcome.is_less:
                await note("sum", {})
                await self._summed(item, outcome, bool(is_summed))
            found = outcome.noted()
            await note("swap", found)
            still = (await self.holds()).digest == holds.digest
            if still and await self._cites_no_more(item, holds, outcome):
                await self._check_still(item, outcome)
                await self._swap(item, outcome.target, ticket)
                return await self._settled(item, found, note)
            # A hold or a finding came in between: what was written does not count, begin again.
        raise NotReplaced(f"holds or findings keep changing while {item.index} is rewritten")

    async def _cites_no_more(self, item: Item, holds: Holds, outcome: Outcome) -> bool:
        """Whether findings cite nothing but what they cited when it was thinned out."""
        if not outcome.thinned:
            return True
        free = {"bool": {"must_not": [holds.query(item.kind)]}}
        found = await cited_in(self.cluster, item.index, item.day, free)
        return found.ids <= outcome.cited

    async def _ensure(self, item: Item) -> None:
        cuts = (await self.state.gates()).cuts.get(item.kind, {}).get(item.day, ())
        since, until = (datetime.fromisoformat(t) for t in span_of(item.slot, cuts))
        await self.summaries.ensure(since.replace(tzinfo=UTC), until.replace(tzinfo=UTC))

    async def _summed(self, item: Item, outcome: Outcome, is_ensured: bool) -> None:
        if not is_ensured:
            await self._ensure(item)
        coming = [outcome.target] if outcome.target else []
        for index in coming:
            await self.cluster.block(index)
        await self.summaries.freeze([item.index], coming)

    async def _check_still(self, item: Item, outcome: Outcome) -> None:
        """Nobody let writes in meanwhile, and nothing came in."""
        await self.cluster.refresh(item.index)
        count = await self.cluster.count(item.index, {"match_all": {}})
        if not await self.cluster.is_blocked(item.index) or count != outcome.before:
            raise NotReplaced(f"{item.index} was written to while it was rewritten")

    async def _swap(self, item: Item, target: str, ticket: str) -> None:
        base = f"{self.cluster.namespace}-{item.kind}"
        alias = summary_alias(self.cluster.namespace) if item.kind in SUMMARY_KINDS else base
        # If we die right after this, the old index is gone: the next run settles.
        await self.cluster.swap(item.index, target, (f"{base}-{item.slot}", alias), ticket)

    async def _settled(self, item: Item, noted: Mapping[str, Any], note: Note) -> Any:
        outcome = noted["outcome"]
        await note("settle", noted)
        closed = msgspec.convert(noted["closed"], Closed)
        if closed != Closed():
            await self.state.change_gates(
                lambda gates: with_settled(gates, item.kind, item.slot, closed)
            )
        if target := outcome["target"]:
            await self.cluster.unblock(target)
            source = {"type": REWRITTEN, "index": target, "record": noted["record"]}
            await self.state.change(f"rewritten.{target}", lambda _: source, source)
            await self.cluster.merge(target)
        await self.state.delete(f"rewritten.{item.index}")
        _count(item, outcome)
        return outcome

    # -- filling ------------------------------------------------------------------------------

    async def _filled(self, item: Item, holds: Holds, note: Note) -> Outcome:
        """Write what remains into a new index; what is taken away of the rest."""
        args = (self.cluster, self.policy, item, holds, self.now_seconds, None)
        weighed, held = await weighed_now(*args)
        outcome = Outcome(held=held, before=held + weighed.keep + sum(weighed.drop.values()))
        outcome.cited = weighed.cited
        is_held = item.is_held or (not weighed.keep and bool(weighed.drop))
        target = self._target(item, is_held)
        copy = f"{self.cluster.namespace}-retention-copy-{item.kind}-{item.slot}"
        for leftover in (target, copy):  # of a try that was interrupted
            await self.cluster.delete(leftover)
        if held or weighed.keep:
            outcome.target = target
            await self._write(item, holds, weighed, outcome)
        else:
            outcome.dropped = weighed.drop
        outcome.record = _record(outcome, weighed)
        outcome.closed = closing(weighed)
        if outcome.dropped and (asked := self.policy.file.snapshot) and item.kind in asked.kinds:
            await note("snapshot", {})
            outcome.snapshot = await self._snapshot(item, holds, copy, asked.repository)
        return outcome

    def _target(self, item: Item, is_held: bool) -> str:
        held = "held-" if is_held else ""
        base = f"{self.cluster.namespace}-{item.kind}"
        return f"{base}-{held}{item.slot}-r{item.revision + 1}"

    async def _write(self, item: Item, holds: Holds, weighed: Weighed, outcome: Outcome) -> None:
        await self.cluster.create(outcome.target, item.index, item.codec)
        wanted = Fingerprint()
        query = holds.query(item.kind)
        if outcome.held:
            async for page in self.cluster.scan(item.index, query):
                await self._put(outcome.target, [(one.id, one.source) for one in page], wanted)
        if weighed.keep:
            judge = Judge(self.policy, item.kind, item.day, self.now_seconds, item.force)
            free = {"bool": {"must_not": [query]}}
            async for page in self.cluster.scan(item.index, free):
                await self._put(outcome.target, _left(page, judge, outcome), wanted)
        else:
            outcome.dropped = weighed.drop
        await self._compare(outcome, wanted)

    async def _put(
        self, target: str, documents: list[tuple[str, dict[str, Any]]], wanted: Fingerprint
    ) -> None:
        for document_id, source in documents:
            wanted.add(document_id, source)
        if documents:
            await self.cluster.write(target, documents)

    async def _compare(self, outcome: Outcome, wanted: Fingerprint) -> None:
        """What the new index holds is what was to be written, and as many as are to remain."""
        await self.cluster.refresh(outcome.target)
        found = Fingerprint()
        async for page in self.cluster.scan(outcome.target, {"match_all": {}}):
            for one in page:
                found.add(one.id, one.source)
        if found.text != wanted.text or found.documents != outcome.after:
            raise NotReplaced(f"{outcome.target} does not hold what was written to it")
        outcome.remaining = found.text

    async def _snapshot(
        self, item: Item, holds: Holds, copy: str, repository: str
    ) -> dict[str, Any]:
        """What goes, without content, in a snapshot of its own."""
        await self.cluster.check_repository(repository)
        await self.cluster.create(copy, item.index)
        judge = Judge(self.policy, item.kind, item.day, self.now_seconds, item.force)
        free = {"bool": {"must_not": [holds.query(item.kind)]}}
        async for page in self._going(item, free, judge):
            await self.cluster.write(copy, page)
        await self.cluster.refresh(copy)
        name = f"{copy}-{self.run}"
        taken = await self.cluster.snapshot(repository, name, copy)
        taken["documents"] = await self.cluster.count(copy, {"match_all": {}})
        await self.cluster.delete(copy)
        return taken

    async def _going(
        self, item: Item, query: dict[str, Any], judge: Judge
    ) -> AsyncIterator[list[tuple[str, dict[str, Any]]]]:
        async for page in self.cluster.scan(item.index, query):
            going = [one for one in page if judge.due(group_of(one.source)).drop]
            if going:
                yield [(one.id, without(one.source, CONTENT_FIELDS)) for one in going]


def _left(
    page: Sequence[Found], judge: Judge, outcome: Outcome
) -> list[tuple[str, dict[str, Any]]]:
    """What remains of documents that nobody holds; what goes is counted, and so is what stays
    because findings cite it."""
    left = []
    for one in page:
        group = group_of(one.source)
        due = judge.due(group)
        if due.drop:
            outcome.dropped[judge.label(group)] += 1
            continue
        if due.keep_one_in > 1 and not is_sampled(one.source, due.keep_one_in):
            is_spared = one.id in outcome.cited
            (outcome.spared if is_spared else outcome.thinned)[judge.label(group)] += 1
            if not is_spared:
                continue
        left.append((one.id, _stripped(one.source, due.strip, outcome)))
    return left


def _stripped(source: dict[str, Any], layers: frozenset[str], outcome: Outcome) -> dict[str, Any]:
    """The document without these layers. Its digest covers a commitment to them, not them; one of
    before there were commitments is stripped all the same, and counted."""
    found = source
    for layer in sorted(layers):
        paths = LAYER_FIELDS[layer]
        if any(value_at(found, path) is not None for path in paths):
            found = without(found, paths)
            outcome.stripped[layer] += 1
    outcome.uncommitted += found is not source and not render.commits(source)
    return found


def _record(outcome: Outcome, weighed: Weighed) -> Record:
    return Record(
        documents=outcome.after,
        stripped=weighed.stripped,
        thinned=weighed.thinned,
        spared=outcome.spared.total(),
    )


def _count(item: Item, outcome: Mapping[str, Any]) -> None:
    metrics.DELETED.labels(item.kind, item.why).inc(sum(outcome["dropped"].values()))
    metrics.THINNED.inc(sum(outcome["thinned"].values()))
    for layer, count in outcome["stripped"].items():
        metrics.STRIPPED.labels(layer).inc(count)
    metrics.INDICES.labels("rewritten" if outcome["target"] else "deleted").inc()
