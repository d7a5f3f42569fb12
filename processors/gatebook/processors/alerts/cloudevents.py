"""Findings as CloudEvents 1.0, signed as Standard Webhooks has it.

The id of an event is the same each time the same step of the same finding is sent: a receiver
that keeps the ids it has seen sees each step once. The signature covers id, time and body;
`verify` is for receivers, and refuses what is older than five minutes.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import orjson

from gatebook.processors.alerts.base import FIRING, Finding
from gatebook.processors.alerts.http import NANOSECONDS, HttpRequest, HttpTarget
from gatebook.processors.alerts.options import (
    TargetOptions,
    check_url,
    is_reference,
    read_url,
)
from gatebook.processors.alerts.secrets import SecretUnreadable, check_reference, read_secret
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import bounded_key, plain, runbook_link, search_link
from gatebook.schemas.documents import timestamp_text, to_document
from gatebook.schemas.errors import Fatal

CONTENT_TYPE = "application/cloudevents+json"
SECRET_PREFIX = "whsec_"  # noqa: S105  # the published prefix of a secret, not one
MIN_SECRET_BYTES = 24
MAX_SUBJECT_CHARACTERS = 255
TOLERANCE_SECONDS = 300
NAMESPACE_STEP = UUID("5a0b9a0e-6f0f-5c0a-9a3e-0b8c7d6e5f41")


class WebhookOptions(TargetOptions, frozen=True, tag="webhook", kw_only=True):
    """A target of type webhook."""

    url: str
    """Where events go; by reference (env:NAME, file:/path) where it holds a secret."""
    secrets: tuple[str, ...]
    """References to signing secrets (whsec_ and base64); while one is rotated, both."""
    source: str = "/gatebook"
    """Attribute `source` of the events: which Gatebook this is."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> WebhookTarget:
        """The target."""
        if not is_reference(self.url):  # one kept elsewhere is judged when it is used
            check_url(self.url, settings)
        if not self.secrets:
            raise Fatal("the webhook has no signing secret", "name at least one in `secrets`")
        for reference in self.secrets:
            check_reference("secrets", reference)
        return WebhookTarget(name, self, settings, **seams)


def step_id(finding: Finding) -> str:
    """The same for the same step of the same finding."""
    event = finding["event"]
    return str(uuid5(NAMESPACE_STEP, f"{event['id']}|{event.get('action') or FIRING}"))


def event_of(finding: Finding, settings: AlertSettings, source: str) -> dict[str, Any]:
    """The CloudEvent of one step: the finding as it is indexed, and links for people."""
    action = finding["event"].get("action") or FIRING
    links = {
        "search": search_link(settings.search_base_url, finding),
        "runbook": runbook_link(settings.runbook_url, finding),
    }
    return {
        "specversion": "1.0",
        "id": step_id(finding),
        "source": source,
        "type": f"gatebook.finding.{plain(action)}",
        "subject": bounded_key(finding["gatebook"]["dedup_key"], MAX_SUBJECT_CHARACTERS),
        "time": timestamp_text(finding["timestamp"]),
        "datacontenttype": "application/json",
        "dataschema": "urn:gatebook:finding.v2",
        "data": {**to_document("finding.v2", finding), "links": links},
    }


def _key(secret: str, reference: str = "the signing secret") -> bytes:
    try:
        key = b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise SecretUnreadable(reference, "is malformed: it is not base64") from None
    if len(key) < MIN_SECRET_BYTES:
        raise SecretUnreadable(reference, "is malformed: it is too short")
    return key


def _signature(secret: str, event_id: str, seconds: str, body: bytes) -> str:
    signed = f"{event_id}.{seconds}.".encode() + body
    return "v1," + b64encode(hmac.digest(_key(secret), signed, "sha256")).decode("ascii")


def sign(secrets: Sequence[str], event_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent a body and when; one signature a secret. Raises
    SecretUnreadable for a secret that is not base64 or shorter than 24 bytes."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(
            _signature(secret, event_id, str(seconds), body) for secret in secrets
        ),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_seconds: float
) -> bool:
    """Whether a request (header names in lower case) was signed with one of the secrets within
    five minutes. That it is not a repetition, only the ids seen before can tell."""
    seconds, event_id = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 12 and event_id):
        return False
    if abs(now_seconds - int(seconds)) > TOLERANCE_SECONDS:
        return False
    given = [part.encode() for part in headers.get("webhook-signature", "").split(" ")]
    wanted = [_signature(secret, event_id, seconds, body).encode() for secret in secrets]
    return any(hmac.compare_digest(one, other) for one in given for other in wanted)


class WebhookTarget(HttpTarget):
    """Sends findings to one receiver of CloudEvents."""

    type = "webhook"

    def __init__(
        self, name: str, options: WebhookOptions, settings: AlertSettings, **seams: Any
    ) -> None:
        super().__init__(name, settings, **seams)
        self._options = options

    def request(self, finding: Finding) -> HttpRequest:
        body = orjson.dumps(event_of(finding, self.settings, self._options.source))
        secrets = [self._secret(reference) for reference in self._options.secrets]
        # Signed anew for each attempt: a retry is not taken for a replay.
        signed = sign(secrets, step_id(finding), self._now_ns() // NANOSECONDS, body)
        url, secret = read_url(self._options.url, self._environment)
        return HttpRequest(url, body, {**signed, "Content-Type": CONTENT_TYPE}, secret)

    def _secret(self, reference: str) -> str:
        """A signing secret that can be signed with. Raises SecretUnreadable."""
        secret = read_secret(reference, self._environment)
        _key(secret, reference)
        return secret
