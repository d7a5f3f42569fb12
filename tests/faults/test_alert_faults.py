"""Alerts when targets, workers and brokers fail: nothing lost, nothing paged twice."""

from __future__ import annotations

import random
import signal
import time

import pytest
from tests.contracts.alert_receivers import (
    AlertmanagerReceiver,
    PagerDutyReceiver,
    WebhookReceiver,
)
from tests.faults.alert_pipeline import AlertPipeline, now_finding, pagerduty, webhook
from tests.pipeline import KILL, TERM, Pipeline
from tests.unit.alerts.findings import resolved
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import Answer
from gatebook.engines.processes import free_ports

MANY = "[noise]\ngroup_size = 100000\n"
WIDE = '[teams.all]\nrule = "*"\npage_budget = 1000000\n'


def test_killed_between_send_and_commit_again_and_again(pipeline: Pipeline) -> None:
    """A hundred problems and their ends, the worker killed ten times amid its deliveries: every
    problem opened once and closed once, at a target that answers slowly and at one that
    remembers ids."""
    found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(100)]
    with PagerDutyReceiver() as pager, WebhookReceiver() as hook:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), webhook(hook.url), MANY, WIDE)
        (worker,) = alerts.start()
        dice = random.Random(6)
        for turn in range(10):
            part = found[turn * 10 : turn * 10 + 10]
            # The last few are kept by the target, but their answers come too late for the worker.
            pager.answer_next_with(*[Answer(202, delay_seconds=0.4, keep=True)] * 3)
            alerts.send(part)
            before = pager.requests
            wait_until("deliveries under way", lambda n=before: pager.requests > n, 60)
            wait_until("a moment later", lambda: dice.random() < 0.3)
            pipeline.kill(worker, KILL)
            (worker,) = alerts.start()
        wait_until("all opened", lambda: len(pager.open_keys) == len(hook.open_keys) == 100, 90)
        alerts.send([resolved(one) for one in found])
        wait_until("all closed", lambda: not pager.open_keys and not hook.open_keys, 90)
        assert (pager.opened, hook.opened) == (100, 100)
        assert (pager.refused, hook.refused) == ([], [])
        wait_until("all recorded", lambda: len(alerts.records()) >= 400, 60)
    outcomes = {(r["gatebook"]["target"], r["event"]["action"]) for r in alerts.records()}
    assert len(outcomes) == 4


def test_targets_that_are_away_stop_no_other_and_are_told_when_they_come_back(
    pipeline: Pipeline,
) -> None:
    """The pager refuses connections; the webhook is told within a second all the same. The
    worker is killed meanwhile, the pager comes back: it is told once, from start to end."""
    (port,) = free_ports(1)
    pager = PagerDutyReceiver(port=port)
    with WebhookReceiver() as hook:
        tables = (pagerduty(f"http://127.0.0.1:{port}"), webhook(hook.url))
        alerts = AlertPipeline(pipeline, *tables)
        (worker,) = alerts.start()
        pipeline.wait_members("notify", 1)
        one, two = now_finding("acme/a", incident="a"), now_finding("acme/b", incident="b")
        alerts.send([one, two])
        wait_until("the webhook is told", lambda: len(hook.open_keys) == 2, 30)
        wait_until("its failure is recorded", lambda: len(alerts.records()) >= 4, 30)
        pipeline.kill(worker, KILL)
        alerts.send([resolved(one)])
        (worker,) = alerts.start()
        wait_until("one ended", lambda: len(hook.open_keys) == 1, 60)
        with pager:
            wait_until("the pager knows", lambda: len(pager.open_keys) == 1, 60)
            wait_until("both told", lambda: pager.opened == 2, 60)
            assert (hook.opened, pager.opened) == (2, 2)
            wait_until("recorded", lambda: len(alerts.records()) >= 8, 60)
    failed = [r for r in alerts.records() if r["event"]["outcome"] == "failure"]
    assert {r["event"]["reason"] for r in failed} == {"unreachable"}


@pytest.mark.parametrize("kept", [False, True], ids=["failed", "failed but persisted"])
def test_each_failure_of_a_target_ends_in_one_page(kept: bool, pipeline: Pipeline) -> None:
    """429 with Retry-After, 500, 503, no answer in time, for many steps on end, each also where
    the target took it all the same: one page each, closed in the end."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), MANY, WIDE)
        alerts.start()
        pager.answer_next_with(
            *[
                Answer(status, headers, delay_seconds=delay, keep=kept)
                for status, headers, delay in (
                    (429, {"Retry-After": "1"}, 0.0),
                    (500, {}, 0.0),
                    (503, {}, 0.0),
                    (202, {}, 1.5),
                )
                for _ in range(6)
            ]
        )
        found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(12)]
        alerts.send(found)
        wait_until("all opened", lambda: len(pager.open_keys) == 12, 90)
        alerts.send([resolved(one) for one in found])
        wait_until("all closed", lambda: not pager.open_keys, 60)
        assert pager.opened == 12
        assert pager.refused == []


def test_two_workers_take_over_from_each_other(pipeline: Pipeline) -> None:
    """One worker, a second joins, the first leaves in good order, another joins: what was open
    stays open, is sent again by whoever holds it, and is closed once."""
    with PagerDutyReceiver() as pager, AlertmanagerReceiver() as manager:
        alerts = AlertPipeline(
            pipeline,
            pagerduty(pager.url),
            MANY,
            WIDE,
            GATEBOOK_ALERTMANAGER_URL=manager.url,
            GATEBOOK_ALERT_RESEND_SECONDS="1",
        )
        (first,) = alerts.start()
        found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(40)]
        alerts.send(found[:20])
        wait_until("opened", lambda: pager.opened == 20, 60)
        alerts.start()
        pipeline.wait_members("notify", 2)
        alerts.send(found[20:])
        wait_until("all opened", lambda: pager.opened == 40, 60)
        assert pipeline.kill(first, TERM) == 0
        alerts.start()
        pipeline.wait_members("notify", 2)
        sent = len(manager.received)
        wait_until("all sent again", lambda: len(manager.received) >= sent + 80, 60)
        assert len(manager.active) == 40
        alerts.send([resolved(one) for one in found])
        wait_until("closed", lambda: not pager.open_keys and not manager.active, 60)
        assert pager.opened == 40
        assert (pager.refused, manager.refused) == ([], [])


def test_a_worker_that_stood_still_tells_nothing_that_is_no_longer_true(
    pipeline: Pipeline,
) -> None:
    """A worker is stopped with alerts open, another takes over and ends them; the first goes on:
    it opens nothing again, and goes on as a member of the group."""
    with PagerDutyReceiver() as pager, AlertmanagerReceiver() as manager:
        alerts = AlertPipeline(
            pipeline,
            pagerduty(pager.url),
            MANY,
            WIDE,
            GATEBOOK_ALERTMANAGER_URL=manager.url,
            GATEBOOK_ALERT_RESEND_SECONDS="1",
        )
        (first,) = alerts.start()
        found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(10)]
        alerts.send(found)
        wait_until("opened", lambda: pager.opened == 10 and len(manager.active) == 10, 60)
        first.send_signal(signal.SIGSTOP)
        alerts.start()
        pipeline.wait_members("notify", 1)
        alerts.send([resolved(one) for one in found])
        wait_until("closed", lambda: not pager.open_keys and not manager.active, 60)
        told = pager.requests, len(manager.received)
        first.send_signal(signal.SIGCONT)
        pipeline.wait_members("notify", 2)
        assert (pager.requests, len(manager.received)) == told
        alerts.send([now_finding(f"acme/v{n}", incident=f"v{n}") for n in range(10)])
        # A consumer that stalls after its return is ended by its watchdog; the other goes on.
        wait_until("all told", lambda: pager.opened == 20, 150)
        assert len(manager.active) == 10


def test_a_storm_of_ten_thousand_keys(pipeline: Pipeline) -> None:
    """Ten thousand principals at once: a dozen pages, all findings counted in them, and the
    worker killed amid it; when it is over, everything is closed."""
    with PagerDutyReceiver() as pager:
        noise = "[noise]\ngroup_update_seconds = 1\n"
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), noise)
        (worker,) = alerts.start()
        found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(10_000)]
        alerts.send(found[:5_000])
        wait_until("pages", lambda: pager.opened >= 12, 60)
        pipeline.kill(worker, KILL)
        alerts.send(found[5_000:])
        alerts.start()

        def counted() -> int:
            groups = {
                event["dedup_key"]: int(event["payload"]["custom_details"]["observed"])
                for event in pager.kept
                if event["event_action"] == "trigger" and "~group" in event["dedup_key"]
            }
            return sum(groups.values())

        wait_until("all counted", lambda: counted() == 9_990, 120)
        assert pager.opened == 12
        alerts.send([resolved(one) for one in found])
        wait_until("all closed", lambda: not pager.open_keys, 120)
        assert pager.opened == 12
        assert pager.refused == []


def test_the_broker_dies_while_alerts_are_delivered(pipeline: Pipeline) -> None:
    """Kafka is killed and comes back: the worker lives, and what is open is closed once."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), MANY, WIDE)
        (worker,) = alerts.start()
        found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(30)]
        alerts.send(found)
        wait_until("the first pages", lambda: pager.opened >= 1, 60)
        pipeline.engines.kill_kafka()
        pipeline.engines.start_kafka()
        wait_until("all opened", lambda: pager.opened == 30, 90)
        alerts.send([resolved(one) for one in found])
        wait_until("all closed", lambda: not pager.open_keys, 90)
        assert pager.opened == 30
        assert worker.poll() is None


def test_an_alert_is_at_its_target_within_a_second(pipeline: Pipeline) -> None:
    """From the finding in Kafka to the target, for all but the slowest few of a hundred findings
    one after the other; and for two hundred at once, which are printed alone."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), MANY, WIDE)
        alerts.start()
        alerts.send([now_finding("acme/warm")])
        wait_until("warm", lambda: pager.opened == 1, 60)
        calm = sent_and_told(alerts, pager, "calm", 100, at_once=False)
        burst = sent_and_told(alerts, pager, "burst", 200, at_once=True)
    for name, took in (("one by one", calm), ("at once", burst)):
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        print(f"finding to target, {name}: p50 {p50:.3f} s, p99 {p99:.3f} s")
    assert calm[len(calm) * 95 // 100] < 1.0


def sent_and_told(
    alerts: AlertPipeline, pager: PagerDutyReceiver, name: str, count: int, at_once: bool
) -> list[float]:
    """Seconds from each finding to its page, sorted."""
    before, sent = pager.opened, {}
    for number in range(count):
        one = now_finding(f"acme/{name}{number}", incident=f"{name}{number}")
        sent[one["gatebook"]["dedup_key"]] = time.time()
        alerts.send([one])
        if not at_once:
            wait_until("told", lambda n=number: pager.opened > before + n, 60)
    wait_until("all told", lambda: pager.opened == before + count, 60)
    keys = [event["dedup_key"] for event in pager.kept]
    pairs = zip(keys, pager.times, strict=True)
    return sorted(at - sent[key] for key, at in pairs if key in sent)
