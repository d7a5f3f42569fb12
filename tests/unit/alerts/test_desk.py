"""What becomes a page, what does not, and that what is owed is told, whoever dies when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.alerts.desks import CHAT, DOWN, MANAGER, PAGER, Room, StubTarget, plan_of
from tests.unit.alerts.findings import NS, START_NS, finding, resolved, step

from gatebook.processors.alerts.base import Delivery

EVE = "failure_burst|acme/eve"
DAY = 86_400


def verdict(of: dict[str, Any], word: str) -> dict[str, Any]:
    closed = step(of, "closed")
    closed["gatebook"]["verdict"] = word
    return closed


# --- start and end -------------------------------------------------------------------------------


def test_a_problem_is_told_once_from_start_to_end() -> None:
    """Firing, firing again, resolved, resolved again: one trigger, one resolve, one id."""
    room = Room()
    first = finding(incident="i1")
    for found in (first, finding(start_ns=START_NS + 60 * NS, incident="i1")):
        room.take(found)
        room.deliver()
    room.take(resolved(first), resolved(first))
    room.deliver()
    assert room.told == [("pager", "firing", EVE), ("pager", "resolved", EVE)]
    assert {job.finding["gatebook"]["incident"] for job in room.jobs} == {"i1"}
    assert [record["event"]["outcome"] for record in room.records] == ["success", "success"]


def test_the_end_is_told_with_its_own_figures() -> None:
    """Whoever reads that it is over reads how bad it was; a start that was not told yet is told
    as it was."""
    room = Room()
    room.answers["pager"] = DOWN
    room.take(finding(incident="i1"))
    over = resolved(finding(incident="i1", observed=77.0))
    over["event"]["reason"] = "Over: it was bad"
    room.take(over)
    room.deliver()
    room.answers.clear()
    room.pass_seconds(30)
    start, end = (job.finding for job in room.jobs[-2:])
    assert (start["event"]["action"], start["gatebook"]["observed"]) == ("firing", 10.0)
    assert (end["event"]["reason"], end["gatebook"]["observed"]) == ("Over: it was bad", 77.0)
    assert end["gatebook"]["incident"] == start["gatebook"]["incident"] == "i1"


def test_a_problem_that_nobody_ends_is_over_after_its_quiet_time() -> None:
    """A detector that tells no end: resolved ten minutes after the last firing, not before."""
    room = Room()
    room.take(finding())
    assert room.pass_seconds(500) == [("pager", "firing", EVE)]
    room.take(finding(start_ns=START_NS + 500 * NS))
    assert room.pass_seconds(599) == []
    assert room.pass_seconds(2) == [("pager", "resolved", EVE)]


def test_a_problem_whose_end_will_be_told_waits_for_it() -> None:
    """Paired by an incident: hours of silence do not end it, a day does."""
    room = Room()
    room.take(finding(incident="i1"))
    room.deliver()
    assert room.pass_seconds(DAY - 1) == []
    assert room.pass_seconds(2) == [("pager", "resolved", EVE)]


def test_the_end_of_another_start_ends_nothing() -> None:
    """A late end of the incident before does not close the one that is open now."""
    room = Room()
    room.take(finding(incident="i2"))
    room.deliver()
    room.take(resolved(finding(incident="i1")))
    assert room.deliver() == []


def test_an_alert_is_sent_again_while_it_lasts() -> None:
    """To a target that forgets every minute, to the others not; and not after its end."""
    room = Room(plan_of(PAGER, MANAGER))
    room.take(finding(incident="i1"))
    room.pass_seconds(300)
    assert room.steps("pager") == [("firing", EVE)]
    assert room.steps("manager") == [("firing", EVE)] * 6
    room.take(resolved(finding(incident="i1")))
    room.pass_seconds(300)
    assert room.steps("manager")[6:] == [("resolved", EVE)]
    assert len(room.records) == 4


def test_somebody_has_it_in_hand() -> None:
    """Acknowledged: told once; the alert is sent again as before, and its end is told."""
    room = Room(plan_of(PAGER, MANAGER))
    room.take(finding(incident="i1"))
    room.deliver()
    room.take(step(finding(incident="i1"), "acknowledged"))
    room.pass_seconds(61)
    room.take(resolved(finding(incident="i1")))
    room.deliver()
    assert [s for s, _ in room.steps("pager")] == ["firing", "acknowledged", "resolved"]
    assert [s for s, _ in room.steps("manager")] == ["firing", "acknowledged", "firing", "resolved"]


def test_a_problem_is_forgotten_when_all_is_told_and_settled() -> None:
    """Nothing stays in the state but a checkpoint: entries have their tombstones."""
    room = Room()
    room.take(finding(), resolved(finding()))
    room.pass_seconds(3600)
    left = {key: value for key, value in room.stored if value is not None}
    gone = {key for key, value in room.stored if value is None}
    assert room.desk.incidents == {}
    assert {key for key in left if key.startswith(b"incident")} <= gone


# --- what fails ----------------------------------------------------------------------------------


def test_what_was_not_accepted_is_sent_again_until_it_is() -> None:
    """The pager is down for an hour, the chat is not: each is told once, in the end."""
    room = Room(plan_of(PAGER, CHAT))
    room.answers["pager"] = DOWN
    room.take(finding(incident="i1"))
    room.pass_seconds(3600)
    room.answers.clear()
    room.pass_seconds(300)
    assert len(room.steps("pager")) < 30
    assert room.steps("chat") == [("firing", EVE)]
    assert [r["event"]["outcome"] for r in room.records] == ["failure", "success", "success"]
    assert room.desk.owed == 0


def test_a_problem_that_ended_while_the_target_was_away_is_told_in_order() -> None:
    """Nothing is lost: it hears of the start, then of the end."""
    room = Room()
    room.answers["pager"] = DOWN
    room.take(finding(incident="i1"))
    room.deliver()
    room.take(resolved(finding(incident="i1")))
    room.answers.clear()
    room.pass_seconds(60)
    assert room.told[-2:] == [("pager", "firing", EVE), ("pager", "resolved", EVE)]


def test_the_target_says_when_to_come_back() -> None:
    """Retry-After beyond the delivery's own deadline is kept between deliveries, too."""
    room = Room()
    room.answers["pager"] = msgspec.structs.replace(
        DOWN, reason="rate_limited", retry_after_seconds=1800.0
    )
    room.take(finding(incident="i1"))
    room.deliver()
    room.answers.clear()
    assert room.pass_seconds(1799) == []
    assert room.pass_seconds(2) == [("pager", "firing", EVE)]


def test_a_target_that_comes_back_is_told_all_it_missed_at_once() -> None:
    """Ten problems while it was down, retried ever more rarely: the first that it accepts brings
    the others along, after a restart as well."""
    room = Room(plan_of(noise={"group_size": 100}, teams={"t": {"page_budget": 100}}))
    room.answers["pager"] = DOWN
    for number in range(10):
        room.take(finding(f"acme/u{number}", incident=f"i{number}", team="t"))
        room.pass_seconds(97)
    room.restart()
    room.answers.clear()
    at = room.desk.next_ns
    assert at is not None
    room.now_ns = at
    assert len(room.deliver()) == 10


def test_what_nobody_takes_for_a_day_is_given_up_and_recorded() -> None:
    """Expired: a record says so, and the next step is tried all the same."""
    room = Room()
    room.answers["pager"] = DOWN
    room.take(finding(incident="i1"))
    room.pass_seconds(DAY + 600)
    assert [r["event"]["reason"] for r in room.records][:2] == ["unreachable", "expired"]
    room.answers.clear()
    assert room.pass_seconds(301) == [("pager", "resolved", EVE)]


def test_a_finding_that_no_target_can_read_is_given_up_at_once() -> None:
    """It would not get better; the record says so."""
    room = Room()
    room.answers["pager"] = Delivery(outcome="failure", reason="unusable_finding")
    room.take(finding())
    room.deliver()
    assert room.desk.owed == 0
    assert [r["event"]["reason"] for r in room.records] == ["unusable_finding"]


# --- who dies when -------------------------------------------------------------------------------


def test_what_is_owed_survives_the_worker() -> None:
    """Stored, not sent: the next worker sends it. Sent and stored: it does not."""
    room = Room(plan_of(PAGER, MANAGER))
    room.take(finding(incident="i1"))
    room.restart()
    assert room.deliver() == [("pager", "firing", EVE), ("manager", "firing", EVE)]
    room.restart()
    assert room.deliver() == []
    assert room.pass_seconds(61) == [("manager", "firing", EVE)]
    room.take(resolved(finding(incident="i1")))
    room.restart()
    assert room.deliver() == [("pager", "resolved", EVE), ("manager", "resolved", EVE)]


def test_killed_between_send_and_commit_it_is_sent_under_the_same_key_and_id() -> None:
    """The target accepted, nobody stored it: the same step again, with the same record id."""
    room = Room()
    room.take(finding(incident="i1"))
    (job,) = room.due()
    first = room.desk.settle(job, Delivery(outcome="success"), room.now_ns)
    room.restart()
    (again,) = room.due()
    second = room.desk.settle(again, Delivery(outcome="success"), room.now_ns + NS)
    assert (again.key, again.step) == (job.key, job.step)
    assert [r["event"]["id"] for r in first] == [r["event"]["id"] for r in second]
    assert again.finding["event"]["id"] == job.finding["event"]["id"]


def test_killed_as_an_end_was_sent_the_return_is_told() -> None:
    """The end went out and nobody stored it; it comes back before it is sent again: the target
    may think that it is over, and is told of the start."""
    room = Room()
    room.take(finding(incident="i1"))
    room.deliver()
    room.take(resolved(finding(incident="i1")))
    room.due()
    room.restart()
    room.take(finding(start_ns=START_NS + 60 * NS, incident="i2"))
    assert room.deliver() == [("pager", "firing", EVE)]


@pytest.mark.parametrize("arrived", range(0, 16, 3))
def test_a_batch_read_again_counts_once(arrived: int) -> None:
    """Killed with so many entries of the state stored: reading the batch again gives the pages,
    members and digest counts of an undisturbed run."""
    plan = plan_of(
        noise={"group_size": 2, "digest_interval_seconds": 60},
        teams={"all": {"page_budget": 4, "critical_share": 0}},
    )
    batch = [finding(f"acme/u{n}", rule=f"rule_{n % 3}", team="all") for n in range(12)]
    calm, torn = Room(plan), Room(plan)
    calm.take(*batch)
    for offset, found in enumerate(batch):
        torn.desk.take(offset, found, torn.now_ns)
    torn.stored = torn.desk.drain_state()[:arrived]
    torn.restart()
    torn.take(*batch)
    assert sorted(torn.pass_seconds(120)) == sorted(calm.pass_seconds(120))
    texts = [sorted(job.finding["event"]["reason"] for job in room.jobs) for room in (calm, torn)]
    assert texts[0] == texts[1]


def test_a_topic_made_anew_keeps_what_is_open() -> None:
    """Offsets begin at 0 again: findings of the new topic count, the open alert gets its end."""
    room = Room()
    room.offset = 500
    room.take(finding(incident="i1"))
    room.deliver()
    room.restart(end_offset=1)
    room.take(resolved(finding(incident="i1")), offset=0)
    assert room.deliver() == [("pager", "resolved", EVE)]


def test_a_target_that_was_taken_out_is_owed_nothing() -> None:
    """The file names it no more: the state that speaks of it is passed over."""
    room = Room(plan_of(PAGER, CHAT))
    room.answers = {"pager": DOWN, "chat": DOWN}
    room.take(finding(incident="i1"))
    room.deliver()
    room.plan = plan_of(CHAT)
    room.answers.clear()
    room.restart()
    assert room.pass_seconds(60) == [("chat", "firing", EVE)]


# --- noise ---------------------------------------------------------------------------------------


def storm(count: int, **ours: Any) -> list[dict[str, Any]]:
    return [finding(f"acme/u{n}", **ours) for n in range(count)]


def test_a_storm_is_a_few_pages_and_one_for_the_rest() -> None:
    """10,000 keys of one rule: five alone, one for the group that counts all others; all ends
    with the last of them."""
    room = Room()
    room.take(*storm(10_000, incident="i"))
    opened = room.deliver()
    assert len(opened) == 6
    room.pass_seconds(120)
    group = room.jobs[-1].finding
    assert group["gatebook"]["observed"] == 9_995
    assert len(group["gatebook"]["evidence"]) == 20
    assert group["event"]["reason"].startswith("9995 findings of failure_burst")
    room.take(*[resolved(found) for found in storm(10_000, incident="i")])
    assert sorted(key for _, s, key in room.deliver() if s == "resolved") == sorted(
        key for _, s, key in opened
    )
    assert len({(s, key) for _, s, key in room.told}) == 12


def test_nothing_of_a_storm_is_lost_when_the_worker_dies_amid_it() -> None:
    """Half read, half told, killed: the other worker's pages make the same whole."""
    room = Room()
    found = storm(2_000, incident="i")
    room.take(*found[:1_000])
    room.deliver()
    room.desk.tick(room.now_ns + 70 * NS)  # a revision under way that nobody stored
    room.restart()
    room.take(*found[1_000:])
    room.pass_seconds(200)
    assert room.jobs[-1].finding["gatebook"]["observed"] == 1_995
    assert len({key for _, s, key in room.told}) == 6


def test_a_group_that_the_detector_names_is_one_page_from_the_start() -> None:
    """Where all of a group share a page, it is one from the start. It grows worse with its worst,
    and then is told to those, too, that take no mere updates."""
    room = Room(plan_of(PAGER, CHAT, noise={"group_size": 0}))
    room.take(*storm(3, group="spray", incident="i"))
    room.pass_seconds(100)
    assert [s for s, _ in room.steps("chat")] == ["firing"]
    assert [s for s, _ in room.steps("pager")] == ["firing", "firing"]
    room.take(finding("acme/boss", group="spray", severity="critical", incident="i"))
    room.deliver()
    assert [s for s, _ in room.steps("chat")] == ["firing", "firing"]
    assert room.jobs[-1].finding["gatebook"]["severity"] == "critical"
    assert len({key for _, _, key in room.told}) == 1


def test_pages_beyond_the_budget_are_in_the_digest() -> None:
    """Twenty problems, a budget of eight of which two are kept for critical ones: six pages, then
    critical ones get through, the rest is counted and named in one digest an hour later."""
    plan = plan_of(PAGER, CHAT, teams={"sec": {"page_budget": 8, "digest_targets": ["chat"]}})
    room = Room(plan)
    room.take(*[finding("acme/eve", rule=f"rule_{n:02}", team="sec") for n in range(20)])
    room.deliver()
    assert len(room.steps("pager")) == 6
    room.take(*[finding(rule=f"worst_{n}", team="sec", severity="critical") for n in range(3)])
    room.deliver()
    assert len(room.steps("pager")) == 8
    room.pass_seconds(3599)
    chat = [job.finding for job in room.jobs if job.key.startswith("~digest")]
    assert chat == []
    room.pass_seconds(2)
    (digest,) = [job for job in room.jobs if job.key.startswith("~digest")]
    assert digest.target == "chat"
    assert digest.finding["event"]["reason"] == "Digest for sec: 15 over the page budget"
    assert digest.finding["labels"]["item_01"].startswith("critical worst_2: acme/eve: 10")
    assert len(digest.finding["gatebook"]["evidence"]) == 15
    assert digest.finding["gatebook"]["page"] == "digest"


def test_the_budget_comes_back_as_its_window_slides() -> None:
    """An hour later there is room for pages again."""
    room = Room(plan_of(noise={"digest_interval_seconds": 100}, teams={"t": {"page_budget": 1}}))
    room.take(finding(rule="one", team="t"), finding(rule="two", team="t"))
    assert len(room.deliver()) == 1
    room.pass_seconds(3601)
    room.take(finding(rule="three", team="t", start_ns=room.now_ns))
    assert room.deliver() == [("pager", "firing", "three|acme/eve")]


def test_a_budget_is_shared_out_over_the_partitions() -> None:
    """Desks do not know of each other; together they never go beyond the budget."""
    plan = plan_of(teams={"t": {"page_budget": 5, "critical_share": 0}})
    pages = 0
    for partition in range(3):
        room = Room(plan, partition, 3)
        room.take(*[finding(rule=f"rule_{n}", team="t") for n in range(9)])
        pages += len(room.deliver())
    assert pages == 5


def test_no_partition_is_silent_for_good() -> None:
    """A budget smaller than the number of partitions: one page each."""
    plan = plan_of(teams={"t": {"page_budget": 1}})
    for partition in range(3):
        room = Room(plan, partition, 3)
        room.take(finding(rule="one", team="t"), finding(rule="two", team="t"))
        assert len(room.deliver()) == 1


def test_findings_of_others_are_told_as_they_are() -> None:
    """No key and a severity nobody knows: each a problem of its own, a warning."""
    room = Room()
    bare = [finding(f"acme/u{n}", dedup_key="", severity="urgent") for n in range(2)]
    room.take(*bare)
    room.deliver()
    keys = {job.finding["gatebook"]["dedup_key"] for job in room.jobs}
    assert keys == {one["event"]["id"] for one in bare}
    assert {job.finding["gatebook"]["severity"] for job in room.jobs} == {"warning"}


def test_what_comes_back_soon_is_no_new_page_unless_it_lasts() -> None:
    """Back within ten minutes of its end: it waits; over again, nobody hears; still there when
    the time is over, it is paged."""
    room = Room()
    room.take(finding(incident="i1"), resolved(finding(incident="i1")))
    room.deliver()
    room.pass_seconds(60)
    again = finding(start_ns=START_NS + 60 * NS, incident="i2")
    room.take(again, resolved(again))
    assert room.pass_seconds(120) == []
    lasting = finding(start_ns=START_NS + 180 * NS, incident="i3")
    room.take(lasting)
    assert room.pass_seconds(400) == []
    assert room.pass_seconds(200) == [("pager", "firing", EVE)]


def test_what_comes_back_worse_is_paged_at_once() -> None:
    """A higher severity does not wait."""
    room = Room()
    room.take(finding(incident="i1"), resolved(finding(incident="i1")))
    room.deliver()
    room.take(finding(start_ns=START_NS + 60 * NS, incident="i2", severity="critical"))
    assert room.deliver() == [("pager", "firing", EVE)]


def test_evidence_raises_the_severity_and_everybody_is_told() -> None:
    """Ten times the threshold is one step worse, once; a target with the severity in its
    identity is told what it was."""
    room = Room(plan_of(PAGER, CHAT, noise={"raise_at_ratio": 10}))
    room.take(finding(incident="i1"))
    room.deliver()
    for number in range(1, 4):
        room.take(finding(start_ns=START_NS + number * NS, incident="i1", observed=200.0))
        room.deliver()
    assert [s for s, _ in room.steps("chat")] == ["firing", "firing"]
    raised = room.jobs[-1].finding
    assert raised["gatebook"]["severity"] == "critical"
    assert raised["labels"]["previous_severity"] == "error"


def test_what_keeps_coming_is_worse() -> None:
    """The tenth time raises the severity by one step, the twentieth not again."""
    room = Room()
    for number in range(25):
        start_ns = START_NS + number * NS
        room.take(finding(start_ns=start_ns, incident="i1", severity="warning"))
        room.deliver()
    assert [job.finding["gatebook"]["severity"] for job in room.jobs] == ["warning", "error"]


def test_a_suppressed_time_delays_and_loses_nothing() -> None:
    """From nine to ten nobody is paged for this rule: what ends meanwhile is only counted, what
    lasts is paged at ten."""
    room = Room(plan_of(suppressions=[{"rule": "failure_*", "hours": "09:00-10:00"}]))
    short, long = finding("acme/a", incident="a"), finding("acme/b", incident="b")
    room.take(short, long, finding("acme/c", rule="other", incident="c"))
    assert room.deliver() == [("pager", "firing", "other|acme/c")]
    room.take(resolved(short))
    assert room.pass_seconds(3590) == []
    assert room.pass_seconds(20) == [("pager", "firing", "failure_burst|acme/b")]


@pytest.mark.parametrize("word", ["false_positive", "benign"])
def test_a_verdict_ends_the_alert_and_keeps_it_quiet(word: str) -> None:
    """Closed: resolved at the target; the same problem is not told again, after a restart
    neither, until it is twice as large or the verdict's time is over."""
    room = Room()
    room.take(finding())
    room.deliver()
    room.take(verdict(finding(), word))
    assert room.deliver() == [("pager", "resolved", EVE)]
    room.restart()
    room.take(finding(start_ns=START_NS + DAY * NS))
    assert room.pass_seconds(3600) == []
    assert room.desk.verdicts[EVE].kept_quiet == 1
    room.take(finding(start_ns=START_NS + 2 * DAY * NS, observed=20.0))
    assert room.deliver() == []
    room.take(finding(start_ns=START_NS + 2 * DAY * NS + NS, observed=21.0))
    assert room.deliver() == [("pager", "firing", EVE)]


def test_a_verdict_does_not_hold_for_ever_nor_for_others() -> None:
    """A week later a false positive is told again; another key always was."""
    room = Room()
    room.take(finding(), verdict(finding(), "false_positive"))
    room.deliver()
    room.take(finding("acme/bob"))
    assert room.deliver() == [("pager", "firing", "failure_burst|acme/bob")]
    room.pass_seconds(7 * DAY + 10)
    assert room.desk.verdicts == {}
    room.take(finding(start_ns=room.now_ns))
    assert room.deliver() == [("pager", "firing", EVE)]


def test_a_true_positive_closes_and_keeps_nothing_quiet() -> None:
    """Handled: resolved; when it happens again, it is told, and an older verdict is void."""
    room = Room()
    room.take(finding(), verdict(finding(), "false_positive"), verdict(finding(), "true_positive"))
    room.deliver()
    room.pass_seconds(3600)
    room.take(finding(start_ns=room.now_ns))
    assert room.deliver() == [("pager", "firing", EVE)]


def test_an_old_finding_is_no_page() -> None:
    """Read two days late, it goes to the digest."""
    room = Room(plan_of(PAGER, CHAT))
    room.now_ns += 2 * DAY * NS
    room.take(finding())
    assert room.deliver() == []
    room.pass_seconds(3601)
    assert room.jobs[0].finding["event"]["reason"] == "Digest: 1 too old to page"
    assert room.jobs[0].target == "chat"


def test_memory_is_bounded_and_what_is_beyond_it_is_counted() -> None:
    """More keys than are remembered: the rest is in the digest."""
    room = Room(plan_of(noise={"max_incidents": 10, "digest_interval_seconds": 60}))
    room.take(*storm(100))
    room.deliver()
    remembered = sum(i.kind == "finding" for i in room.desk.incidents.values())
    assert remembered <= 10
    room.pass_seconds(61)
    (digest,) = [j for j in room.jobs if j.key.startswith("~digest")]
    counted = f"{100 - remembered} beyond what is remembered"
    assert counted in digest.finding["event"]["reason"]


def test_without_targets_nothing_is_owed() -> None:
    """Findings are indexed all the same."""
    plan = plan_of(StubTarget("x"))
    plan.targets = {}
    room = Room(plan)
    room.take(finding())
    assert room.deliver() == []
    assert room.desk.owed == 0
