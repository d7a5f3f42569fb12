"""One HTTP request that must arrive: retried, bounded in time, to checked addresses only."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec

from gatebook.processors.alerts.addresses import (
    AddressRefused,
    GuardedResolver,
    check_target_url,
)
from gatebook.processors.alerts.base import Delivery, Finding
from gatebook.processors.alerts.secrets import SecretUnreadable
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.schemas.errors import Fatal

NANOSECONDS = 1_000_000_000
MAX_ANSWER_BYTES = 64 * 1024
MAX_RETRY_AFTER_SECONDS = 86_400.0
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
UNUSABLE = (KeyError, TypeError, ValueError, AttributeError)


class HttpRequest(msgspec.Struct, frozen=True):
    """A POST. `allow_query`: the URL is ours or a secret, and may have a query."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    allow_query: bool = False


class FailedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that failed and is followed by another."""

    number: int
    """From 1."""
    reason: str
    status_code: int | None
    pause_seconds: float
    """Until the next."""


class _Answer(msgspec.Struct, frozen=True):
    """One attempt: `reason` is empty where it succeeded."""

    reason: str
    status_code: int | None = None
    retry: bool = False
    retry_after_seconds: float = 0.0
    detail: str = ""


def retry_after_seconds(text: str, now_seconds: float) -> float:
    """The header Retry-After, in seconds from now; 0 where it says nothing that can be read."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now_seconds
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, wait), MAX_RETRY_AFTER_SECONDS)


def _judge(status: int, retry_after: str, now_seconds: float) -> _Answer:
    if 200 <= status < 300:
        return _Answer("", status)
    if status in _RETRIED_STATUS or status >= 500:
        reason = "rate_limited" if status == 429 else "server_error"
        reason = "timeout" if status == 408 else reason
        return _Answer(reason, status, True, retry_after_seconds(retry_after, now_seconds))
    if status in (401, 403):
        return _Answer("unauthorized", status)
    return _Answer("redirected" if 300 <= status < 400 else "rejected", status)


class HttpTarget:
    """A target behind an HTTP API; a subclass says what to send. For one event loop.

    `now_ns`, `sleep` and `jitter` (0 to 1) are given in tests.
    """

    type = "http"
    resends = False
    updates = True
    calls = False

    def __init__(
        self,
        name: str,
        settings: AlertSettings,
        *,
        environment: Mapping[str, str] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.settings = settings
        self._environment = environment
        self._now_ns = now_ns
        self._sleep = sleep
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None
        self.on_failed_attempt: Callable[[FailedAttempt], None] | None = None
        """Called before each pause; for somebody who watches."""

    def request(self, finding: Finding) -> HttpRequest | None:
        """What to send, made anew for each attempt; None: this target has no such step. Raises
        SecretUnreadable, or one of UNUSABLE for a record that is no finding."""
        raise NotImplementedError

    def check(self, finding: Finding) -> None:
        """Whether a finding could be sent, without sending it. Raises SecretUnreadable, Fatal for
        a URL that must not be a target; that anybody answers there it does not say."""
        if (request := self.request(finding)) is not None:
            check_target_url(request.url, self.settings.address_policy, request.allow_query)

    async def deliver(self, finding: Finding) -> Delivery:
        """See AlertTarget. Retries 408, 425, 429, 5xx, time-outs and lost connections until
        `alert_deadline_seconds`; any other refusal is final."""
        started = time.monotonic_ns()
        try:
            if self.request(finding) is None:
                return Delivery(outcome="success")
        except SecretUnreadable as error:
            return Delivery(
                outcome="failure", reason="secret_unreadable", attempts=1, detail=str(error)
            )
        except UNUSABLE:
            return Delivery(outcome="failure", reason="unusable_finding")
        answer, attempts = await self._send_until_decided(finding, started)
        return Delivery(
            outcome="failure" if answer.reason else "success",
            status_code=answer.status_code,
            attempts=attempts,
            reason=answer.reason,
            detail=answer.detail,
            duration_ns=time.monotonic_ns() - started,
            retry_after_seconds=answer.retry_after_seconds,
        )

    async def _send_until_decided(self, finding: Finding, started: int) -> tuple[_Answer, int]:
        deadline = started + round(self.settings.alert_deadline_seconds * NANOSECONDS)
        attempts = 0
        while True:
            attempts += 1
            answer = await self._send(finding, (deadline - time.monotonic_ns()) / NANOSECONDS)
            pause = self._pause_seconds(attempts, answer)
            left = (deadline - time.monotonic_ns()) / NANOSECONDS
            if not answer.retry or pause >= left:
                return answer, attempts
            if self.on_failed_attempt is not None:
                self.on_failed_attempt(
                    FailedAttempt(
                        number=attempts,
                        reason=answer.reason,
                        status_code=answer.status_code,
                        pause_seconds=pause,
                    )
                )
            await self._sleep(pause)

    def _pause_seconds(self, attempts: int, answer: _Answer) -> float:
        """Full jitter over a doubling bound, but not before the target wants to be asked."""
        bound = self.settings.alert_first_pause_seconds * 2.0 ** min(attempts - 1, 30)
        bound = min(bound, self.settings.alert_longest_pause_seconds)
        return answer.retry_after_seconds + bound * self._jitter()

    async def _send(self, finding: Finding, left_seconds: float) -> _Answer:
        seconds = max(0.001, min(self.settings.alert_request_timeout_seconds, left_seconds))
        try:
            request = self.request(finding)
            assert request is not None  # deliver() has asked
            # A literal address never reaches the resolver; a secret URL is seen only here.
            check_target_url(request.url, self.settings.address_policy, request.allow_query)
            async with asyncio.timeout(seconds):
                return await self._post(request)
        except SecretUnreadable as error:
            return _Answer("secret_unreadable", detail=str(error))
        except TimeoutError:
            return _Answer("timeout", retry=True)
        except (AddressRefused, Fatal):
            return _Answer("address_refused")
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(getattr(error, "os_error", None), AddressRefused):
                return _Answer("address_refused")
            return _Answer("unreachable", retry=True)

    async def _post(self, request: HttpRequest) -> _Answer:
        # A redirect would lead past the check of the target's address.
        headers = {"Content-Type": "application/json", **request.headers}
        async with self._open().post(
            request.url, data=request.body, headers=headers, allow_redirects=False
        ) as response:
            await response.content.read(MAX_ANSWER_BYTES)
            wait = response.headers.get("Retry-After", "")
            return _judge(response.status, wait, self._now_ns() / NANOSECONDS)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Each new connection resolves anew and goes to an address that was just checked.
            resolver = GuardedResolver(self.settings.address_policy)
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=8)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    async def close(self) -> None:
        """Close the connections; `deliver` opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None
