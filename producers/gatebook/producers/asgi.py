"""The ASGI middleware: one access event per HTTP request, whatever its end.

    app = GatebookMiddleware(app)

Pure ASGI: bytes pass through as they are, chunk by chunk. On the event loop it only keeps
references and counts; bodies are read in the recorder's writer thread. WebSockets pass through
without an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from gatebook.producers.addresses import source_of
from gatebook.producers.classify import describe
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft, IntentDraft, Provenance
from gatebook.producers.identity import Identity, IdentityResolver, content_key
from gatebook.producers.identity_chain import Identifier
from gatebook.producers.ids import uuid7
from gatebook.producers.recorder import NotDurable, Recorder
from gatebook.producers.tape import Tape

log = logging.getLogger("gatebook.producers")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ResolveIdentity = Callable[[Scope], Identity | None]

# Headers that are read; the others, cookies and credentials among them, are not even kept.
KEPT_REQUEST_HEADERS = frozenset(
    {"user-agent", "host", "x-request-id", "traceparent", "content-type", "content-encoding"}
)
KEPT_ANSWER_HEADERS = frozenset({"content-type", "content-encoding", "x-request-id"})
UNAVAILABLE_BODY = (
    b'{"error":{"message":"The access could not be recorded, so it was refused.",'
    b'"type":"audit_unavailable","code":"audit_unavailable"}}'
)
STREAM_END_MARK = b"[DONE]"


class GatebookMiddleware:
    """Records accesses to the ASGI application it wraps.

    Without `recorder` it makes one, from `settings` or the environment, and closes it when the
    application shuts down; a recorder that is handed in is flushed then, and closed by its owner.
    `resolve_identity` is asked for the caller first, then `resolvers`, then those of the settings.
    `provenance` tells where the answers come from, for example a ModelProvenance.
    """

    def __init__(
        self,
        app: App,
        recorder: Recorder | None = None,
        settings: ProducerSettings | None = None,
        resolve_identity: ResolveIdentity | None = None,
        resolvers: Sequence[IdentityResolver] = (),
        provenance: Provenance | None = None,
    ) -> None:
        self.app = app
        self.provenance = provenance
        if recorder is not None and settings is None:
            settings = recorder.settings
        self.settings = (settings or ProducerSettings.from_env()).check()
        self._owns_recorder = recorder is None
        secret = self.settings.digest_secret()
        self.identifier = Identifier(self.settings, secret, resolve_identity, resolvers)
        self.recorder = recorder or Recorder(self.settings)
        self.content_key = content_key(secret)
        self.trusted = self.settings.trusted_networks()
        self._excluded = frozenset(self.settings.exclude_paths)
        self._strict = self.settings.delivery_mode == "strict"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._lifespan_send(send))
        elif scope["type"] != "http" or scope.get("path") in self._excluded:
            await self.app(scope, receive, send)
        else:
            kind = _StrictExchange if self._strict else _Exchange
            await kind(self, scope, receive, send).run()

    def _lifespan_send(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.identifier.start()
                await asyncio.to_thread(self.recorder.start)
            elif message["type"].startswith("lifespan.shutdown."):
                self.identifier.close()
                end = self.recorder.close if self._owns_recorder else self.recorder.flush
                await asyncio.to_thread(end)
            await send(message)

        return wrapped


def _headers(pairs: Any) -> dict[str, str]:
    """Header names in lower case to values; of a repeated one, all, joined by commas."""
    out: dict[str, str] = {}
    for raw_name, raw_value in pairs or ():
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        out[name] = f"{out[name]},{value}" if name in out else value
    return out


def _only(headers: Mapping[str, str], kept: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in kept}


class _Exchange:
    """One request, observed."""

    def __init__(
        self, middleware: GatebookMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.middleware = middleware
        self.scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter_ns()
        self._recorded = False
        self.draft = self._new_draft()

    def _new_draft(self) -> AccessDraft:
        settings = self.middleware.settings
        peer = self.scope.get("client") or ("", None)
        headers = self._request_headers = _headers(self.scope.get("headers"))
        source_ip = source_of(peer, headers, self.middleware.trusted, settings.forwarded_header)
        return AccessDraft(
            settings=settings,
            content_key=self.middleware.content_key,
            started_ns=time.time_ns(),
            method=str(self.scope.get("method", "")),
            path=str(self.scope.get("path", "")),
            headers=_only(headers, KEPT_REQUEST_HEADERS),
            source_ip=source_ip,
            source_port=peer[1] if source_ip == str(peer[0]) else None,
            request=Tape(settings.body_max_bytes),
            answer=Tape(settings.body_max_bytes),
            provenance=self.middleware.provenance,
            event_id=uuid7() if settings.writes_intents else "",
        )

    def identify(self, status: int | None) -> Identity:
        """The caller, as far as it is known now."""
        return self.middleware.identifier.identify(
            self.scope, self._request_headers, status, self.draft.started_ns / 1e9
        )

    def intent(self) -> IntentDraft:
        """The record before the call."""
        return IntentDraft(self.draft, self.identify(None))

    def announce(self) -> None:
        """Emit the intent, if intents are written. It is durable a moment later: a process that
        is killed within that moment leaves neither intent nor event."""
        if not self.draft.event_id:
            return
        try:
            self.middleware.recorder.emit(self.intent())
        except Exception as error:
            log.error("an intent could not be recorded: %s", type(error).__name__)

    async def run(self) -> None:
        """Run the application; the event is emitted whatever happens."""
        self.announce()
        try:
            await self.middleware.app(self.scope, self.receive, self.send)
        except BaseException as error:
            self.draft.raised = describe(error)
            raise
        finally:
            self.record()

    def record(self) -> None:
        """Emit the event, once. A recorder that fails must not cost the caller the answer."""
        if self._recorded:
            return
        try:
            self.middleware.recorder.emit(self.finished())
        except Exception as error:
            log.error("an access could not be recorded: %s", type(error).__name__)

    def finished(self) -> AccessDraft:
        """The draft, complete. What is seen from here on is not in it."""
        self._recorded = True
        draft = self.draft
        draft.duration_ns = time.perf_counter_ns() - self._begun
        draft.identity = self.identify(draft.status)
        return draft

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.draft.request.add(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self.draft.sent_all:
            self.draft.client_gone = True
        return message

    async def send(self, message: Message) -> None:
        self.observe(message)
        await self.forward(message)
        if _is_last(message):
            self.draft.sent_all = True

    async def forward(self, message: Message) -> None:
        """Hand a message to the server."""
        try:
            await self._send(message)
        except OSError:  # what ASGI 2.4 servers raise once the client is gone
            self.draft.client_gone = True
            raise

    def observe(self, message: Message) -> None:
        """Note what a message says."""
        draft = self.draft
        if message["type"] == "http.response.start":
            draft.status = message["status"]
            draft.answer_headers = _only(_headers(message.get("headers")), KEPT_ANSWER_HEADERS)
        elif message["type"] == "http.response.body" and message.get("body"):
            if draft.first_chunk_ns is None:
                draft.first_chunk_ns = time.perf_counter_ns() - self._begun
            draft.chunks += 1
            draft.answer.add(bytes(message["body"]))


def _is_last(message: Message) -> bool:
    if message["type"] == "http.response.pathsend":  # the server sends a file by itself
        return True
    return message["type"] == "http.response.body" and not message.get("more_body", False)


class _StrictExchange(_Exchange):
    """A request that must not succeed unrecorded.

    The application is not called before the intent is durable, unless intents are off. An answer
    is held back until its event is durable; of a stream, only its end is. Where that fails the
    caller gets a 503, or a stream without its end.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._held: list[Message] = []
        self._refused = False

    async def run(self) -> None:
        """Refuse beforehand where the event could not be kept anyway."""
        if not await self._announced():
            try:
                await self._answer_unavailable()
            finally:
                self.record()
            return
        await super().run()
        if self._refused and self.draft.streamed:
            raise NotDurable("spool_unavailable")  # the server cuts the connection

    def announce(self) -> None:
        """Done before, durably."""

    async def _announced(self) -> bool:
        """Whether the intent is durable; without intents, whether the event could become so."""
        recorder = self.middleware.recorder
        if not recorder.accepts_durably():
            return False
        if not self.draft.event_id:
            return True
        try:
            await recorder.emit_durable_async(self.intent())
        except NotDurable as error:
            log.error("a request was refused: %s", error)
            return False
        return True

    def record(self) -> None:
        """See _Exchange. What is still held back was not sent."""
        if self._held and not self.draft.streamed:
            self.draft.status = None
        super().record()

    async def send(self, message: Message) -> None:
        if self._refused:
            return
        self.observe(message)
        if _is_last(message):
            await self._end(message)
        elif self._must_wait(message):
            self._held.append(message)
        else:
            await self._release()
            await self.forward(message)

    def _must_wait(self, message: Message) -> bool:
        if not self.draft.streamed:
            return self.draft.answer.total_bytes <= self.middleware.settings.body_max_bytes
        return bool(self._held) or STREAM_END_MARK in message.get("body", b"")

    async def _release(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self.forward(message)

    async def _end(self, message: Message) -> None:
        """The answer is complete: make the event durable, then let the answer go."""
        self.draft.sent_all = True
        try:
            await self.middleware.recorder.emit_durable_async(self.finished())
        except NotDurable as error:
            log.error("a request was refused: %s", error)
            await self._refuse()
        else:
            await self._release()
            await self.forward(message)

    async def _refuse(self) -> None:
        """The event was dropped, and is counted so; another one says what the caller got."""
        self._refused = True
        draft = self.draft = self._redrafted()
        if any(m["type"] == "http.response.start" for m in self._held):
            self._held.clear()
            await self._answer_unavailable()
        else:
            draft.sent_all = False
        self._recorded = False  # `run` emits the other event

    def _redrafted(self) -> AccessDraft:
        """A draft of the same request; the first one may still be in the writer's hands."""
        old, new = self.draft, self._new_draft()
        new.started_ns, new.request, new.event_id = old.started_ns, old.request, old.event_id
        new.status, new.answer_headers = old.status, old.answer_headers
        new.chunks, new.first_chunk_ns = old.chunks, old.first_chunk_ns
        return new

    async def _answer_unavailable(self) -> None:
        self._refused = True
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
            (b"retry-after", b"5"),
        ]
        start: Message = {"type": "http.response.start", "status": 503, "headers": headers}
        body: Message = {"type": "http.response.body", "body": UNAVAILABLE_BODY}
        for message in (start, body):
            self.observe(message)
            await self.forward(message)
        self.draft.sent_all = True
