"""The model service that one can change: an ASGI gateway in front of llama.cpp's server.

It stands for the application a team already has. It knows nothing of Gatebook: the demo wraps it
in the middleware, which is all that has to be added to a real service. What forwards is the same
code as in `gatebook proxy`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route

from gatebook.producers.adapters.proxy import Forwarder, ProxySettings

# Honoured by the demo alone: lets a caller ask for less patience than the gateway's own time-out.
TIMEOUT_HEADER = "x-demo-timeout-seconds"

_POST_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_GET_PATHS = ("/v1/models",)


def create_app(upstream_url: str, timeout_seconds: float) -> Starlette:
    """An app that forwards the OpenAI routes to `upstream_url` (no trailing slash, no /v1).

    Bodies pass byte for byte, streams chunk by chunk. `timeout_seconds` bounds the wait for the
    answer to begin and each later silence; before the answer begins it becomes a 504. An upstream
    that cannot be reached is a 502. A client that leaves closes the upstream request.
    """

    def patience_seconds(headers: Mapping[bytes, bytes]) -> float:
        return _asked_seconds(headers, timeout_seconds)

    settings = ProxySettings(upstream_url=upstream_url, timeout_seconds=timeout_seconds)
    private = frozenset({TIMEOUT_HEADER.encode()})
    forward = Forwarder(settings, patience=patience_seconds, private_headers=private)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await forward.aclose()

    posts = [Route(path, forward, methods=["POST"]) for path in _POST_PATHS]
    gets = [Route(path, forward, methods=["GET"]) for path in _GET_PATHS]
    return Starlette(routes=posts + gets, lifespan=lifespan)


def _asked_seconds(headers: Mapping[bytes, bytes], most_seconds: float) -> float:
    try:
        asked = float(headers.get(TIMEOUT_HEADER.encode(), b"inf"))
    except ValueError:
        return most_seconds
    # Written so that a NaN falls back too.
    return asked if 0 < asked < most_seconds else most_seconds
