"""Opsgenie's Alert API, which Jira Service Management speaks under another address.

The alias is the dedup key: a second alert with the alias of an open one counts there, and calls
nobody again.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from gatebook.processors.alerts.base import ACKNOWLEDGED, FIRING, RESOLVED, Finding
from gatebook.processors.alerts.http import HttpRequest, HttpTarget
from gatebook.processors.alerts.options import TargetOptions, check_plain, check_url
from gatebook.processors.alerts.secrets import check_reference, read_secret
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import dedup_digest, notes_of, plain, summary_of

OPSGENIE_URL = "https://api.opsgenie.com"
JSM_URL = "https://api.atlassian.com/jsm/ops/integration"
PRIORITIES = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P5"}
MAX_MESSAGE_CHARACTERS = 130
MAX_ENTITY_CHARACTERS = 512
MAX_DETAIL_CHARACTERS = 7000
MAX_TAG_CHARACTERS = 50
STEPS = {FIRING: "", ACKNOWLEDGED: "/acknowledge", RESOLVED: "/close"}


class OpsgenieOptions(TargetOptions, frozen=True, tag="opsgenie", kw_only=True):
    """A target of type opsgenie."""

    api_key: str
    """Reference to the key of an API integration: env:NAME or file:/path."""
    url: str = OPSGENIE_URL
    """Base URL, without /v2; https://api.eu.opsgenie.com in the EU."""
    teams: tuple[str, ...] = ()
    """Names of teams that respond; empty: the integration's own."""
    plaintext_auth: Literal["refuse", "allow"] = "refuse"
    """Whether the key may go over plain http."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> OpsgenieTarget:
        """The target."""
        check_url(self.url, settings)
        check_reference("api_key", self.api_key)
        check_plain(self.url, self.plaintext_auth)
        return OpsgenieTarget(name, self, settings, **seams)


class JsmOptions(OpsgenieOptions, frozen=True, tag="jsm", kw_only=True):
    """A target of type jsm: Jira Service Management, alerts of its operations part."""

    url: str = JSM_URL
    """Base URL, without /v2."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> OpsgenieTarget:
        """The target."""
        target = super().build(name, settings, **seams)
        target.type = "jsm"
        return target


def alias_of(finding: Finding) -> str:
    """The dedup key as an alias that can stand in a path."""
    return f"gatebook-{dedup_digest(finding['gatebook']['dedup_key'])}"


def alert_of(finding: Finding, settings: AlertSettings, teams: tuple[str, ...]) -> dict[str, Any]:
    """What opens an alert."""
    gatebook, rule = finding["gatebook"], finding["rule"]
    notes = {**notes_of(finding, settings), "dedup_key": plain(gatebook["dedup_key"])}
    tags = ["gatebook", rule["id"], gatebook["severity"], gatebook.get("team") or ""]
    alert = {
        "message": summary_of(finding, MAX_MESSAGE_CHARACTERS) or "finding",
        "alias": alias_of(finding),
        "description": "\n".join(f"{name}: {text}" for name, text in notes.items())[:15000],
        "details": _bounded(notes, MAX_DETAIL_CHARACTERS),
        "tags": [tag for tag in (plain(t, MAX_TAG_CHARACTERS) for t in tags) if tag],
        "entity": plain(gatebook["principal"], MAX_ENTITY_CHARACTERS),
        "source": "gatebook",
        "priority": PRIORITIES[gatebook["severity"]],
        "responders": [{"name": team, "type": "team"} for team in teams],
    }
    return {name: value for name, value in alert.items() if value}


def _bounded(notes: dict[str, str], limit: int) -> dict[str, str]:
    """As many notes as fit, whole ones."""
    kept, left = {}, limit
    for name, text in notes.items():
        left -= len(name) + len(text)
        if left >= 0:
            kept[name] = text
    return kept


class OpsgenieTarget(HttpTarget):
    """Sends findings to one API integration."""

    type = "opsgenie"
    calls = True

    def __init__(
        self, name: str, options: OpsgenieOptions, settings: AlertSettings, **seams: Any
    ) -> None:
        super().__init__(name, settings, **seams)
        self._options = options
        self._url = options.url.rstrip("/") + "/v2/alerts"

    def request(self, finding: Finding) -> HttpRequest:
        step = STEPS[finding["event"].get("action") or FIRING]
        if step:
            url = f"{self._url}/{alias_of(finding)}{step}?identifierType=alias"
            body = {"user": "gatebook", "source": "gatebook", "note": summary_of(finding)}
        else:
            url, body = self._url, alert_of(finding, self.settings, self._options.teams)
        key = read_secret(self._options.api_key, self._environment)
        # The query is ours, not an operator's.
        headers = {"Authorization": f"GenieKey {key}"}
        return HttpRequest(url, orjson.dumps(body), headers, allow_query=True)
