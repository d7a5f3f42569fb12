"""Small questions to a model server: a JSON object or nothing, within a time and a size."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gatebook.producers.values import parse_json

MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Our key goes to the upstream and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Probe:
    """Asks one upstream. `begin` starts the clock that bounds all questions after it."""

    def __init__(
        self,
        upstream_url: str,
        api_key: str,
        time_limit_seconds: float,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = upstream_url.rstrip("/")
        self._headers = {"accept": "application/json", "user-agent": "gatebook-provenance"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._time_limit_seconds = time_limit_seconds
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # none of the environment: the upstream is a neighbour
            urllib.request.HTTPSHandler(context=context),
            _NoRedirect(),
        )
        self.is_local = urlsplit(upstream_url).hostname in _LOOPBACK
        self.begin()

    def begin(self) -> None:
        """From here on there is the whole time limit again."""
        self._deadline = time.monotonic() + self._time_limit_seconds

    def get(self, path: str) -> Any:
        """The JSON at a path; None for any other answer, and for none in time."""
        return self._ask(path, None, self._headers)

    def post(self, path: str, body: Any) -> Any:
        """The JSON that answers a JSON question; None as for `get`."""
        headers = {**self._headers, "content-type": "application/json"}
        return self._ask(path, msgspec.json.encode(body), headers)

    def _ask(self, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310 - the operator's own http(s) address
        left = self._deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            with self._opener.open(request, timeout=left) as answer:
                found = self._read(answer)
        except (OSError, http.client.HTTPException):  # refused, 404, time-out, not HTTP at all
            return None
        return None if found is None else parse_json(found)

    def _read(self, answer: Any) -> bytes | None:
        data = b""
        while len(data) <= MAX_ANSWER_BYTES and time.monotonic() < self._deadline:
            chunk = answer.read1(_CHUNK_BYTES)
            if not chunk:
                return data
            data += chunk
        return None
