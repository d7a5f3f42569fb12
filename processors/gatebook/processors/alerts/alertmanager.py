"""Alertmanager, API v2: `POST /api/v2/alerts`.

Labels are an alert's identity: the same dedup key gives the same labels, so that a finding sent
twice is one alert. An alert is active until `endsAt`; nothing sent before then resolves it.
"""

from __future__ import annotations

import asyncio
import random
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

from gatebook.processors.alerts.addresses import AddressRefused, GuardedResolver
from gatebook.processors.alerts.base import Delivery, Finding
from gatebook.processors.alerts.secrets import read_secret
from gatebook.processors.alerts.settings import AlertSettings, validate
from gatebook.schemas.documents import timestamp_text

NANOSECONDS = 1_000_000_000
MAX_TEXT_CHARACTERS = 1024
MAX_ANSWER_BYTES = 64 * 1024
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def _plain(value: Any, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Text that may be shown anywhere: no control, bidi or surrogate characters."""
    text = str(value or "")[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def alert_name(rule_id: str) -> str:
    """`failure_burst` as GatebookFailureBurst."""
    return "Gatebook" + "".join(part.capitalize() for part in rule_id.split("_"))


def dedup_digest(dedup_key: str) -> str:
    """A dedup key as a short label, whatever characters it holds."""
    return blake2b(dedup_key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def labels_of(finding: Finding) -> dict[str, str]:
    """What makes the alert this alert; nothing in it changes while a problem lasts, but for the
    service, by which alerts are routed."""
    gatebook, rule = finding["gatebook"], finding["rule"]
    labels = {
        "alertname": alert_name(rule["id"]),
        "rule_id": rule["id"],
        "severity": gatebook["severity"],
        "principal": gatebook["principal"],
        "organization": (finding.get("organization") or {}).get("id"),
        "service": (finding.get("service") or {}).get("name"),
        "dedup": dedup_digest(gatebook["dedup_key"]),
        "source": "gatebook",
    }
    return {name: text for name, value in labels.items() if (text := _plain(value, 256))}


def search_link(template: str, finding: Finding) -> str:
    """The link that shows a finding's events; empty without a template. Every value is
    percent-encoded."""
    if not template:
        return ""
    event, query = finding["event"], finding["gatebook"].get("search") or ""
    values = {
        "{query}": query,
        "{start}": timestamp_text(event["start"])[:23] + "Z" if event.get("start") else "",
        "{end}": timestamp_text(event["end"])[:23] + "Z" if event.get("end") else "",
    }
    if "{query}" not in template:
        template += ("&" if "?" in template else "?") + "query={query}"
    for mark, value in values.items():
        template = template.replace(mark, quote(value.encode("utf-8", "replace"), safe=""))
    return template


def annotations_of(finding: Finding, settings: AlertSettings) -> dict[str, str]:
    """What a person on call reads; never content."""
    gatebook, rule, event = finding["gatebook"], finding["rule"], finding["event"]
    runbook = rule.get("reference") or ""
    if runbook and settings.runbook_url:
        runbook = settings.runbook_url.rstrip("/") + "/" + quote(runbook)
    evidence = gatebook.get("evidence") or []
    notes = {
        "summary": event.get("reason") or rule.get("name"),
        "description": f"{rule.get('name')}. Explained by: gatebook rules show {rule['id']}",
        "runbook": runbook,
        "search": search_link(settings.search_base_url, finding),
        "query": gatebook.get("search"),
        "evidence": " ".join(evidence),
        "evidence_count": gatebook.get("evidence_count"),
        "observed": _figure(gatebook.get("observed")),
        "baseline": _figure(gatebook.get("baseline")),
        "threshold": _figure(gatebook.get("threshold")),
        "finding_id": event["id"],
        "model": ((finding.get("gen_ai") or {}).get("request") or {}).get("model"),
        "source_ip": (finding.get("source") or {}).get("ip"),
    }
    return {name: text for name, value in notes.items() if (text := _plain(value, 2048))}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def alert_of(finding: Finding, settings: AlertSettings, now_ns: int) -> dict[str, Any]:
    """One PostableAlert. A firing alert ends `alert_active_seconds` from now unless it is sent
    again; a resolved one has ended."""
    event = finding["event"]
    active_ns = round(settings.alert_active_seconds * NANOSECONDS)
    ends_ns = now_ns if event.get("action") == "resolved" else now_ns + active_ns
    starts_ns = min(event.get("start") or finding["timestamp"] or now_ns, now_ns)
    alert: dict[str, Any] = {
        "labels": labels_of(finding),
        "annotations": annotations_of(finding, settings),
        "startsAt": timestamp_text(starts_ns),
        "endsAt": timestamp_text(ends_ns),
    }
    if link := search_link(settings.search_base_url, finding):
        alert["generatorURL"] = link
    return alert


class _Answer(msgspec.Struct, frozen=True):
    """One attempt: `reason` is empty where it succeeded."""

    reason: str
    status_code: int | None = None
    retry: bool = False
    retry_after_seconds: float = 0.0


def _judge(status: int, retry_after: str) -> _Answer:
    if 200 <= status < 300:
        return _Answer("", status)
    if status in _RETRIED_STATUS or status >= 500:
        reason = "rate_limited" if status == 429 else "server_error"
        reason = "timeout" if status == 408 else reason
        wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return _Answer(reason, status, True, wait)
    if status in (401, 403):
        return _Answer("unauthorized", status)
    return _Answer("redirected" if 300 <= status < 400 else "rejected", status)


class AlertmanagerTarget:
    """Sends findings to one Alertmanager. For one event loop.

    `now_ns`, `sleep` and `jitter` (0 to 1) are given in tests.
    """

    type = "alertmanager"

    def __init__(
        self,
        settings: AlertSettings,
        *,
        environment: Mapping[str, str] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        validate(settings)
        self.name = settings.alertmanager_name
        self.settings = settings
        self._environment = environment
        self._now_ns = now_ns
        self._sleep = sleep
        self._jitter = jitter
        self._url = settings.alertmanager_url.rstrip("/") + "/api/v2/alerts"
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, finding: Finding) -> Delivery:
        """See AlertTarget. Retries 408, 425, 429, 5xx, time-outs and lost connections until
        `alert_deadline_seconds`; any other refusal is final."""
        started = time.monotonic_ns()
        try:
            body = orjson.dumps([alert_of(finding, self.settings, self._now_ns())])
        except (KeyError, TypeError, ValueError, AttributeError):
            return Delivery(outcome="failure", reason="unusable_finding")
        answer, attempts = await self._send_until_decided(body, started)
        return Delivery(
            outcome="failure" if answer.reason else "success",
            status_code=answer.status_code,
            attempts=attempts,
            reason=answer.reason,
            duration_ns=time.monotonic_ns() - started,
        )

    async def _send_until_decided(self, body: bytes, started: int) -> tuple[_Answer, int]:
        deadline = started + round(self.settings.alert_deadline_seconds * NANOSECONDS)
        attempts = 0
        while True:
            attempts += 1
            answer = await self._send(body, (deadline - time.monotonic_ns()) / NANOSECONDS)
            pause = self._pause_seconds(attempts, answer)
            left = (deadline - time.monotonic_ns()) / NANOSECONDS
            if not answer.retry or pause >= left:
                return answer, attempts
            await self._sleep(pause)

    def _pause_seconds(self, attempts: int, answer: _Answer) -> float:
        """Full jitter over a doubling bound, but not before the target wants to be asked."""
        bound = self.settings.alert_first_pause_seconds * 2.0 ** min(attempts - 1, 30)
        bound = min(bound, self.settings.alert_longest_pause_seconds)
        return answer.retry_after_seconds + bound * self._jitter()

    async def _send(self, body: bytes, left_seconds: float) -> _Answer:
        seconds = max(0.001, min(self.settings.alert_request_timeout_seconds, left_seconds))
        try:
            headers = {"Content-Type": "application/json", **self._authorization()}
        except ValueError:
            return _Answer("secret_unreadable")
        try:
            async with asyncio.timeout(seconds):
                return await self._post(body, headers)
        except TimeoutError:
            return _Answer("timeout", retry=True)
        except AddressRefused:
            return _Answer("address_refused")
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(getattr(error, "os_error", None), AddressRefused):
                return _Answer("address_refused")
            return _Answer("unreachable", retry=True)

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        # A redirect would lead past the check of the target's address.
        async with self._open().post(
            self._url, data=body, headers=headers, allow_redirects=False
        ) as response:
            await response.content.read(MAX_ANSWER_BYTES)
            return _judge(response.status, response.headers.get("Retry-After", ""))

    def _authorization(self) -> dict[str, str]:
        settings = self.settings
        if settings.alertmanager_bearer_token:
            token = read_secret(settings.alertmanager_bearer_token, self._environment)
            return {"Authorization": f"Bearer {token}"}
        if settings.alertmanager_basic_user:
            password = read_secret(settings.alertmanager_basic_password, self._environment)
            pair = f"{settings.alertmanager_basic_user}:{password}".encode()
            return {"Authorization": "Basic " + b64encode(pair).decode("ascii")}
        return {}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = GuardedResolver(self.settings.address_policy)
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=8)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    async def close(self) -> None:
        """Close the connections; `deliver` opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None
