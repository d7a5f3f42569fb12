"""The notify worker with real Kafka, Elasticsearch and Alertmanager; and what people say back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.contracts.alert_receivers import PagerDutyReceiver, schema_problems
from tests.faults.alert_pipeline import AlertPipeline, now_finding, pagerduty
from tests.integration.alerts.conftest import Alertmanager, get_json
from tests.pipeline import KILL, Pipeline
from tests.unit.alerts.findings import resolved, step
from tests.waiting import wait_until

from gatebook.processors.alerts.kafka import KafkaOptions
from gatebook.processors.alerts.settings import AlertSettings


def gatebook(alerts: AlertPipeline, *arguments: str) -> tuple[int, Any]:
    """Run a command with --json where that is said; its exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", *arguments],
        env=alerts.pipeline.environment(**alerts.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    output = json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr
    return done.returncode, output


def active(url: str) -> list[dict[str, Any]]:
    found = get_json(url + "/api/v2/alerts?active=true")
    assert isinstance(found, list)
    return found


def test_a_real_alertmanager_groups_keeps_and_resolves(
    alertmanager: Alertmanager, pipeline: Pipeline
) -> None:
    """Four problems of one rule are one notification by its webhook; they stay active because
    they are sent again, over the death of the worker too; their ends resolve them there."""
    alerts = AlertPipeline(
        pipeline,
        GATEBOOK_ALERTMANAGER_URL=alertmanager.url,
        GATEBOOK_ALERT_RESEND_SECONDS="2",
        GATEBOOK_ALERT_ACTIVE_SECONDS="60",
    )
    (worker,) = alerts.start()
    found = [now_finding(f"acme/u{n}", incident=f"i{n}") for n in range(4)]
    alerts.send(found)
    wait_until("four active", lambda: len(active(alertmanager.url)) == 4, 60)

    def ends() -> list[str]:
        return sorted(alert["endsAt"] for alert in active(alertmanager.url))

    first = ends()
    pipeline.kill(worker, KILL)
    alerts.start()
    wait_until("sent again by the next worker", lambda: ends()[0] > first[-1], 60)
    pages = alertmanager.webhook.notifications
    wait_until("one page with four", lambda: any(len(p["alerts"]) == 4 for p in pages), 30)
    alerts.send([resolved(one) for one in found])
    wait_until("none active", lambda: not active(alertmanager.url), 60)
    if alertmanager.kind == "alertmanager":
        wait_until("told so", lambda: any(p["status"] == "resolved" for p in pages), 30)
    for record in alerts.records():
        assert record["event"]["outcome"] == "success"


def test_a_persons_word_reaches_the_target_the_index_and_the_next_alert(
    pipeline: Pipeline,
) -> None:
    """Acknowledged, then closed as a false positive: PagerDuty hears both, the index shows who
    said why, and the same problem is not told again, though the worker was killed meanwhile."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url))
        pipeline.start("index")
        (worker,) = alerts.start()
        one, other = now_finding("acme/eve", incident="i1"), now_finding("acme/bob", incident="i2")
        alerts.send([one, other])
        pipeline.wait_indexed(2, "finding")
        wait_until("both told", lambda: pager.opened == 2, 60)
        pipeline.wait_indexed(2, "alert")  # a delivery fires, too, and is no finding
        assert gatebook(alerts, "finding", "ack", one["event"]["id"])[0] == 0
        wait_until("acknowledged", lambda: len(pager.acknowledged) == 1, 30)
        code, said = gatebook(
            alerts, "finding", "close", "i1", "--verdict", "false_positive", "--reason", "a test",
            "--by", "ann",
        )  # fmt: skip
        assert (code, said) == (0, "closed as false_positive\n")
        wait_until("closed there", lambda: len(pager.open_keys) == 1, 30)
        pipeline.kill(worker, KILL)
        alerts.start()
        alerts.send([now_finding("acme/eve", incident="i3"), now_finding("acme/new")])
        wait_until("the new one told", lambda: len(pager.open_keys) == 2, 60)
        assert pager.opened == 3
        pipeline.wait_indexed(6, "finding")
        code, listed = gatebook(alerts, "finding", "list", "--state", "all", "--json")
        assert code == 0
        states = {p["finding"]["gatebook"].get("incident"): p for p in listed["problems"]}
        assert states["i1"]["state"] == "closed"
        assert (states["i1"]["verdict"], states["i1"]["by"]) == ("false_positive", "ann")
        assert states["i1"]["reason"] == "a test"
        assert states["i2"]["state"] == "firing"
        assert listed["verdicts"] == {"failure_burst": {"false_positive": 1}}
        code, shown = gatebook(alerts, "alerts", "list", "--json")
        assert code == 0
        made = {row["principal"]: row["made"] for row in shown["problems"]}
        assert made == {"acme/eve": "verdict", "acme/bob": "page", "acme/new": "page"}
        assert shown["quiet"][0]["kept"] == 1
        assert "failure_burst: 1 false_positive" in gatebook(alerts, "finding", "list")[1]
        rules = gatebook(alerts, "rules", "list", "--verdicts", "--json")[1]
        assert {r["id"]: r["verdicts"] for r in rules if r["verdicts"]} == listed["verdicts"]
        for asked in ("i1", one["event"]["id"]):
            documents = gatebook(alerts, "finding", "show", asked, "--json")[1]
            actions = [document["event"]["action"] for document in documents]
            assert actions[:3] == ["firing", "acknowledged", "closed"]
            for word in documents[1:3]:
                assert word["labels"]["finding_id"] == one["event"]["id"]
            shown = gatebook(alerts, "finding", "show", asked)[1]
            assert "acknowledged" in shown
            assert "false_positive" in shown
            assert "a test" in shown
        assert gatebook(alerts, "finding", "close", "nope", "--verdict", "benign")[0] == 1
        again = ("finding", "close", one["event"]["id"], "--verdict", "benign")
        assert gatebook(alerts, *again)[0] == 2  # somebody else's word is not replaced unsaid
        assert gatebook(alerts, *again, "--reason", "asked bob") == (
            0,
            "closed as benign, replaces false_positive by ann\n",
        )


def test_alerts_test_says_what_came_back(pipeline: Pipeline) -> None:
    """The test alert is opened and closed at the target; a target that refuses, or that is not
    there, is told with its reason and an exit code."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url))
        assert "pager" in gatebook(alerts, "alerts", "test")[1]
        code, said = gatebook(alerts, "alerts", "test", "pager")
        assert code == 0
        assert "firing   accepted, status 202" in said
        assert "resolved accepted, status 202" in said
        assert (pager.opened, pager.open_keys, pager.refused) == (1, set(), [])
        alerts.environment["TEST_ROUTING_KEY"] = "f" * 32
        code, said = gatebook(alerts, "alerts", "test", "pager")
        assert code == 1
        assert "failed: rejected, status 400" in said
        alerts.environment["TEST_ROUTING_KEY"] = ""
        said = gatebook(alerts, "alerts", "test", "pager")[1]
        assert "failed: secret_unreadable, env:TEST_ROUTING_KEY is missing" in said
    alerts.environment["TEST_ROUTING_KEY"] = "f" * 32
    started = time.monotonic()
    code, said = gatebook(alerts, "alerts", "test", "pager", "--timeout-seconds", "2")
    assert time.monotonic() - started < 20
    assert code == 1
    assert "firing   attempt 1 failed: unreachable" in said
    assert "firing   failed: unreachable" in said
    assert "resolved" not in said
    assert gatebook(alerts, "alerts", "test", "nobody")[0] == 2


async def test_a_topic_takes_findings_as_cloudevents(pipeline: Pipeline) -> None:
    """Each step is a valid CloudEvent under the dedup key, in order; the same step has the same
    id; a topic that is not there is a failed delivery."""
    bootstrap = pipeline.engines.kafka_bootstrap
    topic = f"{pipeline.namespace}.oncall"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    settings = AlertSettings(alert_deadline_seconds=10.0)
    properties = {"bootstrap.servers": bootstrap, "log_level": 0}
    target = KafkaOptions(topic=topic).build("bus", settings, kafka=properties)
    first = now_finding("acme/eve", incident="i1")
    for sent in (first, first, step(first, "acknowledged"), resolved(first)):
        delivery = await target.deliver(sent)
        assert (delivery.outcome, delivery.reason) == ("success", "")
    await target.close()
    messages = pipeline.read(topic)
    events = [json.loads(message.value()) for message in messages]
    assert [schema_problems("cloudevent", event) for event in events] == [[]] * 4
    assert [event["type"].rpartition(".")[2] for event in events] == [
        "firing",
        "firing",
        "acknowledged",
        "resolved",
    ]
    assert len({event["id"] for event in events}) == 3
    assert {message.key() for message in messages} == {b"failure_burst|acme/eve"}
    absent = KafkaOptions(topic=f"{topic}-absent").build(
        "bus", AlertSettings(alert_deadline_seconds=3.0), kafka=properties
    )
    delivery = await absent.deliver(first)
    assert delivery.outcome == "failure"
    assert (await target.deliver({})).reason == "unusable_finding"
