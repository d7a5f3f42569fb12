"""A thin connection to Elasticsearch: JSON in, JSON out, over aiohttp.

It speaks plain JSON without version headers, so that servers of 8.x and 9.x both answer, and it
logs nothing: bodies hold users' data.
"""

from __future__ import annotations

import base64
import io
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.schemas.errors import Fatal, GatebookError


class Unreachable(GatebookError):
    """No answer: refused, cut, timed out, or no name. The request may have been carried out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and decoded JSON of an answer; `body` is None where it was not JSON."""

    status: int
    body: Any

    @property
    def error_type(self) -> str:
        """Elasticsearch's error type, or ""."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        found = error.get("type") if isinstance(error, dict) else None
        return found if isinstance(found, str) else ""

    @property
    def is_transient(self) -> bool:
        """Whether the same request may well succeed later: busy, or not all shards answered."""
        if self.status != 200:
            return self.status in (429, 502, 503, 504)
        shards = self.body.get("_shards") if isinstance(self.body, dict) else None
        return bool(isinstance(shards, dict) and shards.get("failed"))


class Connection:
    """Requests to one cluster. Belongs to one event loop; close it when done."""

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._settings = settings
        self._urls = [_checked_url(url) for url in settings.url.split(",") if url.strip()]
        if not self._urls:
            raise Fatal("no Elasticsearch address is set", "set GATEBOOK_ELASTICSEARCH_URL")
        self._headers = _headers(settings)
        self._ssl = _ssl_context(settings)
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """Where requests go, without user name and password: safe to show."""
        parts = urlsplit(self._urls[0])
        return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        ndjson: bytes | None = None,
    ) -> Answer:
        """Send one request and read its answer, whatever the status.

        Raises Unreachable where no answer came (the next call tries the next address), Fatal
        where the server's certificate is not trusted.
        """
        body = ndjson if ndjson is not None else (None if json is None else orjson.dumps(json))
        kind = "application/x-ndjson" if ndjson is not None else "application/json"
        headers = {} if body is None else {"content-type": kind}
        try:
            async with self._open().request(
                method,
                self._urls[0] + path,
                params=params,
                data=None if body is None else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,  # it would carry credentials to another server
            ) as response:
                return Answer(response.status, _decoded(await response.read()))
        except aiohttp.ClientConnectorCertificateError:
            raise Fatal(
                f"the certificate of {self.address} is not trusted",
                "set GATEBOOK_ELASTICSEARCH_CA_FILE to the authority's certificate",
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._urls.append(self._urls.pop(0))
            raise Unreachable(type(error).__name__) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(
                    total=self._settings.request_timeout_seconds,
                    sock_connect=self._settings.connect_timeout_seconds,
                ),
                connector=aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Close the sockets; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return None


def _checked_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Fatal(
            "the Elasticsearch address is not a URL",
            "write it like https://search.example.org:9200",
        )
    if parts.username or parts.password:
        raise Fatal(
            "the Elasticsearch address holds credentials",
            "set GATEBOOK_ELASTICSEARCH_USERNAME and _PASSWORD, or _API_KEY",
        )
    return url.strip().rstrip("/")


def _headers(settings: ElasticsearchSettings) -> dict[str, str]:
    headers = {"accept": "application/json", "user-agent": "gatebook"}
    if settings.api_key:
        headers["authorization"] = f"ApiKey {settings.api_key}"
    elif settings.username:
        pair = f"{settings.username}:{settings.password}".encode()
        headers["authorization"] = "Basic " + base64.b64encode(pair).decode()
    return headers


def _ssl_context(settings: ElasticsearchSettings) -> ssl.SSLContext | None:
    if not settings.ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError):
        raise Fatal(
            "the file of GATEBOOK_ELASTICSEARCH_CA_FILE cannot be read as certificates",
            "name a readable PEM file",
        ) from None
