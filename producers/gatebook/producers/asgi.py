"""The ASGI middleware: one access event per HTTP request, whatever its end.

    attach(app)                    # FastAPI, Starlette
    app = GatebookMiddleware(app)  # any other

Pure ASGI: bytes pass through as they are, chunk by chunk. On the event loop it only keeps
references and counts; bodies and headers are read, and the caller is identified, in the recorder's
writer thread. WebSockets pass through
without an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from gatebook.producers.classify import describe
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import Provenance
from gatebook.producers.identity import Identity, IdentityResolver, content_key
from gatebook.producers.identity_chain import Identifier, headers_read
from gatebook.producers.recorder import NotDurable, Recorder
from gatebook.producers.seen import Post, Seen, SeenIntent, all_headers

log = logging.getLogger("gatebook.producers")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ResolveIdentity = Callable[[Scope], Identity | None]

# Versions of ASGI's HTTP part in which a server's send does not raise because the client is gone.
_SILENT_VERSIONS = frozenset({"2.0", "2.1", "2.2", "2.3"})
UNAVAILABLE_BODY = (
    b'{"error":{"message":"The access could not be recorded, so it was refused.",'
    b'"type":"audit_unavailable","code":"audit_unavailable"}}'
)
STREAM_END_MARK = b"[DONE]"


class Attachable(Protocol):
    """What `attach` needs of an application: FastAPI and Starlette have it."""

    def add_middleware(self, middleware_class: Any, /) -> None:
        """Wrap what there is so far. The middleware is made when the first request comes."""


def attach(app: Attachable, **given: Any) -> None:
    """Add GatebookMiddleware to a FastAPI or Starlette application; `given` are its arguments.

    `app.add_middleware(GatebookMiddleware)` would make it at the first request. Here it is made
    now: raises Fatal where a setting is wrong, so that the service does not start.
    """
    made = GatebookMiddleware(_not_wrapped, **given)

    def wrap(inner: App) -> GatebookMiddleware:
        made.app = inner
        return made

    app.add_middleware(wrap)


async def _not_wrapped(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the application is not wrapped yet")


class GatebookMiddleware:
    """Records accesses to the ASGI application it wraps. Raises Fatal where a setting is wrong.

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
        ours_alone = resolve_identity is None and not resolvers
        self.post = Post(
            self.settings,
            content_key(secret),
            provenance,
            self.identifier.identify,
            headers_read(self.settings) if ours_alone else None,
        )
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


class _Exchange:
    """One request, observed. Its methods run for every message of every stream: each does as little
    as it can."""

    def __init__(
        self, middleware: GatebookMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.middleware = middleware
        self.scope = scope
        self._receive = receive
        self._send = send
        self._recorded = False
        self.seen = Seen(middleware.post, scope)

    def identify(self, status: int | None) -> Identity | None:
        """The caller, as far as it is known now; None where the writer's thread finds out."""
        if self.middleware.post.identify_late:
            return None
        scope, began = self.scope, self.seen.started_ns / 1e9
        return self.middleware.identifier.identify(scope, all_headers(scope), status, began)

    def intent(self) -> SeenIntent:
        """The record before the call."""
        return SeenIntent(self.seen, self.identify(None))

    def announce(self) -> None:
        """Emit the intent. It is durable a moment later: a process that is killed within that
        moment leaves neither intent nor event."""
        try:
            self.middleware.recorder.emit_draft(self.intent())
        except Exception as error:
            log.error("an intent could not be recorded: %s", type(error).__name__)

    async def run(self) -> None:
        """Run the application; the event is emitted whatever happens."""
        if self.seen.post.writes_intents:
            self.announce()
        try:
            await self.middleware.app(self.scope, self.receive, self.sender())
        except BaseException as error:
            self.seen.raised = describe(error)
            raise
        finally:
            self.record()

    def sender(self) -> Send:
        """The `send` that the application is given. Servers of ASGI 2.4 and later raise OSError
        once the client is gone, and only theirs needs to be looked for.

        A chunk is noted here as `observe` and `Tape.add` do it, without their calls, and handed on
        as the server's own awaitable: this runs for every chunk of every stream.
        """
        if _raises_when_gone(self.scope):
            return self.send_looking
        seen, hand_on, tell = self.seen, self._send, self.send
        tape = seen.answer
        keep, max_bytes = tape.parts.append, tape.max_bytes

        def send(message: Message) -> Awaitable[None]:
            if message.get("more_body"):  # which is to say, a chunk
                body = message.get("body", b"")
                before = tape.total_bytes
                total = before + len(body)
                if before < total <= max_bytes and body.__class__ is bytes:
                    if not before:
                        seen.first_chunk_ns = time.perf_counter_ns() - seen.begun_ns
                    tape.total_bytes = total
                    keep(body)
                    return hand_on(message)
            return tell(message)

        return send

    def record(self) -> None:
        """Emit the event, once. A recorder that fails must not cost the caller the answer."""
        if self._recorded:
            return
        try:
            self.middleware.recorder.emit_draft(self.finished())
        except Exception as error:
            log.error("an access could not be recorded: %s", type(error).__name__)

    def finished(self) -> Seen:
        """The draft, complete. What is seen from here on is not in it."""
        self._recorded = True
        seen = self.seen
        seen.duration_ns = time.perf_counter_ns() - seen.begun_ns
        if not seen.post.identify_late:
            seen.identity = self.identify(seen.status)
        return seen

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.seen.request.add(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self.seen.sent_all:
            self.seen.client_gone = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Note a message and hand it on. The last one is sent when the server has taken it."""
        self.observe(message)
        return self._send_last(message) if _is_last(message) else self._send(message)

    async def send_looking(self, message: Message) -> None:
        """`send`, where it may raise because the client is gone."""
        self.observe(message)
        await self.forward(message)
        if _is_last(message):
            self.seen.sent_all = True

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        self.seen.sent_all = True

    async def forward(self, message: Message) -> None:
        """Hand a message to the server."""
        try:
            await self._send(message)
        except OSError:
            self.seen.client_gone = True
            raise

    def observe(self, message: Message) -> None:
        """Note what a message says."""
        seen = self.seen
        if message["type"] == "http.response.start":
            seen.status = message["status"]
            seen.answer_headers = tuple(message.get("headers") or ())
        elif message["type"] == "http.response.body" and message.get("body"):
            if seen.first_chunk_ns is None:
                seen.first_chunk_ns = time.perf_counter_ns() - seen.begun_ns
            seen.answer.add(bytes(message["body"]))


def _raises_when_gone(scope: Scope) -> bool:
    asgi = scope.get("asgi")
    return asgi is not None and asgi.get("spec_version", "2.0") not in _SILENT_VERSIONS


def _is_last(message: Message) -> bool:
    kind = message["type"]
    if kind == "http.response.body":
        return not message.get("more_body", False)
    return bool(kind == "http.response.pathsend")  # the server sends a file by itself


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
        if self._refused and self.seen.streamed:
            raise NotDurable("spool_unavailable")  # the server cuts the connection

    def announce(self) -> None:
        """Done before, durably."""

    def sender(self) -> Send:
        """What is held back is looked at in any case."""
        return self._send_held

    async def _announced(self) -> bool:
        """Whether the intent is durable; without intents, whether the event could become so."""
        recorder = self.middleware.recorder
        if not recorder.accepts_durably():
            return False
        if not self.seen.post.writes_intents:
            return True
        try:
            await recorder.emit_durable_async(self.intent())
        except NotDurable as error:
            log.error("a request was refused: %s", error)
            return False
        return True

    def record(self) -> None:
        """See _Exchange. What is still held back was not sent."""
        if self._held and not self.seen.streamed:
            self.seen.status = None
        super().record()

    async def _send_held(self, message: Message) -> None:
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
        if not self.seen.streamed:
            return self.seen.answer.total_bytes <= self.middleware.settings.body_max_bytes
        return bool(self._held) or STREAM_END_MARK in message.get("body", b"")

    async def _release(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self.forward(message)

    async def _end(self, message: Message) -> None:
        """The answer is complete: make the event durable, then let the answer go."""
        self.seen.sent_all = True
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
        seen = self.seen = self.seen.again()
        if any(m["type"] == "http.response.start" for m in self._held):
            self._held.clear()
            await self._answer_unavailable()
        else:
            seen.sent_all = False
        self._recorded = False  # `run` emits the other event

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
        self.seen.sent_all = True
