"""What an alert says, and what makes two findings one alert."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from tests.unit.alerts.findings import START_NS, finding, resolved

from gatebook.cli.demo.alert_receiver import parse_rfc3339
from gatebook.processors.alerts.alertmanager import alert_of, alerts_of, labels_of
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import search_link

NS = 1_000_000_000
NOW_NS = START_NS + 100 * NS
SETTINGS = AlertSettings(
    search_base_url="https://search.example.org/app?q={query}&from={start}&to={end}",
    runbook_url="https://wiki.example.org/runbooks/",
)


def test_an_alert_carries_what_on_call_needs() -> None:
    """Who, what, how bad, where to look and what to do; evidence ids, no content."""
    alert = alert_of(finding(), SETTINGS, NOW_NS)
    notes = alert["annotations"]
    assert alert["labels"] | {"dedup": ""} == {
        "alertname": "GatebookFailureBurst",
        "rule_id": "failure_burst",
        "severity": "error",
        "principal": "acme/eve",
        "service": "chat",
        "source": "gatebook",
        "dedup": "",
    }
    assert notes["summary"] == "acme/eve: 10 accesses failed within 60 s"
    assert notes["runbook"].startswith("https://wiki.example.org/runbooks/gatebook/")
    assert len(notes["evidence"].split()) == 10
    assert alert["startsAt"] == "2026-01-05T09:00:00.000000000Z"
    assert alert["endsAt"] == "2026-01-05T09:11:40.000000000Z"


def test_the_search_link_leads_to_the_events() -> None:
    """The query, percent-encoded, with the times of the window."""
    link = alert_of(finding('a" b&c#d'), SETTINGS, NOW_NS)["generatorURL"]
    values = parse_qs(urlsplit(link).query)
    assert values["q"] == ['gatebook.principal:"a\\" b&c#d" and event.outcome:failure']
    assert values["from"] == ["2026-01-05T09:00:00.000Z"]


@pytest.mark.parametrize(
    ("template", "start"),
    [
        ("https://s.example.org/app", "https://s.example.org/app?query=gatebook"),
        ("https://s.example.org/app?a=b", "https://s.example.org/app?a=b&query=gatebook"),
        ("", ""),
    ],
)
def test_a_link_without_placeholder_gets_the_query(template: str, start: str) -> None:
    """A plain base URL works too; none gives no link."""
    link = search_link(template, finding())
    assert link.startswith(start)
    assert bool(link) == bool(template)


def test_the_same_problem_has_the_same_labels() -> None:
    """A second burst of the principal an hour later is the same alert; another principal's is
    another."""
    later = finding(start_ns=START_NS + 3600 * NS)
    assert labels_of(later) == labels_of(finding())
    assert labels_of(finding("acme/bob")) != labels_of(finding())


def test_principals_that_look_alike_stay_apart() -> None:
    """What cannot be shown is replaced in the label, and told apart by the digest."""
    one, two = labels_of(finding("acme/\x1b")), labels_of(finding("acme/\u202e"))
    assert one["principal"] == two["principal"] == "acme/?"
    assert one["dedup"] != two["dedup"]


def test_a_resolved_finding_ends_the_alert() -> None:
    """Same labels, ended now."""
    alert = alert_of(resolved(finding()), SETTINGS, NOW_NS)
    assert alert["labels"] == labels_of(finding())
    assert alert["endsAt"] == "2026-01-05T09:01:40.000000000Z"


def test_an_alert_never_ends_before_it_starts() -> None:
    """A finding whose clock is ahead of ours starts now."""
    alert = alert_of(resolved(finding()), SETTINGS, START_NS - 3600 * NS)
    assert parse_rfc3339(alert["startsAt"]) <= parse_rfc3339(alert["endsAt"])


def test_the_time_until_it_resolves_is_a_setting() -> None:
    """An alert that is not sent again ends after alert_active_seconds."""
    short = msgspec.structs.replace(SETTINGS, alert_active_seconds=300.0)
    assert alert_of(finding(), short, NOW_NS)["endsAt"] == "2026-01-05T09:06:40.000000000Z"


def test_a_raised_severity_ends_the_alert_of_before() -> None:
    """The severity is a label, by which alerts are routed: one alert ends, the other begins."""
    raised = finding(severity="critical")
    raised["labels"] = {"previous_severity": "error"}
    before, now = alerts_of(raised, SETTINGS, NOW_NS)
    assert before["labels"] == labels_of(finding())
    assert before["endsAt"] == "2026-01-05T09:01:40.000000000Z"
    assert now["labels"] == labels_of(raised)
    assert now["endsAt"] > before["endsAt"]
