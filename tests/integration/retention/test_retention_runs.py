"""A run of retention on a real Elasticsearch: what goes, what stays, what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson
import pytest
from tests.integration.retention.retention_tools import POLICY, Store, day, document

from gatebook.processors import render
from gatebook.processors.retention import holds
from gatebook.processors.retention.manager import FORMAT
from gatebook.processors.retention.work import Replacer
from gatebook.processors.sinks.base import BulkOutcome
from gatebook.processors.sinks.slots import is_sampled
from gatebook.processors.subjects.certificate import NotVerified, verify_certificate


async def test_a_day_that_is_due_is_deleted_and_a_younger_one_is_not(store: Store) -> None:
    """Whole indices go once all their documents are due; the certificate counts and verifies."""
    old = [document(n, 40) for n in range(5)]
    young = [document(n, 8) for n in range(3)]
    await store.write(*old, *young)
    certificate = await store.manager().apply("ada", "policy")
    assert certificate is not None
    assert await store.indices() == [f"access-{day(8)}"]
    assert set(await store.hits()) == {one["event"]["id"] for one in young}
    assert certificate["totals"]["dropped"] == {"default/30d": 5}
    assert verify_certificate(orjson.dumps(certificate), format_=FORMAT) == certificate
    changed = {**certificate, "reason": "another"}
    with pytest.raises(NotVerified):
        verify_certificate(orjson.dumps(changed), format_=FORMAT)
    assert [act.action for act in store.acts] == ["retention.apply", "retention.applied"]


async def test_a_second_run_has_nothing_to_do(store: Store) -> None:
    """What is done is done: nothing is rewritten twice, and no certificate says so."""
    await store.write(*(document(n, 12, level="full") for n in range(4)))
    assert await store.manager().apply("ada", "policy") is not None
    assert await store.manager().apply("ada", "policy") is None


async def test_layers_go_before_the_event_and_its_digest_still_verifies(store: Store) -> None:
    """After 5 days the full layer goes, after 10 the redacted one; who accessed what stays."""
    seven = [document(n, 7, level="full") for n in range(3)]
    twelve = [document(n, 12, level=("redacted", "full")[n % 2]) for n in range(4)]
    await store.write(*seven, *twelve)
    certificate = await store.manager().apply("ada", "policy")
    hits = await store.hits()
    assert len(hits) == 7
    for one in seven:
        found = hits[one["event"]["id"]]["_source"]
        assert found["gen_ai"]["input"]["messages"] == "the walrus"
        assert "full" not in found["gatebook"]["sealed"]
        assert "redacted" in found["gatebook"]["sealed"]
    for one in twelve:
        found = hits[one["event"]["id"]]["_source"]
        assert "input" not in found["gen_ai"]
        assert set(found["gatebook"]["sealed"]) == {"key_id"}
        assert found["gen_ai"]["request"] == {"model": "slm"}
    for hit in hits.values():
        assert render.digest(hit["_source"]) == hit["_source"]["event"]["hash"]
    assert certificate is not None
    assert certificate["totals"]["stripped"] == {"full": 5, "redacted": 4}


async def test_a_replay_after_a_rewrite_yields_only_duplicates(store: Store) -> None:
    """The alias of the old name leads a replay to its first copies, stripped or not."""
    events = [document(n, 12, level="full") for n in range(6)]
    await store.write(*events)
    await store.manager().apply("ada", "policy")
    store.sink = store.new_sink()
    assert await store.write(*events) == BulkOutcome(duplicates=6)
    late = document(99, 12)
    assert await store.write(late) == BulkOutcome(indexed=1)
    assert len(await store.hits()) == 7


async def test_what_was_deleted_does_not_come_back(store: Store) -> None:
    """A replay of a deleted day, or of tenants whose documents were taken out of one, is rejected
    with a reason: nothing is searchable again, and nothing is lost without a word."""
    gone = [document(n, 40) for n in range(3)]
    brief = [document(n, 8, tenant="brief-one") for n in range(4)]
    stays = [document(n, 8) for n in range(2)]
    await store.write(*gone, *brief, *stays)
    await store.manager().apply("ada", "policy")
    for sink in (store.sink, store.new_sink()):
        store.sink = sink
        outcome = await store.write(*gone, *brief, *stays)
        assert (outcome.indexed, outcome.duplicates) == (0, 2)
        assert {r.reason for r in outcome.rejected} == {"index_rejected"}
        assert {r.detail for r in outcome.rejected} == {
            "past its retention: what it belongs to was deleted"
        }
        assert len(outcome.rejected) == 7
    assert set(await store.hits()) == {one["event"]["id"] for one in stays}
    assert await store.indices() == [f"access-{day(8)}-r1"]


async def test_rules_keep_tenants_apart_within_a_day(store: Store) -> None:
    """One tenant's events go, another's stay, a class on the event keeps a third's for longer."""
    brief = [document(n, 4, tenant="brief-one") for n in range(3)]
    plain = [document(n, 40) for n in range(2)]
    long = [
        document(n, 40, tenant="bank", gatebook={"retention": {"metadata": "long"}})
        for n in range(2)
    ]
    await store.write(*brief, *plain, *long)
    plan = await store.manager().plan()
    assert {(i.slot, i.is_whole) for i in plan.items} == {(day(4), True), (day(40), False)}
    certificate = await store.manager().apply("ada", "policy")
    assert set(await store.hits()) == {one["event"]["id"] for one in long}
    assert certificate is not None
    assert certificate["totals"]["dropped"] == {"brief/3d": 3, "default/30d": 2}


async def test_an_unknown_class_is_kept_and_told(store: Store) -> None:
    """A class that the policy does not name is a question, not a reason to delete."""
    await store.write(document(1, 4000, gatebook={"retention": {"metadata": "mystery"}}))
    plan = await store.manager().plan()
    assert plan.items == ()
    assert any("mystery" in warning for warning in plan.warnings)


async def test_thinning_keeps_whole_traces_and_is_counted(store: Store) -> None:
    """One in four traces stays, whichever run looks; replays of the others do not come back."""
    events = [document(n, 4, tenant="noise") for n in range(200)]
    await store.write(*events)
    certificate = await store.manager().apply("ada", "policy")
    kept = set(await store.hits())
    assert 20 <= len(kept) <= 90
    assert certificate is not None
    assert certificate["totals"]["thinned"] == {"noise/30d": 200 - len(kept)}
    assert await store.manager().apply("ada", "policy") is None
    outcome = await store.write(*events)
    assert outcome.duplicates == len(kept)
    assert len(outcome.rejected) == 200 - len(kept)


def finding(name: str, days_ago: int, *cited: str) -> dict[str, Any]:
    """A finding that cites events."""
    at = document(23, days_ago)["@timestamp"]
    ours = {"evidence": list(cited), "evidence_count": len(cited)}
    return {"@timestamp": at, "event": {"id": name, "reason": "x"}, "gatebook": ours}


async def test_thinning_spares_what_findings_cite(store: Store) -> None:
    """Cited events stay, each with its intent, and no others of their traces; plan and certificate
    count them; a replay meets them; once the finding is gone they go like the others."""
    events = [document(n, 4, tenant="noise") for n in range(120)]
    go = [e["event"]["id"] for e in events if not is_sampled(e, 4)]
    of_go = next(e for e in events if e["event"]["id"] == go[0])
    intent = {
        **of_go,
        "event": {**of_go["event"], "id": f"{go[0]}:intent"},
        "gatebook": {**of_go["gatebook"], "phase": "intent"},
    }
    neighbour = document(500, 4, tenant="noise", trace=of_go["trace"])
    await store.write(*events, intent, neighbour)
    await store.write(finding("f1", 3, *go[:2], "elsewhere"), kind="finding")
    await store.write(finding("f2", 4, go[2]), kind="finding")
    spared = {*go[:3], f"{go[0]}:intent"}

    plan = await store.manager().plan()
    assert [item.spared for item in plan.items] == [{"noise/30d": 4}]
    certificate = await store.manager().apply("ada", "policy")
    kept = set(await store.hits())
    sampled = {e["event"]["id"] for e in events if is_sampled(e, 4)}
    assert kept == sampled | spared
    assert certificate is not None
    assert certificate["totals"]["spared_as_evidence"] == {"noise/30d": 4}
    assert certificate["totals"]["thinned"] == {"noise/30d": 122 - len(kept)}
    assert await store.manager().apply("ada", "policy") is None
    assert (await store.write(*events)).duplicates == len(kept) - 1  # all but the intent

    await store.cluster.delete(f"{store.namespace}-finding-{day(4)}")
    again = await store.manager().apply("ada", "policy")
    assert again is not None
    assert again["totals"]["thinned"] == {"noise/30d": 1}
    assert set(await store.hits()) == kept - {go[2]}
    assert await store.manager().apply("ada", "policy") is None


async def test_a_finding_that_comes_in_during_a_run_spares_what_it_cites(store: Store) -> None:
    """Stored after the copy was begun and before the old index goes: the copy is made again."""
    events = [document(n, 4, tenant="noise") for n in range(60)]
    await store.write(*events)
    cited = next(e["event"]["id"] for e in events if not is_sampled(e, 4))
    manager, filled = store.manager(), Replacer._filled
    calls = 0

    async def late(self: Replacer, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        outcome = await filled(self, *given)
        if calls == 1:
            await store.write(finding("late", 3, cited), kind="finding")
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replacer, "_filled", late)
        certificate = await manager.apply("ada", "policy")
    assert calls == 2
    assert cited in await store.hits()
    assert certificate is not None
    assert certificate["totals"]["spared_as_evidence"] == {"noise/30d": 1}


async def test_a_subject_under_hold_keeps_the_findings_about_it(store: Store) -> None:
    """Findings about the principals a held person acts under stay, of that person's tenant and of
    none; not those about others, nor about a service that acted for the person. One who proved who
    they are acts for themselves, also where they name somebody else."""
    acting: dict[str, Any] = {"gatebook": {"subject": "tag-3", "principal": "key:bot"}}
    acting["gatebook"]["identity"] = {"on_behalf_of": "user-3"}
    proved: dict[str, Any] = {"gatebook": {"subject": "tag-3", "principal": "user:proved-3"}}
    named = {"method": "oidc", "assurance": "verified", "on_behalf_of": "x-17"}
    proved["gatebook"]["identity"] = named
    await store.write(document(3, 3), document(4, 3), document(9, 3, **acting))
    await store.write(document(10, 3, **proved))

    def about(name: str, principal: str, **more: Any) -> dict[str, Any]:
        found = finding(name, 40)
        return {**found, "gatebook": {"principal": principal}, **more}

    acme, other = {"organization": {"id": "acme"}}, {"organization": {"id": "other"}}
    await store.write(
        about("mine", "user:user-3", **acme),
        about("mine-somewhere", "user:user-3"),
        about("a-namesake", "user:user-3", **other),
        about("a-neighbour", "user:user-4", **acme),
        about("a-service", "key:bot", **acme),
        about("mine-by-another-name", "user:proved-3", **acme),
        kind="finding",
    )
    store.held = {"tag-3": ()}
    certificate = await store.manager().apply("ada", "policy")
    assert set(await store.hits("finding")) == {"mine", "mine-somewhere", "mine-by-another-name"}
    assert certificate is not None
    assert "user-3" not in str(certificate)
    store.held = {}
    await store.manager().apply("ada", "released")
    assert await store.hits("finding") == {}


async def test_a_subject_under_hold_keeps_everything(store: Store) -> None:
    """Held events are moved out before their index goes, found as before, and not stripped; once
    the hold is released they go with the next run."""
    events = [document(n, 40, level="full") for n in range(14)]
    mine = {one["event"]["id"] for one in events if one["gatebook"]["subject"] == "tag-3"}
    await store.write(*events)
    store.held = {"tag-3": ()}
    certificate = await store.manager().apply("ada", "policy")
    hits = await store.hits()
    assert set(hits) == mine
    assert all("full" in hit["_source"]["gatebook"]["sealed"] for hit in hits.values())
    assert await store.indices() == [f"access-held-{day(40)}-r1"]
    assert certificate is not None
    assert certificate["totals"]["held"] == len(mine)
    outcome = await store.write(*events)
    assert (outcome.duplicates, len(outcome.rejected)) == (len(mine), 14 - len(mine))

    assert await store.manager().apply("ada", "policy") is None
    store.held = {}
    again = await store.manager().apply("ada", "released")
    assert again is not None
    assert again["previous"] == certificate["signature"]
    assert await store.hits() == {}


@pytest.mark.parametrize(
    "what",
    [
        {"tenant": "acme"},
        {"query": 'user.id: "user-1" or user.id: "user-2"'},
        {"trace": "trace-acme-2"},
        {"since": "2020-01-01T00:00:00Z"},
    ],
    ids=lambda what: next(iter(what)),
)
async def test_holds_by_tenant_query_trace_and_time(store: Store, what: dict[str, str]) -> None:
    """Whatever a hold names stays, of every layer, and the rest goes."""
    events = [document(n, 40, level="full") for n in range(6)]
    await store.write(*events, *(document(n, 40, tenant="other") for n in range(2)))
    hold = holds.checked(store.hold("case", **what))
    await holds.put(store.state, hold)
    query = holds.query_of(hold, "access") or {}
    alias = f"{store.namespace}-access"
    await store.cluster.refresh(alias)
    covered = await store.cluster.count(alias, query)
    assert covered > 0
    await store.manager().apply("ada", "policy")
    hits = await store.hits()
    assert len(hits) == covered == await store.cluster.count(alias, query)
    assert all("full" in h["_source"]["gatebook"].get("sealed", {"full": 1}) for h in hits.values())
    await holds.release(store.state, "case")
    await store.manager().apply("ada", "policy")
    assert await store.hits() == {}


@pytest.mark.parametrize("relative", ["now-30d", "now-1M"])
async def test_a_hold_does_not_loosen_by_itself(store: Store, relative: str) -> None:
    """What it covered when it was placed, 40 days ago, is still covered, though the time in its
    query is relative; under its id a later one that covers less is refused."""
    await store.write(document(1, 60), document(2, 90))
    at = (datetime.now(UTC) - timedelta(days=40)).strftime("%Y-%m-%dT%H:%M:%SZ")
    placed = store.hold("case", query=f"@timestamp >= {relative}")
    placed = msgspec.structs.replace(placed, at=at)
    await holds.put(store.state, placed)
    assert await holds.covered(store.connection, store.namespace, placed) == 1
    await store.manager().apply("ada", "policy")
    assert set(await store.hits()) == {"acme-60-00001"}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(holds.HoldTaken):
        await holds.put(store.state, msgspec.structs.replace(placed, at=now))


async def test_an_id_stands_for_one_hold(store: Store) -> None:
    """The same hold again changes nothing, whoever puts it and why; another one under its id is
    refused, in words that say that it is not in force; once released the id is free."""
    first = store.hold("case-1", query="user.id: user-1")
    await holds.put(store.state, first)
    await holds.put(store.state, msgspec.structs.replace(first, reason="b", by="bob", at="2026"))
    other = store.hold("case-1", query="user.id: user-2")
    for what in (other, store.hold("case-1", query=first.query, kinds=("access",))):
        with pytest.raises(holds.HoldTaken, match=r"'case-1' by 'ada'.* is not held") as refused:
            await holds.put(store.state, what)
        assert refused.value.exit_code == 1
        assert "--hold-id" in refused.value.next_step
    assert await holds.own_holds(store.state) == (first,)
    await holds.release(store.state, "case-1")
    await holds.put(store.state, other)
    assert await holds.own_holds(store.state) == (other,)


async def test_a_dry_run_changes_nothing(store: Store) -> None:
    """The plan tells counts by rule and class, layer and index, and leaves all as it is."""
    await store.write(*(document(n, 12, level="full") for n in range(3)), document(1, 40))
    before = await store.hits(), await store.indices()
    plan = await store.manager().plan()
    told = {item.slot: (item.drop, item.strip, item.is_whole) for item in plan.items}
    assert told == {
        day(12): ({}, {"full": 3, "redacted": 3}, False),
        day(40): ({"default/30d": 1}, {}, True),
    }
    assert (await store.hits(), await store.indices()) == before
    assert store.acts == []


async def test_findings_alerts_and_dead_letters_go_by_their_own_days(store: Store) -> None:
    """Each kind has its own time, and goes by whole days."""
    for kind in ("finding", "alert", "deadletter"):
        for days_ago in (3, 25):
            source = {
                "@timestamp": document(1, days_ago)["@timestamp"],
                "event": {"id": f"{kind}-{days_ago}", "reason": "x"},
            }
            await store.write(source, kind=kind)
    await store.manager().apply("ada", "policy")
    for kind in ("finding", "alert", "deadletter"):
        assert set(await store.hits(kind)) == {f"{kind}-3"}


async def test_an_unreadable_policy_deletes_nothing(store: Store) -> None:
    """A policy with a fault is refused before anything is looked at."""
    from gatebook.processors.retention.policy import PolicyInvalid

    await store.write(document(1, 4000))
    with pytest.raises(PolicyInvalid):
        await store.manager(POLICY.replace(b'"30d"', b'"30 days"')).apply("ada", "policy")
    assert len(await store.hits()) == 1
