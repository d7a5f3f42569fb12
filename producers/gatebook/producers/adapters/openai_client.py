"""The `openai` Python client: every HTTP exchange it makes, as the caller saw it.

    client = recorded(openai.OpenAI())        # or AsyncOpenAI, AzureOpenAI, an httpx client

All endpoints, whole answers and streams; bytes pass as they are. It wraps the transports of the
client's own HTTP client (httpx2 with openai 3, httpx before), proxies from the environment too.
Each attempt of the client's retries is an access of its own: all share http.request.id, and
attributes.retry counts. A stream that was left before its end is `client_aborted`, with the tokens
that had come. The user of `call.identity(...)` goes before the API key's owner.

Not seen: Realtime, which speaks over WebSockets.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import sys
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

import msgspec

from gatebook.producers.call_draft import Desk, caller, desk_of, traceparent
from gatebook.producers.classify import Ending, describe
from gatebook.producers.draft import AccessDraft
from gatebook.producers.formats import AnswerFacts
from gatebook.producers.identity import ANONYMOUS, Identity, judged
from gatebook.producers.recorder import Recorder
from gatebook.producers.tape import Tape
from gatebook.schemas.errors import Fatal

__all__ = ["recorded"]

C = TypeVar("C")

_LIBRARIES = ("httpx2", "httpx")
_KEPT_REQUEST_HEADERS = ("user-agent", "host", "traceparent", "content-type", "content-encoding")
_KEPT_ANSWER_HEADERS = ("content-type", "content-encoding")
_RETRY_HEADER = "x-stainless-retry-count"
_PROVIDERS = {"api.openai.com": "openai", "openai.azure.com": "azure.ai.openai"}

# The attempts of one call run in one context, one after the other.
_request_id: ContextVar[str] = ContextVar("gatebook_openai_request_id", default="")


def recorded(client: C, recorder: Recorder | None = None) -> C:
    """The same client, from now on recorded, with everything made of it by `with_options`. A second
    time changes nothing. Without `recorder` the one of the process, from the environment.

    Raises Fatal for settings that are refused, and for a client without an HTTP client inside.
    """
    http: Any = getattr(client, "_client", client)
    kind = next((c.__module__ for c in type(http).__mro__ if _library_name(c) in _LIBRARIES), "")
    transport, mounts = getattr(http, "_transport", None), getattr(http, "_mounts", None)
    if not kind or transport is None or not isinstance(mounts, dict):
        raise Fatal(
            f"{type(client).__name__} holds no httpx or httpx2 client that could be recorded",
            "give an openai client with its usual http_client, or put `gatebook proxy` before",
        )
    desk = desk_of(recorder)
    # By the client: a transport may know both ways.
    wrap = _AsyncTransport if hasattr(http, "aclose") else _Transport
    http._transport = _wrapped(transport, wrap, desk)
    http._mounts = {p: t and _wrapped(t, wrap, desk) for p, t in mounts.items()}
    _end_open_before(desk.recorder)
    return client


def _library_name(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _wrapped(transport: Any, wrap: Any, desk: Desk) -> Any:
    return transport if isinstance(transport, _Wrapper) else wrap(transport, desk)


class ClientDraft(AccessDraft):
    """A client closes a stream once it has read the end mark: that is a whole answer."""

    def _ending(self, answer: AnswerFacts) -> Ending:
        if self.client_gone and self.status == 200 and answer.ended:
            self.client_gone, self.sent_all = False, True
        return super()._ending(answer)


class _Exchange:
    """One HTTP exchange, observed. It ends once."""

    def __init__(self, desk: Desk, request: Any) -> None:
        self._desk = desk
        self._begun_ns = time.perf_counter_ns()
        self._lock = threading.Lock()
        self._ended = False
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._key = desk.keys.resolve({}, headers)
        self.draft = _new_draft(desk, request, headers, self._key)
        _open.add(self)

    def begun(self, response: Any) -> None:
        """The status line and the headers are here."""
        draft, headers = self.draft, response.headers
        draft.status = response.status_code
        draft.answer_headers = {n: headers[n] for n in _KEPT_ANSWER_HEADERS if n in headers}
        if "x-request-id" in headers:
            upstream_id = headers["x-request-id"][:256]
            draft.attributes = {**draft.attributes, "upstream_request_id": upstream_id}

    def whole(self, response: Any) -> None:
        """An answer that was read already, from a cache for example: its stream is not asked."""
        self.begun(response)
        self.draft.answer_headers = {"content-type": response.headers.get("content-type", "")}
        if response.content:  # without the encoding that the header names
            self.piece(response.content)

    def piece(self, data: bytes) -> None:
        """Bytes that go to the client."""
        draft = self.draft
        if draft.first_chunk_ns is None:
            draft.first_chunk_ns = time.perf_counter_ns() - self._begun_ns
        draft.chunks += 1
        draft.answer.add(data)

    def complete(self) -> None:
        """The last byte was read. Raises NotDurable in strict mode."""
        if self._claim():
            self.draft.sent_all = True
            self._desk.hand_over(self._finished())

    async def complete_async(self) -> None:
        """`complete` for a coroutine."""
        if self._claim():
            self.draft.sent_all = True
            await self._desk.hand_over_async(self._finished())

    def failed(self, error: BaseException) -> None:
        """It ended with an exception; a cancelled task is a caller who left."""
        if self._claim():
            if isinstance(error, asyncio.CancelledError):
                self.draft.client_gone = True
            else:
                self.draft.raised = describe(error)
            self._desk.emit(self._finished())

    def left(self) -> None:
        """The client wants no more of it."""
        if self._claim():
            self.draft.client_gone = True
            self._desk.emit(self._finished())

    def forgotten(self) -> None:
        """`left`, from a finalizer."""
        if self._claim():
            self.draft.client_gone = True
            self._desk.emit_apart(self._finished())

    def _claim(self) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
            return first

    def _finished(self) -> ClientDraft:
        draft = self.draft
        draft.duration_ns = time.perf_counter_ns() - self._begun_ns
        draft.identity = _who(self._key, draft.status)
        return draft


def _new_draft(
    desk: Desk, request: Any, headers: Mapping[str, str], key: Identity | None
) -> ClientDraft:
    retry = headers.get(_RETRY_HEADER, "0")
    if retry == "0" or not _request_id.get():
        _request_id.set(str(uuid.uuid4()))
    kept = {name: headers[name] for name in _KEPT_REQUEST_HEADERS if name in headers}
    kept.setdefault("traceparent", traceparent.get())
    kept["x-request-id"] = headers.get("x-client-request-id") or _request_id.get()
    return ClientDraft(
        settings=desk.settings,
        content_key=desk.content_key,
        started_ns=time.time_ns(),
        method=request.method,
        path=request.url.path,
        headers=kept,
        request=Tape(desk.settings.body_max_bytes),
        answer=Tape(desk.settings.body_max_bytes),
        provider=_provider_of(request.url.host),
        component="openai_client",
        attributes={"retry": retry[:8]} if retry != "0" else {},
        identity=_who(key, None),
    )


def _provider_of(host: str) -> str:
    """gen_ai.provider.name; empty for hosts that are not known, where the setting counts."""
    found = (name for known, name in _PROVIDERS.items() if f".{host}".endswith(f".{known}"))
    return next(found, "")


def _who(key: Identity | None, status: int | None) -> Identity:
    """The caller of the context with the key used; a refused key says nothing against them."""
    by_key, by_context = judged(key or ANONYMOUS, status), caller.get()
    if by_context is None:
        return by_key
    return msgspec.structs.replace(by_context, key_id=by_context.key_id or by_key.key_id)


class _Pieces:
    """The bytes of an answer on their way to the client."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._stream:
                self._exchange.piece(piece)
                yield piece
        except GeneratorExit:  # `close` or the finalizer follows
            raise
        except BaseException as error:
            self._exchange.failed(error)
            raise
        self._exchange.complete()

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._exchange.left()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                self._exchange.piece(piece)
                yield piece
        except GeneratorExit:
            raise
        except BaseException as error:
            self._exchange.failed(error)
            raise
        await self._exchange.complete_async()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._exchange.left()

    def __del__(self) -> None:
        self._exchange.forgotten()


class _Asked:
    """The bytes of a request that is not in memory, a file for example, on their way out."""

    def __init__(self, stream: Any, tape: Tape) -> None:
        self._stream = stream
        self._tape = tape

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._tape.add(piece)
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._tape.add(piece)
            yield piece

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _library(request: Any) -> ModuleType:
    return sys.modules[_library_name(type(request))]


@functools.cache
def _of_library(kind: type, library: ModuleType, base: str) -> Any:
    """The class as a stream of that library, which asks for its own."""
    return type(kind.__name__, (kind, getattr(library, base)), {})


class _Wrapper:
    """A transport, watched. What is not about requests goes to the one inside."""

    base = "SyncByteStream"

    def __init__(self, inner: Any, desk: Desk) -> None:
        self._inner = inner
        self._desk = desk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _observed(self, request: Any) -> _Exchange:
        exchange = _Exchange(self._desk, request)
        try:
            exchange.draft.request.add(request.content)
        except Exception:  # not in memory, so it is read while it is sent
            kind = _of_library(_Asked, _library(request), self.base)
            request.stream = kind(request.stream, exchange.draft.request)
        return exchange

    def _answered(self, exchange: _Exchange, request: Any, response: Any) -> Any:
        exchange.begun(response)
        kind = _of_library(_Pieces, _library(request), self.base)
        response.stream = kind(response.stream, exchange)
        return response


class _Transport(_Wrapper):
    def handle_request(self, request: Any) -> Any:
        exchange = self._observed(request)
        try:
            self._desk.announce(exchange.draft)
            response = self._inner.handle_request(request)
        except BaseException as error:
            exchange.failed(error)
            raise
        if response.is_closed:
            exchange.whole(response)
            exchange.complete()
            return response
        return self._answered(exchange, request, response)

    def __enter__(self) -> _Transport:
        self._inner.__enter__()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._inner.__exit__(*arguments)


class _AsyncTransport(_Wrapper):
    base = "AsyncByteStream"

    async def handle_async_request(self, request: Any) -> Any:
        exchange = self._observed(request)
        try:
            await self._desk.announce_async(exchange.draft)
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            exchange.failed(error)
            raise
        if response.is_closed:
            exchange.whole(response)
            await exchange.complete_async()
            return response
        return self._answered(exchange, request, response)

    async def __aenter__(self) -> _AsyncTransport:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *arguments: Any) -> None:
        await self._inner.__aexit__(*arguments)


_open: weakref.WeakSet[_Exchange] = weakref.WeakSet()
_registered: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _end_open_before(recorder: Recorder) -> None:
    """Streams that are open when the process ends are recorded before the recorder closes."""
    if recorder not in _registered:
        _registered.add(recorder)
        atexit.register(_leave_open)  # runs before what the recorder registered earlier


def _leave_open() -> None:
    for exchange in list(_open):
        exchange.left()
