"""Signing in by OpenID Connect: authorization code with PKCE, state and nonce.

What a sign-in began with (state, nonce, verifier, and where to go after) stays here, and is taken
out once: a state that comes twice, late, or by another browser than it was made for is worth
nothing. The ID token is checked by the same verifier as bearer tokens, then its nonce and azp.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # ships none
from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]  # ships none
    AsyncOAuth2Client,
)

from gatebook.processors.serve.access.caller import Caller, Refused
from gatebook.processors.serve.access.claims import (
    TokenRefused,
    TokenUncheckable,
    TokenVerifier,
    caller_of_claims,
)
from gatebook.processors.serve.access.limits import network_of
from gatebook.processors.serve.access.settings import AccessSettings, is_loopback

CALLBACK = "/login/callback"
DISCOVERY_PATH = "/.well-known/openid-configuration"
DISCOVERY_SECONDS = 3600.0
TIMEOUT_SECONDS = 10.0
ATTEMPT_SECONDS = 600.0
MAX_ATTEMPTS = 2_000
MAX_DOCUMENT_BYTES = 512 * 1024
MAX_RETURN_CHARS = 2_000


class ProviderAway(Exception):
    """The provider gave no usable answer; `reason` is a code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SignInRefused(Exception):
    """This sign-in led to nobody; `reason` is a code."""

    def __init__(self, reason: str, caller: Caller | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.caller = caller


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in under way."""

    nonce: str
    verifier: str
    browser: bytes
    return_to: str
    until: float
    network: str


class Attempts:
    """The sign-ins under way. Where there are too many, the oldest one of the address that began
    most of them is given up: whoever begins many ends their own, and nobody else's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()

    def begin(self, browser: str, return_to: str, address: str = "") -> tuple[str, Attempt]:
        """A new one, for the browser that holds this cookie, at an address."""
        attempt = Attempt(
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            browser=_digest(browser),
            return_to=local_path(return_to),
            until=self._clock() + ATTEMPT_SECONDS,
            network=network_of(address),
        )
        state = secrets.token_urlsafe(24)
        self._attempts[state] = attempt
        if len(self._attempts) > MAX_ATTEMPTS:
            self._make_room()
        return state, attempt

    def _make_room(self) -> None:
        """Forget those that ended; where all are under way, give one up."""
        now = self._clock()
        ended = list(takewhile(lambda one: now >= one[1].until, self._attempts.items()))
        if not ended:
            counts = Counter(attempt.network for attempt in self._attempts.values())
            ((busiest, _),) = counts.most_common(1)
            ended = [next(i for i in self._attempts.items() if i[1].network == busiest)]
        for state, _ in ended:
            del self._attempts[state]

    def take(self, state: str, browser: str) -> Attempt:
        """Take one out, whether it holds or not. Raises SignInRefused."""
        attempt = self._attempts.pop(state, None)
        if attempt is None or self._clock() >= attempt.until:
            raise SignInRefused("state")
        if not hmac.compare_digest(attempt.browser, _digest(browser)):
            raise SignInRefused("other_browser")
        return attempt


def local_path(wanted: str) -> str:
    """Where to go after a sign-in: a path of ours, or the start."""
    # Browsers read \ as / and drop tabs and line feeds, so `/\\host` and `/<tab>/host` lead away.
    is_plain = wanted.isprintable() and "\\" not in wanted and len(wanted) <= MAX_RETURN_CHARS
    if not is_plain or not wanted.startswith("/") or wanted.startswith(("//", "/login", "/logout")):
        return "/"
    return wanted


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class OidcLogin:
    """Signs people in at one issuer. `verifier` checks ID tokens: their audience is our client."""

    def __init__(self, settings: AccessSettings, verifier: TokenVerifier) -> None:
        self._settings = settings
        self._verifier = verifier
        self._attempts = Attempts()
        self._found: Mapping[str, Any] = {}
        self._found_at = float("-inf")

    async def begin(self, browser: str, return_to: str, address: str) -> str:
        """The provider's address that a browser at `address` goes to. Raises ProviderAway."""
        endpoint = (await self._provider())["authorization_endpoint"]
        state, attempt = self._attempts.begin(browser, return_to, address)
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                endpoint, state=state, nonce=attempt.nonce, code_verifier=attempt.verifier
            )
        return str(url)

    async def finish(self, given: Mapping[str, str], browser: str) -> tuple[Caller, str]:
        """Who came back from the provider, and where to go. Raises SignInRefused, ProviderAway."""
        attempt = self._attempts.take(given.get("state", ""), browser)
        if given.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer:
            raise SignInRefused("issuer")  # RFC 9207: the answer of another provider
        if given.get("error") or not given.get("code"):
            raise SignInRefused("provider_refused")
        token = await self._exchange(given["code"], attempt.verifier)
        claims = await self._checked(token, attempt.nonce)
        try:
            caller = caller_of_claims(claims, self._settings, "")
        except TokenRefused as refused:
            raise SignInRefused(refused.reason) from None
        if not caller.permissions:
            raise SignInRefused("no_role", caller)
        return caller, attempt.return_to

    async def _exchange(self, code: str, verifier: str) -> str:
        endpoint = (await self._provider())["token_endpoint"]
        try:
            async with self._client() as client:
                answer = await client.fetch_token(endpoint, code=code, code_verifier=verifier)
        except AuthlibBaseError:
            raise SignInRefused("code") from None
        except (httpx2.HTTPError, ValueError):
            raise ProviderAway("token_endpoint") from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefused("no_id_token")
        return token

    async def _checked(self, token: str, nonce: str) -> Mapping[str, Any]:
        try:
            claims = await self._verifier.verify(token)
        except TokenRefused as refused:
            raise SignInRefused(refused.reason) from None
        except TokenUncheckable as missing:
            raise ProviderAway(missing.reason) from None
        found = claims.get("nonce")
        if not isinstance(found, str) or not hmac.compare_digest(_digest(found), _digest(nonce)):
            raise SignInRefused("nonce")
        audience, party = claims.get("aud"), claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        if (party is not None or several) and party != self._settings.oidc_client_id:
            raise SignInRefused("authorized_party")
        return claims

    def _client(self) -> AsyncOAuth2Client:
        settings = self._settings
        secret = settings.client_secret()
        return AsyncOAuth2Client(
            settings.oidc_client_id,
            secret or None,
            scope=settings.oidc_scopes,
            redirect_uri=settings.origin + CALLBACK,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            timeout=TIMEOUT_SECONDS,
            trust_env=not _is_local(settings.oidc_issuer),
        )

    async def _provider(self) -> Mapping[str, Any]:
        """What the provider says of itself, an hour old at most. Raises ProviderAway."""
        if time.monotonic() - self._found_at > DISCOVERY_SECONDS:
            self._found = await _discovered(self._settings.oidc_issuer)
            self._found_at = time.monotonic()
        return self._found


async def _discovered(issuer: str) -> Mapping[str, Any]:
    try:
        async with httpx2.AsyncClient(
            timeout=TIMEOUT_SECONDS, trust_env=not _is_local(issuer)
        ) as client:
            answer = await client.get(issuer.rstrip("/") + DISCOVERY_PATH)
        document = answer.json() if len(answer.content) <= MAX_DOCUMENT_BYTES else None
    except (httpx2.HTTPError, ValueError):
        raise ProviderAway("discovery") from None
    if answer.status_code != 200 or not isinstance(document, dict):
        raise ProviderAway("discovery")
    if document.get("issuer") != issuer:
        raise ProviderAway("other_issuer")
    for name in ("authorization_endpoint", "token_endpoint"):
        if not _is_safe(document.get(name)):
            raise ProviderAway(name)
    return document


def _is_safe(url: object) -> bool:
    """Codes and tokens travel over https, or within this machine."""
    try:
        return isinstance(url, str) and (urlsplit(url).scheme == "https" or _is_local(url))
    except ValueError:
        return False


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def provider_away(error: ProviderAway) -> Refused:
    """As the browser is told."""
    return Refused(
        503,
        "provider_unavailable",
        f"the identity provider gives no usable answer ({error.reason}): nobody can sign in",
        "try again; if it lasts, check GATEBOOK_SERVE_OIDC_ISSUER and the provider",
    )
