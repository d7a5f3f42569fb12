"""PagerDuty, Events API v2: trigger, acknowledge, resolve under one dedup_key.

A trigger for a dedup_key that is open updates that alert and calls nobody again.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from gatebook.processors.alerts.base import ACKNOWLEDGED, FIRING, RESOLVED, Finding
from gatebook.processors.alerts.http import HttpRequest, HttpTarget
from gatebook.processors.alerts.options import TargetOptions, check_plain, check_url
from gatebook.processors.alerts.secrets import check_reference, read_secret
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import (
    bounded_key,
    notes_of,
    plain,
    search_link,
    summary_of,
    tenant_of,
)
from gatebook.schemas.documents import timestamp_text

EVENTS_URL = "https://events.pagerduty.com/v2/enqueue"
MAX_KEY_CHARACTERS = 255
MAX_SUMMARY_CHARACTERS = 1024
ACTIONS = {FIRING: "trigger", ACKNOWLEDGED: "acknowledge", RESOLVED: "resolve"}


class PagerDutyOptions(TargetOptions, frozen=True, tag="pagerduty", kw_only=True):
    """A target of type pagerduty."""

    routing_key: str
    """Reference to the integration key: env:NAME or file:/path."""
    url: str = EVENTS_URL
    """Where events go; https://events.eu.pagerduty.com/v2/enqueue in the EU."""
    plaintext_auth: Literal["refuse", "allow"] = "refuse"
    """Whether the integration key may go over plain http."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> PagerDutyTarget:
        """The target."""
        check_url(self.url, settings)
        check_reference("routing_key", self.routing_key)
        check_plain(self.url, self.plaintext_auth)
        return PagerDutyTarget(name, self, settings, **seams)


def event_of(finding: Finding, routing_key: str, settings: AlertSettings) -> dict[str, Any]:
    """The event for one step of a finding."""
    action = ACTIONS[finding["event"].get("action") or FIRING]
    key = finding["gatebook"]["dedup_key"]
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": bounded_key(key, MAX_KEY_CHARACTERS),
    }
    if action == "trigger":
        event |= {"payload": payload_of(finding, settings), "client": "Gatebook"}
        if link := search_link(settings.search_base_url, finding):
            event |= {"client_url": link, "links": [{"href": link, "text": "The events"}]}
    return event


def payload_of(finding: Finding, settings: AlertSettings) -> dict[str, Any]:
    """What a trigger says, in PagerDuty's common event format."""
    gatebook, service = finding["gatebook"], (finding.get("service") or {}).get("name")
    payload = {
        "summary": summary_of(finding, MAX_SUMMARY_CHARACTERS) or "finding",
        "source": plain(gatebook["principal"] or tenant_of(finding), 256) or "gatebook",
        "severity": gatebook["severity"],
        "timestamp": timestamp_text(finding["timestamp"]),
        "component": plain(service, 256),
        "group": plain(gatebook.get("group") or tenant_of(finding), 256),
        "class": plain(finding["rule"]["id"], 256),
        "custom_details": notes_of(finding, settings),
    }
    return {name: value for name, value in payload.items() if value}


class PagerDutyTarget(HttpTarget):
    """Sends findings to one service of PagerDuty."""

    type = "pagerduty"
    calls = True

    def __init__(
        self, name: str, options: PagerDutyOptions, settings: AlertSettings, **seams: Any
    ) -> None:
        super().__init__(name, settings, **seams)
        self._options = options

    def request(self, finding: Finding) -> HttpRequest:
        key = read_secret(self._options.routing_key, self._environment)
        event = event_of(finding, key, self.settings)
        return HttpRequest(self._options.url, orjson.dumps(event), {})
