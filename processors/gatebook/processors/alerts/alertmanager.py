"""Alertmanager, API v2: `POST /api/v2/alerts`.

Labels are an alert's identity: the same dedup key gives the same labels, so that a finding sent
twice is one alert. An alert is active until `endsAt`; while a problem lasts it is sent again, and
it ends by itself where nobody sends it any more.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Literal

import orjson

from gatebook.processors.alerts.base import RESOLVED, Finding
from gatebook.processors.alerts.http import NANOSECONDS, HttpRequest, HttpTarget
from gatebook.processors.alerts.options import TargetOptions, check_plain, check_url
from gatebook.processors.alerts.secrets import check_reference, read_secret
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import (
    dedup_digest,
    notes_of,
    plain,
    search_link,
    tenant_of,
)
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal

MAX_LABEL_CHARACTERS = 256
# A finding whose severity was raised says here what it was: that alert has to end.
PREVIOUS_SEVERITY = "previous_severity"


class AlertmanagerOptions(TargetOptions, frozen=True, tag="alertmanager", kw_only=True):
    """A target of type alertmanager."""

    url: str
    """Base URL of Alertmanager, without /api/v2."""
    bearer_token: str = ""
    """Reference to a bearer token: env:NAME or file:/path."""
    basic_user: str = ""
    """User for basic authentication."""
    basic_password: str = ""
    """Reference to the password for basic authentication."""
    plaintext_auth: Literal["refuse", "allow"] = "refuse"
    """Whether credentials may go over plain http."""

    def check(self, settings: AlertSettings) -> None:
        """Fatal where the options are wrong together or dangerous."""
        check_url(self.url, settings)
        basic = bool(self.basic_user), bool(self.basic_password)
        if basic[0] != basic[1]:
            raise Fatal("basic authentication needs a user and a password", "set both or neither")
        if self.bearer_token and basic[0]:
            raise Fatal("both a bearer token and basic authentication are set", "set one of them")
        for option in ("bearer_token", "basic_password"):
            if reference := getattr(self, option):
                check_reference(option, reference)
        if self.bearer_token or basic[0]:
            check_plain(self.url, self.plaintext_auth)

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> AlertmanagerTarget:
        """The target."""
        self.check(settings)
        return AlertmanagerTarget(name, self, settings, **seams)


def options_from(settings: AlertSettings) -> AlertmanagerOptions:
    """The one Alertmanager that GATEBOOK_ALERTMANAGER_* describe."""
    return AlertmanagerOptions(
        url=settings.alertmanager_url,
        bearer_token=settings.alertmanager_bearer_token,
        basic_user=settings.alertmanager_basic_user,
        basic_password=settings.alertmanager_basic_password,
        plaintext_auth=settings.alertmanager_plaintext_auth,
    )


def alert_name(rule_id: str) -> str:
    """`failure_burst` as GatebookFailureBurst."""
    return "Gatebook" + "".join(part.capitalize() for part in rule_id.split("_"))


def labels_of(finding: Finding) -> dict[str, str]:
    """What makes the alert this alert; nothing in it changes while a problem lasts, but for the
    service, by which alerts are routed, and for a severity that is raised."""
    gatebook, rule = finding["gatebook"], finding["rule"]
    labels = {
        "alertname": alert_name(rule["id"]),
        "rule_id": rule["id"],
        "severity": gatebook["severity"],
        "principal": gatebook["principal"],
        "organization": tenant_of(finding),
        "service": (finding.get("service") or {}).get("name"),
        "team": gatebook.get("team"),
        "dedup": dedup_digest(gatebook["dedup_key"]),
        "source": "gatebook",
    }
    return {n: text for n, v in labels.items() if (text := plain(v, MAX_LABEL_CHARACTERS))}


def alert_of(finding: Finding, settings: AlertSettings, now_ns: int) -> dict[str, Any]:
    """One PostableAlert. A firing alert ends `alert_active_seconds` from now unless it is sent
    again; a resolved one has ended."""
    event = finding["event"]
    active_ns = round(settings.alert_active_seconds * NANOSECONDS)
    ends_ns = now_ns if event.get("action") == RESOLVED else now_ns + active_ns
    starts_ns = min(event.get("start") or finding["timestamp"] or now_ns, now_ns)
    alert: dict[str, Any] = {
        "labels": labels_of(finding),
        "annotations": notes_of(finding, settings),
        "startsAt": timestamp_text(starts_ns),
        "endsAt": timestamp_text(ends_ns),
    }
    if link := search_link(settings.search_base_url, finding):
        alert["generatorURL"] = link
    return alert


def alerts_of(finding: Finding, settings: AlertSettings, now_ns: int) -> list[dict[str, Any]]:
    """The alert, and the end of the one that had the severity of before."""
    alert = alert_of(finding, settings, now_ns)
    before = (finding.get("labels") or {}).get(PREVIOUS_SEVERITY)
    if not before or before == alert["labels"]["severity"]:
        return [alert]
    labels = {**alert["labels"], "severity": before}
    return [{**alert, "labels": labels, "endsAt": timestamp_text(now_ns)}, alert]


class AlertmanagerTarget(HttpTarget):
    """Sends findings to one Alertmanager."""

    type = "alertmanager"
    resends = True

    def __init__(
        self, name: str, options: AlertmanagerOptions, settings: AlertSettings, **seams: Any
    ) -> None:
        super().__init__(name, settings, **seams)
        self._options = options
        self._url = options.url.rstrip("/") + "/api/v2/alerts"

    def request(self, finding: Finding) -> HttpRequest:
        body = orjson.dumps(alerts_of(finding, self.settings, self._now_ns()))
        return HttpRequest(self._url, body, self._authorization())

    def _authorization(self) -> dict[str, str]:
        options = self._options
        if options.bearer_token:
            token = read_secret(options.bearer_token, self._environment)
            return {"Authorization": f"Bearer {token}"}
        if options.basic_user:
            password = read_secret(options.basic_password, self._environment)
            pair = f"{options.basic_user}:{password}".encode()
            return {"Authorization": "Basic " + b64encode(pair).decode("ascii")}
        return {}
