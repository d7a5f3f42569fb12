"""The model service that one can change: an ASGI gateway in front of llama.cpp's server.

It stands for the application a team already has. It knows nothing of Gatebook: the demo wraps it
in the middleware, which is all that has to be added to a real service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

# Honoured by the demo alone: lets a caller ask for less patience than the gateway's own time-out.
TIMEOUT_HEADER = "x-demo-timeout-seconds"

_POST_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_GET_PATHS = ("/v1/models",)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# httpx sets these two for the request it sends; the third is for this gateway only.
_NOT_FORWARDED = _HOP_BY_HOP | {b"host", b"content-length", TIMEOUT_HEADER.encode()}

RawHeaders = list[tuple[bytes, bytes]]


def create_app(upstream_url: str, timeout_seconds: float) -> Starlette:
    """An app that forwards the OpenAI routes to `upstream_url` (no trailing slash, no /v1).

    Bodies pass byte for byte, streams chunk by chunk. `timeout_seconds` bounds the wait for the
    answer to begin and each later silence; before the answer begins it becomes a 504. An upstream
    that cannot be reached is a 502. A client that leaves closes the upstream request.
    """
    # trust_env=False: a proxy set for the internet must not see loopback traffic.
    # No idle connections: one that llama.cpp closes as we reuse it would be a 502 nobody deserved.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    client = httpx.AsyncClient(trust_env=False, limits=limits)
    forward = _Forward(client, upstream_url, timeout_seconds)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    posts = [Route(path, forward, methods=["POST"]) for path in _POST_PATHS]
    gets = [Route(path, forward, methods=["GET"]) for path in _GET_PATHS]
    return Starlette(routes=posts + gets, lifespan=lifespan)


class _Forward:
    """One route's ASGI application: read the request, send it on, relay what comes back."""

    def __init__(self, client: httpx.AsyncClient, upstream_url: str, timeout_seconds: float):
        self._client = client
        self._upstream_url = upstream_url
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        upstream_request = self._upstream_request(request, await request.body())
        async with anyio.create_task_group() as tasks:
            # Either side may end the exchange: the answer is over, or the client has left.
            tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
            await self._exchange(upstream_request, scope, receive, send)
            tasks.cancel_scope.cancel()

    def _upstream_request(self, request: Request, body: bytes) -> httpx.Request:
        query = f"?{request.url.query}" if request.url.query else ""
        timeout = httpx.Timeout(self._patience_seconds(request))
        # A bare Request, not client.build_request: no header is added that the client did not send.
        return httpx.Request(
            request.method,
            f"{self._upstream_url}{request.url.path}{query}",
            headers=_without(request.headers.raw, _NOT_FORWARDED),
            content=body,
            extensions={"timeout": timeout.as_dict()},
        )

    def _patience_seconds(self, request: Request) -> float:
        try:
            asked = float(request.headers.get(TIMEOUT_HEADER, "inf"))
        except ValueError:
            return self._timeout_seconds
        # Written so that a NaN falls back too.
        return asked if 0 < asked < self._timeout_seconds else self._timeout_seconds

    async def _exchange(
        self, upstream_request: httpx.Request, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            upstream = await self._client.send(upstream_request, stream=True)
        except httpx.TimeoutException:
            refusal = _error(504, "timeout_error", "The model did not answer in time.")
            return await refusal(scope, receive, send)
        except httpx.TransportError:
            refusal = _error(502, "upstream_error", "The model service cannot be reached.")
            return await refusal(scope, receive, send)
        try:
            await _relay(upstream, send)
        finally:
            # Cancelled when the client left: the close itself must still happen.
            with anyio.CancelScope(shield=True):
                await upstream.aclose()


async def _relay(upstream: httpx.Response, send: Send) -> None:
    """Pass status, headers and raw bytes on.

    An upstream that breaks off raises to the server, which then cuts the client's connection: a
    truncated answer must never look like a finished one.
    """
    headers = _without(upstream.headers.raw, _HOP_BY_HOP)
    await send({"type": "http.response.start", "status": upstream.status_code, "headers": headers})
    async for chunk in upstream.aiter_raw():
        await send(_body(chunk, more=True))
    await send(_body(b"", more=False))


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


def _without(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> RawHeaders:
    """The headers that are not dropped, nor named by a Connection header (RFC 9110, 7.6.1)."""
    pairs = [(name.lower(), value) for name, value in headers]
    listed = [value for name, value in pairs if name == b"connection"]
    named = {item.strip().lower() for value in listed for item in value.split(b",")}
    return [(name, value) for name, value in pairs if name not in dropped and name not in named]


def _error(status: int, kind: str, message: str) -> JSONResponse:
    """An error in OpenAI's shape. It names no upstream address and quotes no request."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return JSONResponse(body, status_code=status)
