"""The WSGI middleware (PEP 3333): one access event per request, whatever its end.

    app = GatebookWsgiMiddleware(app)

Pieces pass through as they are, one by one, with the application's own `close()`. In the request it
only keeps references and counts; bodies are read in the recorder's writer thread. A server that
closes the answer before its end is taken for one whose caller has gone.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gatebook.producers.addresses import source_of
from gatebook.producers.asgi import STREAM_END_MARK, UNAVAILABLE_BODY
from gatebook.producers.call_draft import Desk
from gatebook.producers.classify import describe
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft, IntentDraft, Provenance
from gatebook.producers.identity import Identity, IdentityResolver
from gatebook.producers.identity_chain import Identifier
from gatebook.producers.ids import uuid7
from gatebook.producers.recorder import NotDurable, Recorder
from gatebook.producers.seen import KEPT_ANSWER_HEADERS, KEPT_REQUEST_HEADERS
from gatebook.producers.tape import Tape

log = logging.getLogger("gatebook.producers")

Environ = dict[str, Any]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]


class GatebookWsgiMiddleware:
    """Records accesses to the WSGI application it wraps.

    Without `recorder` it makes one, from `settings` or the environment; the recorder closes itself
    when the process ends. `resolve_identity` and `resolvers` get an ASGI scope made of the environ,
    and come before the resolvers of the settings. `provenance` tells where the answers come from.
    """

    def __init__(
        self,
        app: WsgiApp,
        recorder: Recorder | None = None,
        settings: ProducerSettings | None = None,
        resolve_identity: Callable[[Mapping[str, Any]], Identity | None] | None = None,
        resolvers: Sequence[IdentityResolver] = (),
        provenance: Provenance | None = None,
    ) -> None:
        self.app = app
        self.desk = Desk(recorder, settings)
        self.settings = self.desk.settings
        self.provenance = provenance
        self.identifier = Identifier(self.settings, self.desk.secret, resolve_identity, resolvers)
        self.trusted = self.settings.trusted_networks()
        self._excluded = frozenset(self.settings.exclude_paths)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if _path(environ) in self._excluded:
            return self.app(environ, start_response)
        self.identifier.start()  # in this process; harmless when it is done
        exchange = _Exchange(self, environ)
        if self.desk.strict:
            return _Strict(exchange, environ, start_response).run()
        exchange.announce()
        answer = exchange.call(exchange.watched(environ), exchange.noting(start_response))
        return (_Sized if hasattr(answer, "__len__") else _Answer)(exchange, answer)


class _Exchange:
    """One request, observed."""

    def __init__(self, middleware: GatebookWsgiMiddleware, environ: Environ) -> None:
        self.middleware = middleware
        self._begun = time.perf_counter_ns()
        self._scope = _scope(environ)
        self._headers = _headers(environ)
        self._length: int | None = None
        self.recorded = False
        self.draft = self._new_draft()

    def _new_draft(self) -> AccessDraft:
        settings, client = self.middleware.settings, self._scope["client"]
        source_ip = source_of(
            client, self._headers, self.middleware.trusted, settings.forwarded_header
        )
        return AccessDraft(
            settings=settings,
            content_key=self.middleware.desk.content_key,
            started_ns=time.time_ns(),
            method=self._scope["method"],
            path=self._scope["path"],
            headers={n: v for n, v in self._headers.items() if n in KEPT_REQUEST_HEADERS},
            source_ip=source_ip,
            source_port=client[1] if client and source_ip == client[0] else None,
            request=Tape(settings.body_max_bytes),
            answer=Tape(settings.body_max_bytes),
            provenance=self.middleware.provenance,
            event_id=uuid7() if settings.writes_intents else "",
        )

    def watched(self, environ: Environ) -> Environ:
        """The environ with an input that is noted as it is read."""
        body = environ.get("wsgi.input")
        return environ if body is None else {**environ, "wsgi.input": _Input(body, self.draft)}

    def noting(self, start_response: StartResponse) -> StartResponse:
        """`start_response` that is noted, as is what its `write` is given."""

        def noted(status: str, headers: Headers, exc_info: Any = None) -> Write:
            self.start(status, headers)
            more = (exc_info,) if exc_info is not None else ()
            write = start_response(status, headers, *more)

            def noted_write(piece: bytes) -> object:
                self.observe(piece)
                return self.forward(write, piece)

            return noted_write

        return noted

    def start(self, status: str, headers: Headers) -> None:
        """Note how an answer begins; of several, the last counts."""
        named = {name.lower(): value for name, value in headers}
        code, length = status[:3], named.get("content-length", "")
        self.draft.status = int(code) if code.isdigit() else None
        self._length = int(length) if length.isdigit() else None
        self.draft.answer_headers = {n: v for n, v in named.items() if n in KEPT_ANSWER_HEADERS}

    def observe(self, piece: bytes) -> None:
        """Note a piece of the answer."""
        if not piece:
            return
        if self.draft.first_chunk_ns is None:
            self.draft.first_chunk_ns = time.perf_counter_ns() - self._begun
        self.draft.chunks += 1
        self.draft.answer.add(bytes(piece))

    def forward(self, write: Write, piece: bytes) -> object:
        """Hand a piece to the server's `write`."""
        try:
            return write(piece)
        except OSError:  # the connection is gone
            self.draft.client_gone = True
            raise

    def call(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Call the application; where it raises, that is the end of the access."""
        try:
            return self.middleware.app(environ, start_response)
        except BaseException as error:
            self.failed(error)
            self.record()
            raise

    def failed(self, error: BaseException) -> None:
        """The application raised."""
        self.draft.raised = describe(error)

    def closed(self) -> None:
        """The server wants no more of the answer."""
        draft = self.draft
        # Without content there is nothing to wait for; behind the stated length there is no more.
        if draft.method == "HEAD" or self._length == draft.answer.total_bytes:
            draft.sent_all = True
        draft.client_gone |= not draft.sent_all and draft.raised is None
        self.record()

    def identify(self, status: int | None) -> Identity:
        """The caller, as far as it is known now."""
        started_at_seconds = self.draft.started_ns / 1e9
        return self.middleware.identifier.identify(
            self._scope, self._headers, status, started_at_seconds
        )

    def announce(self) -> None:
        """Emit the intent, if intents are written."""
        if self.draft.event_id:
            self.middleware.desk.emit(self.intent())

    def intent(self) -> Any:
        """The record before the call."""
        return IntentDraft(self.draft, self.identify(None))

    def record(self) -> None:
        """Emit the event, once. A recorder that fails must not cost the caller the answer."""
        if not self.recorded:
            self.middleware.desk.emit(self.finished())

    def finished(self) -> AccessDraft:
        """The draft, complete. What is seen from here on is not in it."""
        self.recorded = True
        self.draft.duration_ns = time.perf_counter_ns() - self._begun
        self.draft.identity = self.identify(self.draft.status)
        return self.draft

    def redraft(self, **changes: Any) -> None:
        """Go on with another draft of the same request; the first may be in the writer's hands."""
        self.draft = dataclasses.replace(self.draft, **changes)
        self.recorded = False


class _Answer:
    """The application's iterable, observed."""

    def __init__(self, exchange: _Exchange, answer: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._answer = answer
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> _Answer:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            if self._pieces is None:
                self._pieces = iter(self._answer)
            piece = next(self._pieces)
        except StopIteration:
            exchange.draft.sent_all = True
            raise
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.observe(piece)
        return piece

    def close(self) -> None:
        """The server is through with the answer, at its end or before."""
        try:
            getattr(self._answer, "close", _nothing)()
        finally:
            self._exchange.closed()

    def __del__(self) -> None:
        # A server that does not call close() breaks the standard; the access is recorded all the
        # same, from another thread: this one may hold any lock just now.
        exchange = self._exchange
        if not exchange.recorded:
            exchange.draft.client_gone |= not exchange.draft.sent_all
            exchange.middleware.desk.emit_apart(exchange.finished())


class _Sized(_Answer):
    """With the length of a list: from one piece a server makes a Content-Length."""

    def __len__(self) -> int:
        return len(self._answer)  # type: ignore[arg-type]  # made only for what has one


class _Strict:
    """A request that must not succeed unrecorded.

    The application is not called before the intent is durable, unless intents are off. An answer
    is held back until its event is durable; of a stream, only its end is. Where that fails the
    caller gets a 503, or a stream without its end.
    """

    def __init__(
        self, exchange: _Exchange, environ: Environ, start_response: StartResponse
    ) -> None:
        self._exchange = exchange
        self._environ = environ
        self._start_response = start_response
        self._begin: tuple[Any, ...] | None = None  # what start_response was called with
        self._held: list[bytes] = []
        self._sent = False
        self._answer: Iterable[bytes] = ()
        self._released: Iterator[bytes] = iter(())

    def __iter__(self) -> Iterator[bytes]:
        return self._released

    def close(self) -> None:
        """The server is through with the answer, at its end or before."""
        try:
            getattr(self._answer, "close", _nothing)()
        finally:
            self._exchange.closed()

    def run(self) -> Iterable[bytes]:
        """The answer, or the 503 in its place."""
        exchange = self._exchange
        if not self._announced():
            refusal = self._refuse()
            exchange.record()
            return refusal
        self._answer = exchange.call(exchange.watched(self._environ), self._noted)
        self._released = self._pieces()
        return self

    def _announced(self) -> bool:
        """Whether the intent is durable; without intents, whether the event could become so."""
        recorder, draft = self._exchange.middleware.desk.recorder, self._exchange.draft
        if not recorder.accepts_durably():
            return False
        return not draft.event_id or self._durable(self._exchange.intent())

    def _durable(self, draft: Any) -> bool:
        try:
            self._exchange.middleware.desk.recorder.emit_durable(draft)
        except NotDurable as error:
            log.error("a request was refused: %s", error)
            return False
        return True

    def _noted(self, status: str, headers: Headers, exc_info: Any = None) -> Write:
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self._exchange.start(status, headers)
        self._begin = (status, headers)
        return self._hold

    def _hold(self, piece: bytes) -> None:
        self._exchange.observe(piece)
        self._held.append(piece)

    def _pieces(self) -> Iterator[bytes]:
        exchange = self._exchange
        try:
            for piece in self._answer:
                self._hold(piece)
                if not self._must_wait():
                    yield from self._release()
            exchange.draft.sent_all = True
            if self._durable(exchange.finished()):
                yield from self._release()
            else:
                yield from self._fail()
        except Exception as error:
            exchange.failed(error)
            raise

    def _must_wait(self) -> bool:
        draft = self._exchange.draft
        if not draft.streamed:
            return draft.answer.total_bytes <= self._exchange.middleware.settings.body_max_bytes
        return any(STREAM_END_MARK in piece for piece in self._held)

    def _release(self) -> Iterator[bytes]:
        held, self._held = self._held, []
        if not self._sent and self._begin is not None:
            self._start_response(*self._begin)
            self._sent = True
        yield from held

    def _fail(self) -> Iterator[bytes]:
        """The event was dropped, and is counted so; another one says what the caller got."""
        if self._sent:
            self._exchange.redraft(sent_all=False)
            raise NotDurable("spool_unavailable")  # the server cuts the connection
        self._held.clear()
        max_bytes = self._exchange.middleware.settings.body_max_bytes
        self._exchange.redraft(answer=Tape(max_bytes), chunks=0, first_chunk_ns=None)
        yield from self._refuse()

    def _refuse(self) -> list[bytes]:
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(UNAVAILABLE_BODY))),
            ("Retry-After", "5"),
        ]
        self._exchange.start("503 Service Unavailable", headers)
        self._start_response("503 Service Unavailable", headers)
        self._sent = True
        self._exchange.observe(UNAVAILABLE_BODY)
        self._exchange.draft.sent_all = True
        return [UNAVAILABLE_BODY]


class _Input:
    """wsgi.input, noted as it is read."""

    def __init__(self, body: Any, draft: AccessDraft) -> None:
        self._body = body
        self._draft = draft

    def _noted(self, data: Any) -> Any:
        if data:
            self._draft.request.add(bytes(data))
        return data

    def _read(self, read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except OSError:  # the connection broke within the request
            self._draft.client_gone = True
            raise

    def read(self, *size: int) -> Any:
        """See PEP 3333."""
        return self._noted(self._read(self._body.read, *size))

    def readline(self, *size: int) -> Any:
        """See PEP 3333."""
        return self._noted(self._read(self._body.readline, *size))

    def readlines(self, *hint: int) -> Any:
        """See PEP 3333."""
        return [self._noted(line) for line in self._read(self._body.readlines, *hint)]

    def readinto(self, buffer: Any) -> Any:
        """Beyond the standard; some servers have it."""
        count = self._read(self._body.readinto, buffer)
        self._noted(memoryview(buffer)[: count or 0])
        return count

    def __iter__(self) -> Iterator[Any]:
        for line in self._body:
            yield self._noted(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def _nothing() -> None:
    """What an iterable without close() does at its end."""


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """Header names in lower case to values."""
    found = {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            found[name.replace("_", "-").lower()] = str(environ[name])
    return found


def _path(environ: Mapping[str, Any]) -> str:
    """The whole path. WSGI gives its bytes as Latin-1."""
    raw = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def _scope(environ: Mapping[str, Any]) -> dict[str, Any]:
    """What ASGI would say of the same request, as far as resolvers ask for it."""
    peer, port = str(environ.get("REMOTE_ADDR", "")), str(environ.get("REMOTE_PORT", ""))
    return {
        "type": "http",
        "method": str(environ.get("REQUEST_METHOD", "")),
        "path": _path(environ),
        "headers": [
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in _headers(environ).items()
        ],
        "client": (peer, int(port) if port.isdigit() else None) if peer else None,
        "wsgi.environ": environ,
    }
