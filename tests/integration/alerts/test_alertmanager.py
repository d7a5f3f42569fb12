"""Findings become alerts in a real Alertmanager: labels, grouping, resolution, webhook."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.alerts.conftest import (
    Alertmanager,
    WebhookReceiver,
    get_json,
    post_status,
)
from tests.unit.alerts.findings import finding, resolved
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import AlertReceiver, parse_rfc3339, problems_of
from gatebook.processors.alerts.alertmanager import alert_of, labels_of, options_from
from gatebook.processors.alerts.settings import AlertSettings

NS = 1_000_000_000


def settings_for(url: str) -> AlertSettings:
    return AlertSettings(
        alertmanager_url=url,
        alert_allow_private=True,
        search_base_url="https://search.example.org/?q={query}",
    )


def fresh(principal: str = "acme/eve") -> dict[str, Any]:
    """A finding of a moment ago."""
    return finding(principal, time.time_ns() - 60 * NS)


async def deliver(url: str, *findings: dict[str, Any]) -> None:
    settings = settings_for(url)
    target = options_from(settings).build("oncall", settings)
    for one in findings:
        assert (await target.deliver(one)).outcome == "success"
    await target.close()


def active(url: str) -> list[dict[str, Any]]:
    shown = get_json(url + "/api/v2/alerts?active=true")
    assert isinstance(shown, list)
    return shown


async def test_an_alert_is_visible_with_its_labels(alertmanager: Alertmanager) -> None:
    """GET /api/v2/alerts shows the finding: identity, summary, link, and when it will end."""
    before_ns = time.time_ns()
    burst = fresh()
    await deliver(alertmanager.url, burst)
    (alert,) = wait_until("the alert is active", lambda: active(alertmanager.url), 20)
    assert alert["labels"] == labels_of(burst)
    assert alert["annotations"]["summary"] == "acme/eve: 10 accesses failed within 60 s"
    assert alert["annotations"]["finding_id"] == burst["event"]["id"]
    assert alert["generatorURL"].startswith("https://search.example.org/?q=gatebook.principal%3A")
    ends_in = parse_rfc3339(alert["endsAt"]).timestamp() - before_ns / NS
    assert 590 < ends_in < 620


async def test_the_same_finding_twice_is_one_alert(alertmanager: Alertmanager) -> None:
    """Delivered again after a crash, it is not a second alert."""
    burst = fresh()
    await deliver(alertmanager.url, burst, burst)
    assert len(wait_until("active", lambda: active(alertmanager.url), 20)) == 1


async def test_alerts_of_one_rule_are_grouped(alertmanager: Alertmanager) -> None:
    """Ten principals with the same trouble are one group of ten alerts, one page for on-call."""
    await deliver(alertmanager.url, *[fresh(f"acme/u{n}") for n in range(10)])

    def whole_group() -> list[dict[str, Any]]:
        groups = get_json(alertmanager.url + "/api/v2/alerts/groups")
        return [group for group in groups if len(group["alerts"]) == 10]

    (group,) = wait_until("one group of ten", whole_group, 20)
    assert group["labels"]["alertname"] == "GatebookFailureBurst"
    wait_until("a page with all ten", page_with(alertmanager.webhook, "firing", 10), 20)


def page_with(webhook: WebhookReceiver, status: str, alerts: int) -> Callable[[], bool]:
    def arrived() -> bool:
        return any(
            len([a for a in page["alerts"] if a["status"] == status]) == alerts
            for page in webhook.notifications
        )

    return arrived


async def test_the_page_goes_out_by_webhook(alertmanager: Alertmanager) -> None:
    """What Alertmanager sends on carries our labels and annotations."""
    burst = fresh()
    await deliver(alertmanager.url, burst)
    wait_until("a page", page_with(alertmanager.webhook, "firing", 1), 20)
    (alert,) = alertmanager.webhook.notifications[0]["alerts"]
    assert alert["labels"] == labels_of(burst)
    assert alert["annotations"]["query"] == burst["gatebook"]["search"]


async def test_a_resolved_finding_ends_the_alert(alertmanager: Alertmanager) -> None:
    """Firing, then resolved: the alert is no longer active."""
    burst = fresh()
    await deliver(alertmanager.url, burst)
    wait_until("active", lambda: active(alertmanager.url), 20)
    await deliver(alertmanager.url, resolved(burst))
    wait_until("no longer active", lambda: not active(alertmanager.url), 20)


def good() -> dict[str, Any]:
    return alert_of(fresh(), settings_for("https://alerts.example.org"), time.time_ns())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"labels": {}},
        {"labels": {"a": ""}},
        {"labels": {"rule-id": "x"}},
        {"labels": {"a": 5}},
        {"labels": None},
        {"annotations": {"a.b": "x"}},
        {"startsAt": "yesterday"},
        {"endsAt": "2020-01-01T00:00:00Z"},
        {"generatorURL": "not a link"},
    ],
)
def test_the_stand_in_judges_as_the_real_one(
    changed: dict[str, Any], alertmanager: Alertmanager
) -> None:
    """What one takes the other takes, and what one refuses the other refuses: so the contract
    tests, which use the stand-in, mean something."""
    body = json.dumps([{**good(), **changed}]).encode()
    status = post_status(alertmanager.url + "/api/v2/alerts", body)
    assert (status == 200) == (problems_of(body) == [])
    assert status == 200 or 400 <= status < 500


def test_the_stand_in_is_stricter_where_nobody_looks() -> None:
    """A misspelt property is ignored by the real one; the stand-in tells."""
    with AlertReceiver() as receiver:
        body = json.dumps([{**good(), "endAt": "2999-01-01T00:00:00Z"}]).encode()
        assert post_status(receiver.url + "/api/v2/alerts", body) == 400
