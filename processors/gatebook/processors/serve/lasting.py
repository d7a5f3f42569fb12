"""What of the details is gone by policy, and how retention stands, as the service tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.retention.holds import Hold, own_holds
from gatebook.processors.retention.missing import gaps
from gatebook.processors.retention.policy import LAYERS, Policy, PolicyInvalid, Rule
from gatebook.processors.retention.state import RUN, State, Stored
from gatebook.processors.search.asking import SearchFailed
from gatebook.processors.serve.access.masking import MASK
from gatebook.processors.serve.access.roles import Permission
from gatebook.processors.serve.access.who import Caller
from gatebook.processors.serve.models import (
    Detail,
    HoldTold,
    PolicyRule,
    PolicyTold,
    RetentionAnswer,
    Thinned,
)
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.holds import held_subjects
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import GatebookError


async def detail(
    connection: Connection,
    namespace: str,
    kind: str,
    since: str | None,
    until: str | None,
    tenants: frozenset[str] | None,
) -> Detail:
    """Whether all details of a range are there, of these tenants; None: of all. Raises
    SearchFailed, Unreachable."""
    found = await gaps(connection, namespace, kind, since, until, tenants)
    thinned = [Thinned(**asdict(one)) for one in found]
    return Detail(complete=not found, thinned=thinned)


async def retention(connection: Connection, namespace: str, caller: Caller) -> RetentionAnswer:
    """How retention stands, as far as this caller may know. Raises SearchFailed, Unreachable."""
    state = State(Cluster(connection, namespace))
    try:
        runs = [*await state.find(RUN, done=True), *await state.find(RUN, done=False)]
        holds = await own_holds(state) if _may_know_holds(caller) else None
    except Away:
        raise SearchFailed("retention's state cannot be read", "try again") from None
    done = [run for run in runs if run.source["done"]]
    last = max(done, key=_planned, default=None)
    latest = max(runs, key=_planned, default=None)
    lost = await detail(connection, namespace, "access", None, None, caller.tenants)
    return RetentionAnswer(
        configured=last is not None,
        last_run=None if last is None else _run(last.source["certificate"], caller),
        thinned=lost.thinned,
        policy=None if latest is None else _policy(latest, caller.tenants),
        holds=None if holds is None else [_hold(h, caller) for h in holds if _is_of(h, caller)],
        subjects_held=await _subjects(connection, namespace, caller),
    )


def _planned(run: Stored) -> int:
    return int(run.source["at_ns"])


def _may_know_holds(caller: Caller) -> bool:
    return caller.may(Permission.HOLDS) or caller.may(Permission.RETENTION)


def _run(certificate: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Sums are over all tenants: only those see them who see all tenants."""
    names = ["run", "completed_at", "policy", "signature"]
    if caller.tenants is None:
        names += ["reason", "totals", *(["requested_by"] if _may_know_holds(caller) else [])]
    told = {name: certificate[name] for name in names if name in certificate}
    if told.get("reason") and not caller.may(Permission.IDENTITIES):
        told["reason"] = MASK  # it may say who asked, as a hold's may
    return told


def _is_of(hold: Hold, caller: Caller) -> bool:
    return caller.tenants is None or (bool(hold.tenant) and hold.tenant in caller.tenants)


def _hold(hold: Hold, caller: Caller) -> HoldTold:
    """A hold, and who is meant by it only where the caller may know persons."""
    told = msgspec.to_builtins(hold)
    if not caller.may(Permission.IDENTITIES):
        told |= {n: MASK for n in ("by", "reason", "trace", "query") if told[n]}
    return HoldTold(**{**told, "kinds": list(hold.kinds)})


async def _subjects(connection: Connection, namespace: str, caller: Caller) -> int | None:
    """A subject's state says nothing of its tenant."""
    if caller.tenants is not None or not _may_know_holds(caller):
        return None
    try:
        return len(await held_subjects(ElasticStore(connection, namespace)))
    except GatebookError:
        raise SearchFailed("holds on subjects cannot be read", "try again") from None


def _policy(run: Stored, tenants: frozenset[str] | None) -> PolicyTold | None:
    """The policy of a run; None where this version cannot read it."""
    try:
        policy = Policy.read(run.source["policy"].encode())
    except PolicyInvalid:
        return None
    file = policy.file
    rules = [told for rule in file.rule if (told := _rule(rule, tenants)) is not None]
    defaults = {layer: getattr(file.defaults, layer) for layer in LAYERS}
    named = {*defaults.values(), *file.kinds.values()}
    named |= {text for r in rules for text in (r.metadata, r.redacted, r.full, r.sample_after)}
    return PolicyTold(
        name=file.name,
        sha256=policy.digest,
        planned_at=timestamp_text(_planned(run)),
        defaults=defaults,
        classes={n: d for n, d in file.classes.items() if tenants is None or n in named},
        rules=rules,
        kinds={str(kind): text for kind, text in file.kinds.items()},
        summaries=file.summaries,
    )


def _rule(rule: Rule, tenants: frozenset[str] | None) -> PolicyRule | None:
    """A rule; None where it is about none of these tenants. Its patterns of tenants may name
    others, so these tenants stand in their place."""
    told: dict[str, Any] = msgspec.to_builtins(rule)
    match = {n: [p] if isinstance(p, str) else list(p) for n, p in told["match"].items() if p}
    patterns = match.get("tenant")
    if tenants is not None and patterns is not None:
        mine = sorted(t for t in tenants if any(fnmatchcase(t, one) for one in patterns))
        if not mine:
            return None
        match["tenant"] = mine
    return PolicyRule(
        **{n: told[n] for n in told if n not in ("match", "description")}, match=match
    )
