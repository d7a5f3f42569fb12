"""A reverse proxy that records: for model servers one cannot change.

    app = create_proxy(ProxySettings(upstream_url="http://127.0.0.1:8080"))

`Forwarder` is the plain ASGI application that forwards; `create_proxy` wraps it in the middleware.
Every path is forwarded; bodies pass byte for byte, streams chunk by chunk. To the upstream goes
what the client sent, but for the headers that concern one connection only; nothing is added.
Needs httpx.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Annotated
from urllib.parse import quote, unquote_to_bytes, urlsplit

import anyio
import httpx
import msgspec
from msgspec import Meta

from gatebook.producers.asgi import GatebookMiddleware, Message, Receive, Scope, Send
from gatebook.producers.provenance import ModelProvenance
from gatebook.producers.recorder import Recorder
from gatebook.schemas.errors import Fatal, WrongSetting

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
_NO_MORE: Message = {"type": "http.response.body", "body": b"", "more_body": False}
_DOT_SEGMENTS = frozenset({b".", b".."})

RawHeaders = list[tuple[bytes, bytes]]
Patience = Callable[[Mapping[bytes, bytes]], float]


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy needs to know beside the producer's settings. `check` refuses what would fail
    at the first request."""

    upstream_url: Annotated[str, Meta(description="http:// or https:// URL of the model server")]
    timeout_seconds: Annotated[
        float,
        Meta(gt=0, description="Patience for the answer to begin, and for each later silence"),
    ] = 600.0
    upstream_ca_file: Annotated[
        str, Meta(description="PEM file of the authority that signed the upstream's certificate")
    ] = ""
    upstream_api_key: Annotated[
        str,
        Meta(description="The proxy's own key, to ask the upstream which model it serves; no more"),
    ] = ""
    provenance: Annotated[
        bool, Meta(description="Ask the upstream which model it serves, in the background")
    ] = True

    def check(self) -> ProxySettings:
        """Raises Fatal that names what is wrong."""
        parts = urlsplit(self.upstream_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise WrongSetting(
                "the upstream is not an http:// or https:// URL",
                "write it like --upstream http://127.0.0.1:8080, without /v1",
            )
        if parts.username or parts.password:
            raise WrongSetting(
                "the upstream's URL holds a password",
                "let callers send their own credentials: they are forwarded as they are",
            )
        return self


def create_proxy(
    settings: ProxySettings,
    recorder: Recorder | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> GatebookMiddleware:
    """The ASGI application of `gatebook proxy`. Without `recorder` it makes one from the
    environment and closes it at shutdown. Raises Fatal for settings that are refused."""
    forwarder = Forwarder(settings, transport=transport)
    return GatebookMiddleware(forwarder, recorder, provenance=_provenance(settings))


def _provenance(settings: ProxySettings) -> ModelProvenance | None:
    if not settings.provenance:
        return None
    found = ModelProvenance(
        settings.upstream_url,
        settings.upstream_api_key,
        context=_verification(settings),
    )
    found.of("")  # begins to ask, so that the first access knows
    return found


class Forwarder:
    """The ASGI application in front of one upstream. A client that leaves closes the upstream's
    request; no answer in time is a 504, no connection a 502, both in OpenAI's error shape. An
    upstream that breaks off within its answer raises, so that the server cuts the connection: a
    truncated answer must never look like a finished one.

    `patience` gives the time-out of one request from its headers; `private_headers` are for it
    only. `transport` replaces the connection to the upstream, in tests.
    """

    def __init__(
        self,
        settings: ProxySettings,
        patience: Patience | None = None,
        private_headers: frozenset[bytes] = frozenset(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = _Base(settings.check().upstream_url)
        self._patience = patience or (lambda _: settings.timeout_seconds)
        self._not_forwarded = _HOP_BY_HOP | {b"host"} | private_headers
        self._transport = transport or _connect(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003, "reason": "not forwarded"})
        else:
            await self._forward(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def aclose(self) -> None:
        """Close what is open to the upstream."""
        await self._transport.aclose()

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        target = self._base.target(scope)
        if b"websocket" in headers.get(b"upgrade", b"").lower():
            await _refuse(send, 501, "not_supported", "WebSockets are not forwarded.")
            return
        if target is None:
            await _refuse(send, 400, "invalid_request_error", "The path is not valid.")
            return
        body = _Body(receive) if _has_body(scope, headers) else None
        request = self._request(scope, target, headers, body)
        async with anyio.create_task_group() as tasks:
            # Either side may end the exchange: the answer is over, or the client has left.
            tasks.start_soon(_cancel_on_disconnect, receive, body, tasks.cancel_scope)
            await self._exchange(request, send)
            tasks.cancel_scope.cancel()

    def _request(
        self, scope: Scope, target: bytes, headers: Mapping[bytes, bytes], body: _Body | None
    ) -> httpx.Request:
        # A bare Request, straight to the transport: no header of a client library, no cookie jar.
        timeout = httpx.Timeout(self._patience(headers)).as_dict()
        return httpx.Request(
            scope["method"],
            self._base.url,
            headers=without(scope["headers"], self._not_forwarded),
            content=body,
            extensions={"timeout": timeout, "target": target},
        )

    async def _exchange(self, request: httpx.Request, send: Send) -> None:
        try:
            upstream = await self._transport.handle_async_request(request)
        except httpx.TimeoutException:
            await _refuse(send, 504, "timeout_error", "The model did not answer in time.")
            return
        except httpx.TransportError:
            await _refuse(send, 502, "upstream_error", "The model service cannot be reached.")
            return
        try:
            await _relay(upstream, send)
        finally:
            # Cancelled when the client left: the close itself must still happen.
            with anyio.CancelScope(shield=True):
                await upstream.aclose()


class _Base:
    """The upstream's address, and what a request asks there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/").encode()

    def target(self, scope: Scope) -> bytes | None:
        """Path and query exactly as the client wrote them, behind our prefix; None where dots
        would lead out of the prefix."""
        path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        path = path.partition(b"?")[0]
        if self._prefix and not _DOT_SEGMENTS.isdisjoint(unquote_to_bytes(path).split(b"/")):
            return None
        query: bytes = scope.get("query_string", b"")
        return self._prefix + path + (b"?" + query if query else b"")


class _Body(AsyncIterator[bytes]):
    """A request's body on its way through. `over` is set when there is no more of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.over = anyio.Event()
        self.client_gone = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        while not self.over.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.client_gone = True
            if self.client_gone or not message.get("more_body", False):
                self.over.set()
            if self.client_gone:
                # The watcher cancels this request; half a body must not look like a whole one.
                await anyio.sleep_forever()
            if message.get("body"):
                return bytes(message["body"])
        raise StopAsyncIteration


async def _cancel_on_disconnect(
    receive: Receive, body: _Body | None, scope: anyio.CancelScope
) -> None:
    if body is not None:
        await body.over.wait()  # until then it is the body that listens to the client
    gone = body is not None and body.client_gone
    while not gone:
        gone = (await receive())["type"] == "http.disconnect"
    scope.cancel()


async def _relay(upstream: httpx.Response, send: Send) -> None:
    """Pass status, headers and raw bytes on."""
    headers = without(upstream.headers.raw, _HOP_BY_HOP)
    await send({"type": "http.response.start", "status": upstream.status_code, "headers": headers})
    async for chunk in upstream.aiter_raw():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send(_NO_MORE)


def _has_body(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    if not str(scope.get("http_version", "1.1")).startswith("1"):
        return scope["method"] in ("POST", "PUT", "PATCH")  # HTTP/2 needs no header to say so
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def without(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> RawHeaders:
    """The headers that are not dropped, nor named by a Connection header (RFC 9110, 7.6.1)."""
    pairs = [(name.lower(), value) for name, value in headers]
    listed = [value for name, value in pairs if name == b"connection"]
    named = {item.strip().lower() for value in listed for item in value.split(b",")}
    return [(name, value) for name, value in pairs if name not in dropped and name not in named]


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    """An error in OpenAI's shape. It names no upstream address and quotes no request."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    body = msgspec.json.encode({"error": error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _connect(settings: ProxySettings) -> httpx.AsyncBaseTransport:
    # No idle connections: one that the upstream closes as we reuse it would be a 502 nobody
    # deserved. Made by hand, it also ignores proxies set for the internet in the environment.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=_verification(settings), limits=limits)


def _verification(settings: ProxySettings) -> ssl.SSLContext:
    path = settings.upstream_ca_file
    try:
        return ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise Fatal(
            f"the upstream's CA file {path} cannot be used: {type(error).__name__}",
            "give a PEM file of certificates",
        ) from None
