"""The WSGI middleware: PEP 3333 kept to on both sides, and one event whatever the server does."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from tests.waiting import wait_until

from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware
from gatebook.producers.identity import Identity

CHAT = "/v1/chat/completions"
JSON = [("Content-Type", "application/json")]
SSE = [("Content-Type", "text/event-stream")]
ANSWER = json.dumps({"model": "m", "choices": [{"message": {"content": "a"}}]}).encode()
PIECES = [
    b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


def answer(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", JSON)
    return [ANSWER]


def stream(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", SSE)
    yield from PIECES


class Server:
    """The part of a WSGI server that middleware can tell."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []
        self.received: list[bytes] = []

    def start_response(self, *arguments: Any) -> Callable[[bytes], Any]:
        self.started.append(arguments)
        return self.received.append

    def environ(self, body: bytes = b"{}", **more: str) -> dict[str, Any]:
        given = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": CHAT,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "203.0.113.9",
            "wsgi.input": io.BytesIO(body),
            **more,
        }
        setup_testing_defaults(given)
        return given

    def run(self, app: Any, body: bytes = b"{}", **more: str) -> list[bytes]:
        """Call, iterate and close, as servers do."""
        answer = app(self.environ(body, **more), self.start_response)
        try:
            self.received.extend(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        return self.received


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def wrap(make_recorder: Any, published: Any) -> Any:
    """Wraps an application; `wrap.events()` gives the terminal events that came of it."""

    class Wrap:
        recorder: Any = None

        def __call__(self, app: Any, hook: Any = None, **settings: Any) -> GatebookWsgiMiddleware:
            self.recorder = make_recorder(**settings)
            return GatebookWsgiMiddleware(app, self.recorder, resolve_identity=hook)

        def events(self) -> list[dict[str, Any]]:
            assert self.recorder.close(10).complete
            return [e for e in published.events() if e["gatebook"]["phase"] == "terminal"]

        def only_event(self) -> dict[str, Any]:
            (event,) = self.events()
            return event

    return Wrap()


@pytest.mark.parametrize("mode", ["buffered", "strict"])
@pytest.mark.parametrize("app", [answer, stream])
def test_the_standards_own_checker_finds_nothing(
    wrap: Any, server: Server, app: Any, mode: str
) -> None:
    """wsgiref.validate stands on both sides of the middleware."""
    checked = validator(wrap(validator(app), delivery_mode=mode))
    assert b"".join(server.run(checked)) == (ANSWER if app is answer else b"".join(PIECES))
    assert wrap.only_event()["event"]["outcome"] == "success"


def test_nothing_is_asked_for_before_the_server_wants_it(wrap: Any, server: Server) -> None:
    """A stream passes piece by piece: the next does not exist before the last was taken."""
    made: list[int] = []

    def lazy(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", SSE)
        for number, piece in enumerate(PIECES):
            made.append(number)
            yield piece

    result = iter(wrap(lazy)(server.environ(), server.start_response))
    assert made == []
    assert next(result) == PIECES[0]
    assert made == [0]


def test_a_list_of_one_keeps_its_length(wrap: Any, server: Server) -> None:
    """Servers make a Content-Length of it; a generator has none."""
    middleware = wrap(answer)
    assert len(middleware(server.environ(), server.start_response)) == 1
    streamed = wrap(stream)(server.environ(), server.start_response)
    assert not hasattr(streamed, "__len__")


def test_what_is_written_rather_than_returned_is_recorded(wrap: Any, server: Server) -> None:
    """`write()` is old, and part of the standard."""

    def writing(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", SSE)
        for piece in PIECES[:2]:
            write(piece)
        return [PIECES[2]]

    assert server.run(wrap(writing)) == PIECES
    event = wrap.only_event()
    assert event["gatebook"]["stream"]["chunks"] == 3
    assert event["gatebook"]["stream"]["completed"] is True


def test_a_client_that_is_gone_by_a_failing_write_is_recorded_so(wrap: Any) -> None:
    """The application sees the server's error."""

    def broken(*_: Any) -> Any:
        def write(_: bytes) -> None:
            raise BrokenPipeError

        return write

    def writing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", SSE)(PIECES[0])
        raise AssertionError("not reached")

    with pytest.raises(BrokenPipeError):
        wrap(writing)(Server().environ(), broken)
    assert wrap.only_event()["event"]["reason"] == "client_aborted"


class Closable:
    """An iterable that notes what is done with it."""

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self._pieces = iter(pieces)
        self._error = error
        self.closed = 0

    def __iter__(self) -> Closable:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self.closed += 1
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
@pytest.mark.parametrize("mode", ["buffered", "strict"])
def test_the_applications_close_is_called_once_wherever_the_server_stops(
    wrap: Any, server: Server, taken: int, mode: str
) -> None:
    """An answer that was not taken to its end is the client's leaving; one event in any case."""
    given = Closable(PIECES)

    def app(environ: Any, start_response: Any) -> Closable:
        start_response("200 OK", SSE)
        return given

    result = wrap(app, delivery_mode=mode)(server.environ(), server.start_response)
    pieces = iter(result)
    for _ in range(taken):
        next(pieces, None)
    result.close()
    assert given.closed == 1
    # strict makes the event durable before it lets the last piece go.
    whole = taken > (2 if mode == "strict" else 3)
    event = wrap.only_event()
    assert event["event"]["reason"] == ("" if whole else "client_aborted")


def test_a_close_that_fails_fails_and_is_recorded(wrap: Any, server: Server) -> None:
    """The server sees the application's error."""

    def app(environ: Any, start_response: Any) -> Closable:
        start_response("200 OK", SSE)
        return Closable(PIECES, RuntimeError("planted"))

    with pytest.raises(RuntimeError, match="planted"):
        server.run(wrap(app))
    assert wrap.only_event()["event"]["outcome"] == "success"


def test_a_generator_that_is_closed_early_sees_it(wrap: Any, server: Server) -> None:
    """GeneratorExit reaches the application, which can stop the model."""
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", SSE)
        try:
            yield from PIECES
        except GeneratorExit:
            seen.append("exit")
            raise

    result = wrap(app)(server.environ(), server.start_response)
    next(iter(result))
    result.close()
    assert seen == ["exit"]
    event = wrap.only_event()
    assert event["gatebook"]["stream"] == {"chunks": 1, "completed": False, "aborted_by": "client"}


def test_a_server_that_never_closes_is_recorded_all_the_same(wrap: Any, server: Server) -> None:
    """It breaks the standard; the access must not go unrecorded for that."""
    middleware = wrap(stream, intents="off")
    next(iter(middleware(server.environ(), server.start_response)))
    gc.collect()
    wait_until("the event", lambda: wrap.recorder.counters().emitted)
    assert wrap.only_event()["event"]["reason"] == "client_aborted"


def test_an_exception_within_a_stream_is_the_services(wrap: Any, server: Server) -> None:
    """It goes on to the server; the pieces before it are counted."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", SSE)
        yield PIECES[0]
        raise TimeoutError("planted")

    with pytest.raises(TimeoutError):
        server.run(wrap(app))
    event = wrap.only_event()
    assert event["event"]["reason"] == "timeout"
    assert event["gatebook"]["stream"]["chunks"] == 1
    assert "planted" not in repr(event)


def test_an_error_page_in_place_of_an_answer_is_what_counts(wrap: Any, server: Server) -> None:
    """start_response with exc_info replaces what was begun, and reaches the server with it."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", SSE)
        try:
            raise ValueError("planted")
        except ValueError:
            start_response("500 Internal Server Error", JSON, sys.exc_info())
        return [b'{"error":{"type":"oops"}}']

    server.run(wrap(app))
    assert [len(call) for call in server.started] == [2, 3]
    event = wrap.only_event()
    assert event["http"]["response"]["status_code"] == 500
    assert event["event"]["reason"] == "server_error"


@pytest.mark.parametrize("how", ["read", "sized", "readline", "readlines", "lines", "readinto"])
def test_a_request_is_known_however_it_is_read(wrap: Any, server: Server, how: str) -> None:
    """Every way of wsgi.input gives the application all bytes, and the record the model."""
    body = b'{"model":\n"tiny",\n"max_tokens": 3}'
    got: list[bytes] = []

    def read(source: Any) -> bytes:
        if how == "readinto":
            buffer = bytearray(100)
            return bytes(buffer[: source.readinto(buffer)])
        if how == "sized":
            return b"".join(iter(lambda: source.read(5), b""))
        if how == "readline":
            return b"".join(iter(source.readline, b""))
        return b"".join({"read": lambda: [source.read()], "readlines": source.readlines}.get(
            how, lambda: list(source)
        )())  # fmt: skip

    def app(environ: Any, start_response: Any) -> list[bytes]:
        got.append(read(environ["wsgi.input"]))
        return answer({**environ, "CONTENT_LENGTH": ""}, start_response)

    server.run(wrap(app), body)
    assert got == [body]
    event = wrap.only_event()
    assert event["gen_ai"]["request"]["model"] == "tiny"
    assert event["http"]["request"]["body"]["bytes"] == len(body)


def test_a_connection_that_breaks_within_the_request_is_the_clients_leaving(
    wrap: Any, server: Server
) -> None:
    """The application sees the error; the event says who left."""

    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError

    environ = {**server.environ(), "wsgi.input": Broken()}
    with pytest.raises(ConnectionResetError):
        wrap(answer)(environ, server.start_response)
    assert wrap.only_event()["event"]["reason"] == "client_aborted"


def test_path_address_and_caller_are_read_from_the_environ(wrap: Any, server: Server) -> None:
    """SCRIPT_NAME belongs to the path, UTF-8 is read as such, a proxy is believed where trusted."""
    bob = Identity(user_id="bob", method="sso", assurance="verified")
    app = wrap(answer, hook=lambda scope: bob, trusted_proxies=("10.0.0.0/8",))
    server.run(
        app,
        SCRIPT_NAME="/pr\u00c3\u00a4fix/v1",
        PATH_INFO="/chat/completions",
        REMOTE_ADDR="10.1.2.3",
        REMOTE_PORT="4321",
        HTTP_X_FORWARDED_FOR="198.51.100.7",
        HTTP_USER_AGENT="tests/1",
    )
    event = wrap.only_event()
    assert event["url"]["path"] == "/präfix/v1/chat/completions"
    assert event["event"]["action"] == "chat"
    assert event["source"] == {"ip": "198.51.100.7", "port": None}
    assert event["user"]["id"] == "bob"
    assert event["user_agent"]["original"] == "tests/1"


def test_excluded_paths_are_not_touched(wrap: Any, server: Server) -> None:
    """Health checks are not recorded; the answer is the application's own object."""
    middleware = wrap(answer)
    got = middleware(server.environ(PATH_INFO="/health"), server.start_response)
    assert got == [ANSWER]
    assert isinstance(got, list)
    assert wrap.events() == []


def test_a_head_request_that_is_not_iterated_is_whole(wrap: Any, server: Server) -> None:
    """Some servers do not ask for content they will not send."""
    environ = server.environ(REQUEST_METHOD="HEAD")
    wrap(stream)(environ, server.start_response).close()
    assert wrap.only_event()["event"]["reason"] != "client_aborted"


def test_an_answer_of_its_stated_length_is_whole(wrap: Any, server: Server) -> None:
    """Some servers stop asking behind the Content-Length."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*JSON, ("Content-Length", str(len(ANSWER)))])
        yield ANSWER

    result = wrap(app)(server.environ(), server.start_response)
    next(iter(result))
    result.close()
    assert wrap.only_event()["event"]["outcome"] == "success"


def break_spool(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every fsync of the spool fails."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    wrap.recorder.start()
    monkeypatch.setattr("gatebook.producers.spool.os.fdatasync", fail)


def test_strict_lets_an_answer_go_when_its_event_is_durable(wrap: Any, server: Server) -> None:
    """Not a moment before: its first piece comes with the event on disk."""
    app = wrap(answer, delivery_mode="strict", intents="off")
    result = app(server.environ(), server.start_response)
    assert server.started == []
    assert next(iter(result)) == ANSWER
    assert wrap.recorder.counters().spooled == 1
    result.close()
    assert wrap.only_event()["event"]["outcome"] == "success"


def test_strict_answers_503_where_the_event_cannot_be_kept(
    wrap: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's answer is withheld; the next request is not even begun."""
    called: list[int] = []

    def counting(environ: Any, start_response: Any) -> list[bytes]:
        called.append(1)
        return answer(environ, start_response)

    app = wrap(counting, delivery_mode="strict", intents="off")
    break_spool(wrap, monkeypatch)
    body = b"".join(server.run(app))
    assert json.loads(body)["error"]["type"] == "audit_unavailable"
    server.run(app)
    assert [call[0] for call in server.started] == ["503 Service Unavailable"] * 2
    assert called == [1]
    assert wrap.recorder.counters().dropped == {"spool_unavailable": 1}
    monkeypatch.undo()
    events = wrap.events()
    assert [e["http"]["response"]["status_code"] for e in events] == [503, 503]
    assert {e["event"]["reason"] for e in events} == {"unavailable"}


def test_strict_leaves_a_stream_without_its_end_where_the_event_cannot_be_kept(
    wrap: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller can tell that the answer is not whole."""
    app = wrap(stream, delivery_mode="strict", intents="off")
    break_spool(wrap, monkeypatch)
    with pytest.raises(Exception, match="not durable"):
        server.run(app)
    monkeypatch.undo()
    assert server.received == PIECES[:2]
    assert wrap.only_event()["event"]["outcome"] == "failure"
