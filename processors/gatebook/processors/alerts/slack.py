"""Slack, by an incoming webhook. The URL is the secret.

A webhook has no key by which Slack could tell a repetition: a message that was kept although the
answer was lost comes twice. Both name the same incident. What must not be repeated goes to a
target that knows dedup keys.
"""

from __future__ import annotations

from typing import Any

import orjson

from gatebook.processors.alerts.base import (
    ACKNOWLEDGED,
    DIGEST_RULE,
    FIRING,
    RESOLVED,
    Finding,
)
from gatebook.processors.alerts.http import HttpRequest, HttpTarget
from gatebook.processors.alerts.options import TargetOptions, is_reference, read_url
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.text import notes_of, plain, summary_of
from gatebook.schemas.errors import Fatal

MAX_HEADER_CHARACTERS = 150
MAX_SECTION_CHARACTERS = 3000
MAX_FIELD_CHARACTERS = 2000
MAX_FIELDS = 10
MAX_URL_CHARACTERS = 3000
MAX_ITEM_CHARACTERS = 140
WORDS = {FIRING: "", ACKNOWLEDGED: "acknowledged: ", RESOLVED: "resolved: "}
FIELDS = ("observed", "baseline", "threshold", "unit", "window_seconds", "evidence_count", "model")


class SlackOptions(TargetOptions, frozen=True, tag="slack", kw_only=True):
    """A target of type slack."""

    url: str
    """Reference to the webhook's URL: env:NAME or file:/path."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> SlackTarget:
        """The target."""
        if not is_reference(self.url):
            raise Fatal(
                "a Slack webhook's URL is a secret and stands in the alerts file",
                "write env:NAME for an environment variable or file:/path for a file",
            )
        return SlackTarget(name, self, settings, **seams)


def escape(text: str) -> str:
    """Text that Slack shows as it is: no mention, no link, no markup of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _text(text: str, limit: int) -> dict[str, str]:
    return {"type": "plain_text", "text": text[:limit]}


def message_of(finding: Finding, settings: AlertSettings) -> dict[str, Any]:
    """The message of one step of a finding; untrusted words only as plain text."""
    event, gatebook = finding["event"], finding["gatebook"]
    notes = notes_of(finding, settings)
    word = WORDS[event.get("action") or FIRING]
    title = plain(f"{word}{gatebook['severity']}: {finding['rule'].get('name') or 'finding'}")
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _text(title, MAX_HEADER_CHARACTERS)},
        {"type": "section", "text": _text(summary_of(finding) or "finding", 3000)},
    ]
    if fields := [_text(f"{n}: {notes[n]}", MAX_FIELD_CHARACTERS) for n in FIELDS if n in notes]:
        blocks.append({"type": "section", "fields": fields[:MAX_FIELDS]})
    items = [text[:MAX_ITEM_CHARACTERS] for n, text in notes.items() if n.startswith("item_")]
    if items:
        listed = "\n".join(items)
        blocks.append({"type": "section", "text": _text(listed, MAX_SECTION_CHARACTERS)})
    blocks.append({"type": "context", "elements": [_text(_context(finding, notes), 2000)]})
    if buttons := _buttons(notes):
        blocks.append({"type": "actions", "elements": buttons})
    return {"text": escape(f"{title}: {summary_of(finding)}"), "blocks": blocks}


def _context(finding: Finding, notes: dict[str, str]) -> str:
    gatebook = finding["gatebook"]
    incident = gatebook.get("incident") or finding["event"]["id"]
    parts = (f"incident {incident}", f"rule {finding['rule']['id']}", notes.get("query", ""))
    return plain(" · ".join(part for part in parts if part), 2000)


def _buttons(notes: dict[str, str]) -> list[dict[str, Any]]:
    links = {"Events": notes.get("search", ""), "Runbook": notes.get("runbook", "")}
    return [
        {"type": "button", "text": _text(label, 75), "url": link}
        for label, link in links.items()
        if link.startswith(("https://", "http://")) and len(link) <= MAX_URL_CHARACTERS
    ]


class SlackTarget(HttpTarget):
    """Sends findings to one channel."""

    type = "slack"
    updates = False

    def __init__(
        self, name: str, options: SlackOptions, settings: AlertSettings, **seams: Any
    ) -> None:
        super().__init__(name, settings, **seams)
        self._options = options

    def request(self, finding: Finding) -> HttpRequest | None:
        action = finding["event"].get("action")
        if finding["rule"]["id"] == DIGEST_RULE and action == RESOLVED:
            return None  # a digest is news, not a state
        message = orjson.dumps(message_of(finding, self.settings))
        url, secret = read_url(self._options.url, self._environment)
        return HttpRequest(url, message, {}, secret)
