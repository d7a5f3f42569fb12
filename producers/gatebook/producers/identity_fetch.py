"""Fetching JSON from an identity provider: bounded in size and time, and from nowhere else.

Redirects are refused, and what a provider says about itself is fetched only from its own origin,
so that nobody can point a producer at an address inside the network.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gatebook.producers.identity_settings import is_fetchable, is_loopback

MAX_BYTES = 512 * 1024
_CHUNK_BYTES = 64 * 1024
DISCOVERY_PATH = "/.well-known/openid-configuration"


class FetchFailed(Exception):
    """Nothing was got; `reason` is a code, without anything the provider said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """None lets the answer count as an error."""
        return


def fetch_json(url: str, timeout_seconds: float) -> Any:
    """The JSON at a URL. Blocks. Raises FetchFailed."""
    if not is_fetchable(url):
        raise FetchFailed("url_refused")
    try:
        return msgspec.json.decode(_fetch(url, time.monotonic() + timeout_seconds))
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchFailed("redirect" if 300 <= error.code < 400 else "status") from None
    except TimeoutError:
        raise FetchFailed("timeout") from None
    except (msgspec.DecodeError, RecursionError):
        raise FetchFailed("not_json") from None
    except urllib.error.URLError as error:
        slow = isinstance(error.reason, TimeoutError)
        raise FetchFailed("timeout" if slow else "unreachable") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise FetchFailed("unreachable") from None


def _fetch(url: str, deadline: float) -> bytes:
    direct = is_loopback(urlsplit(url).hostname or "")
    proxies = [urllib.request.ProxyHandler({})] if direct else []
    opener = urllib.request.build_opener(_NoRedirects(), *proxies)
    request = urllib.request.Request(  # noqa: S310  # is_fetchable allows only http and https
        url, headers={"Accept": "application/json", "User-Agent": "gatebook"}
    )
    with opener.open(request, timeout=max(deadline - time.monotonic(), 0.01)) as answer:
        data = bytearray()
        while chunk := answer.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > MAX_BYTES:
                raise FetchFailed("too_large")
            if time.monotonic() > deadline:
                raise FetchFailed("timeout")
    return bytes(data)


def find_jwks_url(issuer: str, timeout_seconds: float) -> str:
    """Where an issuer's keys are, by its discovery document. Blocks. Raises FetchFailed."""
    document = fetch_json(issuer.rstrip("/") + DISCOVERY_PATH, timeout_seconds)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise FetchFailed("other_issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or _origin(url) != _origin(issuer):
        raise FetchFailed("other_origin")
    return url


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; None for what is not a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return None
