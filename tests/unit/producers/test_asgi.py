"""The middleware: one event per request, whatever its end, and nothing changed on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.identity import Identity, key_id

CHAT = "/v1/chat/completions"
QUESTION = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the planted question"},
    ],
    "temperature": 0.5,
    "max_tokens": 7,
    "user": "end-user-17",
    "tools": [{"type": "function", "function": {"name": "look_up"}}],
}
ANSWER = {
    "id": "chatcmpl-1",
    "model": "tiny-q4",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "the planted answer"},
         "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2},
    },
}  # fmt: skip
CHUNKS = [
    b'data: {"id":"c1","model":"tiny-q4","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n',
    b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"lo"}}],',
    b'"timings":{"prompt_n":4,"cache_n":1,"predicted_n":2}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


async def answer(request: Request) -> Response:
    await request.body()
    return JSONResponse(ANSWER, headers={"x-request-id": "req-1"})


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk

    return StreamingResponse(body(), media_type="text/event-stream")


def app_of(endpoint: Any) -> Starlette:
    return Starlette(routes=[Route(CHAT, endpoint, methods=["POST"])])


async def post(app: Any, body: Any = QUESTION, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, client=("203.0.113.9", 4321))
    async with httpx.AsyncClient(transport=transport, base_url="http://model.test") as client:
        content = body if isinstance(body, bytes) else json.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(CHAT, content=content, headers=given)


@pytest.fixture
def wrap(make_recorder: Any, published: Any) -> Any:
    """Wraps an application; `wrap.only_event()` gives the one event that came of it."""

    class Wrap:
        def __init__(self) -> None:
            self.recorder: Any = None

        def __call__(self, app: Any, hook: Any = None, **settings: Any) -> GatebookMiddleware:
            self.recorder = make_recorder(**settings)
            return GatebookMiddleware(app, self.recorder, resolve_identity=hook)

        def only_event(self) -> dict[str, Any]:
            assert self.recorder.close(10).complete
            (event,) = published.events()
            return dict(event)

    return Wrap()


async def test_a_successful_answer_is_described_without_its_content(wrap: Any) -> None:
    """Who, what and how it went stand in the event; question and answer do not."""
    response = await post(wrap(app_of(answer)), user_agent="tests/1")

    event = wrap.only_event()
    assert response.json() == ANSWER
    assert event["event"]["outcome"] == "success"
    assert event["event"]["action"] == "chat"
    assert event["event"]["type"] == "access"
    assert event["event"]["duration"] == event["event"]["end"] - event["timestamp"] > 0
    assert event["gen_ai"]["request"]["model"] == "tiny"
    assert event["gen_ai"]["request"]["message_count"] == 2
    assert event["gen_ai"]["request"]["max_tokens"] == 7
    assert event["gen_ai"]["response"]["model"] == "tiny-q4"
    assert event["gen_ai"]["response"]["finish_reasons"] == ["stop"]
    assert event["gen_ai"]["usage"]["input_tokens"] == 11
    assert event["gen_ai"]["usage"]["output_tokens"] == 3
    assert event["gen_ai"]["usage"]["cache_read"]["input_tokens"] == 2
    assert event["gen_ai"]["tool"]["offered"] == ["look_up"]
    assert event["http"]["request"]["id"] == "req-1"
    assert event["http"]["response"]["status_code"] == 200
    assert event["http"]["response"]["body"]["bytes"] == len(response.content)
    assert event["source"] == {"ip": "203.0.113.9", "port": 4321}
    assert event["user_agent"]["original"] == "tests/1"
    assert event["url"] == {"path": CHAT, "domain": "model.test"}
    assert event["gatebook"]["identity"]["method"] == "anonymous"
    assert event["gatebook"]["identity"]["on_behalf_of"] == "end-user-17"
    assert event["gatebook"]["phase"] == "terminal"
    assert event["service"]["name"] == "model-service"
    assert event["content"] is None
    assert "planted" not in repr(event)


async def test_a_stream_passes_byte_for_byte_and_is_put_together(wrap: Any) -> None:
    """Events cut over chunk borders are read; usage comes from the last one."""
    response = await post(wrap(app_of(stream)), {**QUESTION, "stream": True})

    event = wrap.only_event()
    assert response.content == b"".join(CHUNKS)
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["stream"] == {"chunks": 5, "completed": True, "aborted_by": ""}
    assert event["gen_ai"]["usage"]["input_tokens"] == 5
    assert event["gen_ai"]["usage"]["output_tokens"] == 2
    assert event["gen_ai"]["response"]["finish_reasons"] == ["length"]
    assert event["gen_ai"]["response"]["time_to_first_chunk"] > 0


async def test_content_is_captured_only_at_the_redacted_level(wrap: Any) -> None:
    """At `redacted` the event carries the messages as JSON, for intake to open."""
    await post(wrap(app_of(stream), capture_level="redacted"), {**QUESTION, "stream": True})

    event = wrap.only_event()
    content = json.loads(event["content"])
    assert event["content_encoding"] == "json"
    assert content["input_messages"] == [{"role": "user", "content": "the planted question"}]
    assert content["system_instructions"] == [{"role": "system", "content": "Be brief."}]
    assert content["output_messages"][0]["content"] == "Hello"
    assert event["gatebook"]["capture"]["truncated"] is False


async def test_content_above_the_limit_is_cut_and_said_so(wrap: Any) -> None:
    """Cut content stays valid JSON within the limit."""
    long = {**QUESTION, "messages": [{"role": "user", "content": "word " * 5000}]}
    await post(wrap(app_of(answer), capture_level="redacted", content_max_bytes=2000), long)

    event = wrap.only_event()
    assert len(event["content"]) <= 2000
    assert json.loads(event["content"])["input_messages"][0]["content"].endswith("word")
    assert event["gatebook"]["capture"]["truncated"] is True


async def test_at_level_none_only_the_access_itself_is_recorded(wrap: Any) -> None:
    """Completeness holds at every level: there is an event, with nothing of the caller in it."""
    await post(wrap(app_of(answer), capture_level="none"), authorization="Bearer sk-1")

    event = wrap.only_event()
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["capture"]["level"] == "none"
    assert event["gatebook"]["identity"]["key_id"] == ""
    assert event["source"]["ip"] == ""


async def test_equal_input_has_equal_digests_and_other_input_others(
    wrap: Any, published: Any
) -> None:
    """Digests recognise content that is not stored."""
    app = wrap(app_of(answer))
    reordered = dict(reversed(QUESTION.items()))
    for body in (QUESTION, reordered, {**QUESTION, "messages": []}):
        await post(app, body)

    wrap.recorder.close(10)
    digests = [e["gatebook"]["content_digest"] for e in published.events()]
    assert digests[0] == digests[1]
    assert len(digests[0]["input"]) == 64
    assert digests[0]["input"] != digests[2]["input"]
    assert digests[0]["output"] == digests[2]["output"] != ""


SECRET = "0123456789abcdef-secret"
ALICE_KEY = "sk-alice-planted"


def keys_file(tmp_path: Path) -> str:
    path = tmp_path / "keys.toml"
    entry = f'[keys.{key_id(SECRET.encode(), ALICE_KEY)}]\nuser_id = "alice"\nuser_roles = ["ml"]\n'
    path.write_text(entry)
    return str(path)


def identity_settings(tmp_path: Path) -> dict[str, str]:
    return {"key_digest_secret": SECRET, "identity_keys_file": keys_file(tmp_path)}


@pytest.mark.parametrize(
    "header", [{"authorization": f"Bearer {ALICE_KEY}"}, {"x_api_key": ALICE_KEY}]
)
async def test_a_known_key_names_its_owner_and_never_shows_itself(
    wrap: Any, tmp_path: Path, header: dict[str, str]
) -> None:
    """The key itself stands nowhere in the event."""
    await post(wrap(app_of(answer), **identity_settings(tmp_path)), **header)

    event = wrap.only_event()
    assert event["user"]["id"] == "alice"
    assert event["user"]["roles"] == ["ml"]
    assert event["gatebook"]["identity"]["assurance"] == "verified"
    assert event["gatebook"]["identity"]["key_id"] == key_id(SECRET.encode(), ALICE_KEY)
    assert "planted" not in repr(event)


async def test_an_unknown_key_that_is_served_is_asserted(wrap: Any, tmp_path: Path) -> None:
    """Whether the service checks keys is not known to the middleware."""
    await post(wrap(app_of(answer), **identity_settings(tmp_path)), x_api_key="sk-other")

    identity = wrap.only_event()["gatebook"]["identity"]
    assert (identity["method"], identity["assurance"]) == ("api_key", "asserted")


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthenticated"), (403, "forbidden")])
async def test_a_refused_caller_is_recorded_but_not_named(
    wrap: Any, tmp_path: Path, status: int, reason: str
) -> None:
    """A refused key proves nobody's identity, not even where it is in the file."""

    async def refuse(request: Request) -> Response:
        return JSONResponse({"error": {"message": "no", "type": "auth_error"}}, status)

    app = wrap(app_of(refuse), **identity_settings(tmp_path))
    await post(app, authorization=f"Bearer {ALICE_KEY}")

    event = wrap.only_event()
    assert event["user"]["id"] == ""
    assert event["gatebook"]["identity"]["assurance"] == "failed"
    assert event["gatebook"]["identity"]["key_id"].startswith("key_")
    assert event["event"]["category"] == "authentication"
    assert event["event"]["type"] == "denied"
    assert event["event"]["reason"] == reason
    assert event["error"]["type"] == "auth_error"
    assert event["source"]["ip"] == "203.0.113.9"


async def test_a_hook_names_the_caller_before_keys_are_looked_at(wrap: Any) -> None:
    """What single sign-on proved wins over an API key."""
    bob = Identity(user_id="bob", method="sso", assurance="verified", issuer="idp")
    await post(wrap(app_of(answer), hook=lambda scope: bob), x_api_key="sk-1")

    event = wrap.only_event()
    assert event["user"]["id"] == "bob"
    assert event["gatebook"]["identity"]["issuer"] == "idp"


async def test_a_hook_sees_the_scope_as_the_application_left_it(wrap: Any) -> None:
    """Whom the service itself signed in stands there only then."""

    async def signs_in(scope: Any, receive: Any, send: Any) -> None:
        scope["signed_in"] = "carol"
        await app_of(answer)(scope, receive, send)

    def hook(scope: Any) -> Identity:
        return Identity(user_id=scope["signed_in"], method="sso", assurance="verified")

    await post(wrap(signs_in, hook=hook))

    assert wrap.only_event()["user"]["id"] == "carol"


async def test_what_an_application_does_to_its_scope_changes_nobodys_identity(
    wrap: Any, tmp_path: Path
) -> None:
    """The caller is identified from the headers and the peer as they came, though later."""

    async def meddles(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"][:] = [(b"authorization", b"Bearer sk-forged"), (b"host", b"forged")]
        scope["client"] = ("192.0.2.99", 1)
        scope["path"] = "/forged"
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"{}"})

    app = wrap(meddles, **identity_settings(tmp_path))
    await post(app, authorization=f"Bearer {ALICE_KEY}")

    event = wrap.only_event()
    assert event["user"]["id"] == "alice"
    assert event["source"]["ip"] == "203.0.113.9"
    assert event["url"] == {"path": CHAT, "domain": "model.test"}


async def test_what_is_done_to_an_answer_outside_is_not_taken_for_what_was_inside(
    wrap: Any,
) -> None:
    """A compressing middleware around this one rewrites the headers it is handed."""
    inner = wrap(app_of(answer))

    async def compressing(scope: Any, receive: Any, send: Any) -> None:
        async def rewriting(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"][:] = [(b"content-encoding", b"br")]
            await send(message)

        await inner(scope, receive, rewriting)

    await post(compressing)

    event = wrap.only_event()
    assert event["gen_ai"]["response"]["model"] == "tiny-q4"
    assert event["gatebook"]["capture"]["degraded_reason"] == ""


async def test_a_refusal_is_recorded_even_where_nobody_can_be_identified(
    wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding out who called may fail in the writer's thread: the failed attempt still stands."""

    async def refuse(request: Request) -> Response:
        return JSONResponse({"error": {"message": "no"}}, 401)

    app = wrap(app_of(refuse))
    monkeypatch.setattr(app.post, "identify", lambda *_: 1 / 0)
    response = await post(app, authorization="Bearer sk-1")

    event = wrap.only_event()
    assert response.status_code == 401
    assert event["event"]["reason"] == "unauthenticated"
    assert event["source"]["ip"] == "203.0.113.9"
    assert event["gatebook"]["identity"]["assurance"] == "failed"


async def test_a_hook_that_fails_costs_the_name_and_not_the_request(wrap: Any) -> None:
    """The request is answered and recorded as anonymous."""
    response = await post(wrap(app_of(answer), hook=lambda scope: 1 / 0))

    assert response.status_code == 200
    assert wrap.only_event()["gatebook"]["identity"]["method"] == "anonymous"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "invalid_request"), (422, "invalid_request"), (404, "not_found"),
        (429, "rate_limited"), (408, "timeout"), (504, "timeout"), (500, "server_error"),
        (502, "upstream_error"), (503, "unavailable"),
    ],
)  # fmt: skip
async def test_a_failure_has_the_reason_of_its_status_and_fixed_words(
    wrap: Any, status: int, reason: str
) -> None:
    """The service's own words may quote a prompt: they are not in the event."""

    async def fail(request: Request) -> Response:
        return JSONResponse({"error": {"message": "planted words", "code": 7}}, status)

    await post(wrap(app_of(fail)))

    event = wrap.only_event()
    assert event["event"]["outcome"] == "failure"
    assert event["event"]["reason"] == reason
    assert event["error"]["type"] == reason
    assert event["error"]["code"] == "7"
    assert event["error"]["message"]
    assert "planted" not in repr(event)


async def test_a_refusal_by_a_filter_is_told_from_a_bad_request(wrap: Any) -> None:
    """A 400 whose code says content_filter is content_filtered."""

    async def fail(request: Request) -> Response:
        return JSONResponse({"error": {"message": "x", "code": "content_filter"}}, 400)

    await post(wrap(app_of(fail)))

    event = wrap.only_event()
    assert event["event"]["reason"] == "content_filtered"
    assert event["event"]["type"] == "denied"


@pytest.mark.parametrize(
    ("error", "reason", "name"),
    [
        (RuntimeError("planted"), "server_error", "RuntimeError"),
        (TimeoutError(), "timeout", "TimeoutError"),
        (httpx.ReadTimeout("x"), "timeout", "ReadTimeout"),
        (httpx.ConnectError("x"), "upstream_error", "ConnectError"),
        (ExceptionGroup("g", [httpx.ReadError("x")]), "upstream_error", "ReadError"),
    ],
)
async def test_an_exception_is_recorded_and_goes_on(
    wrap: Any, error: Exception, reason: str, name: str
) -> None:
    """The server sees the application's exception as if there were no middleware."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await post(wrap(app))

    event = wrap.only_event()
    assert caught.value is error
    assert caught.value.__traceback__ is not None
    assert event["event"]["reason"] == reason
    assert event["error"]["type"] == name
    assert event["http"]["response"]["status_code"] is None
    assert "planted" not in repr(event)


def raw_scope(path: str = CHAT, headers: Any = ()) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "headers": list(headers),
        "client": ("198.51.100.7", 5), "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip


async def test_a_client_that_leaves_mid_stream_is_recorded_with_what_it_got(wrap: Any) -> None:
    """The disconnect is told from a failure of the service; the pieces sent are counted."""
    left = asyncio.Event()
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    body = json.dumps({**QUESTION, "stream": True}).encode()
    await incoming.put({"type": "http.request", "body": body})

    async def endless(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for chunk in CHUNKS[:3]:
                yield chunk
            left.set()
            await asyncio.Event().wait()

        await request.body()
        return StreamingResponse(chunks(), media_type="text/event-stream")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    middleware = wrap(app_of(endless))
    task = asyncio.create_task(middleware(raw_scope(), incoming.get, send))
    await left.wait()
    await incoming.put({"type": "http.disconnect"})
    await asyncio.wait_for(task, 10)

    event = wrap.only_event()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"] == {"chunks": 3, "completed": False, "aborted_by": "client"}
    assert event["gen_ai"]["usage"]["output_tokens"] == 2  # llama.cpp counts in every chunk
    assert event["http"]["response"]["status_code"] == 200


async def test_a_client_gone_by_a_failing_send_is_recorded_too(wrap: Any) -> None:
    """Servers of ASGI 2.4 raise OSError from send when the client has gone."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    scope = {**raw_scope(), "asgi": {"version": "3.0", "spec_version": "2.4"}}
    with pytest.raises(OSError, match="gone"):
        await wrap(app)(scope, receive, send)

    assert wrap.only_event()["event"]["reason"] == "client_aborted"


async def test_pieces_of_a_broken_stream_without_counts_are_counted(wrap: Any) -> None:
    """A caller who always leaves before the usage comes does not escape a token budget."""

    async def broken(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield CHUNKS[0]

        return StreamingResponse(chunks(), media_type="text/event-stream")

    await post(wrap(app_of(broken)))

    event = wrap.only_event()
    assert event["event"]["reason"] == "upstream_error"
    assert event["gatebook"]["stream"]["aborted_by"] == "upstream"
    assert event["gen_ai"]["usage"]["output_tokens"] is None
    assert event["attributes"] == {"output_deltas": "1"}


async def test_an_error_inside_a_stream_that_began_well_is_a_failure(wrap: Any) -> None:
    """The status was 200 before the model failed."""

    async def failing(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield CHUNKS[0]
            yield b'data: {"error":{"message":"planted","type":"server_error"}}\n\n'
            yield b"data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    await post(wrap(app_of(failing)))

    event = wrap.only_event()
    assert event["event"]["outcome"] == "failure"
    assert event["error"]["type"] == "server_error"
    assert "planted" not in repr(event)


async def test_cancellation_without_a_disconnect_has_an_unknown_outcome(wrap: Any) -> None:
    """A server that shuts down cancels requests; that is neither success nor the caller's doing."""
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        """Nothing is sent."""

    task = asyncio.create_task(wrap(app)(raw_scope(), receive, send))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert wrap.only_event()["event"]["outcome"] == "unknown"


async def test_health_checks_are_not_recorded(wrap: Any, published: Any) -> None:
    """Excluded paths pass through without an event."""
    app = wrap(Starlette(routes=[Route("/health", lambda r: PlainTextResponse("ok"))]))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
        assert (await client.get("/health")).text == "ok"

    wrap.recorder.close(10)
    assert published.events() == []


@pytest.mark.parametrize(
    "body",
    [
        b"{not json", b"", b"[1,2]", b'"text"', b"[" * 5000, b'{"model": "\\ud800x"}',
        b'{"model": 7, "messages": "x", "tools": {"a": 1}, "stream": "yes", "user": ["x"]}',
        b'{"max_tokens": 1e400, "temperature": NaN, "seed": 999999999999999999999999}',
        b'{"messages": [null, 1, "x", {"role": 5}], "stop": [1, null], "tools": [null, 3]}',
        b"\xff\xfe\x00",
    ],
)  # fmt: skip
async def test_no_request_body_keeps_an_access_out_of_the_log(wrap: Any, body: bytes) -> None:
    """Hostile values become `not known`; the event is there."""
    await post(wrap(app_of(answer), capture_level="redacted"), body)

    event = wrap.only_event()
    assert event["event"]["outcome"] == "success"
    assert event["http"]["request"]["body"]["bytes"] == len(body)


async def test_a_request_above_the_parse_limit_is_counted_and_not_read(wrap: Any) -> None:
    """What is too large to read is said to be."""
    big = {**QUESTION, "messages": [{"role": "user", "content": "x" * 5000}]}
    await post(wrap(app_of(answer), body_max_bytes=4096), big)

    event = wrap.only_event()
    assert event["gatebook"]["capture"]["degraded_reason"] == "request_too_large"
    assert event["http"]["request"]["body"]["bytes"] > 5000
    assert event["gen_ai"]["usage"]["output_tokens"] == 3


async def test_the_end_of_a_long_stream_is_read_though_its_middle_is_not_kept(wrap: Any) -> None:
    """Usage stands at the end."""

    async def long(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3000):
                yield CHUNKS[0]
            for chunk in CHUNKS:
                yield chunk

        return StreamingResponse(chunks(), media_type="text/event-stream")

    await post(wrap(app_of(long), body_max_bytes=8192))

    event = wrap.only_event()
    assert event["gen_ai"]["usage"]["output_tokens"] == 2
    assert event["gatebook"]["stream"]["completed"] is True
    assert event["gatebook"]["capture"]["truncated"] is True


async def test_a_forged_forwarded_header_is_believed_only_behind_a_trusted_proxy(
    wrap: Any, published: Any
) -> None:
    """Of X-Forwarded-For, what the proxy appended counts, not what the caller wrote."""
    forged = "192.0.2.66, 198.51.100.23"
    await post(wrap(app_of(answer)), x_forwarded_for=forged)
    wrap.recorder.close(10)
    await post(wrap(app_of(answer), trusted_proxies=("203.0.113.9",)), x_forwarded_for=forged)
    wrap.recorder.close(10)

    assert [e["source"]["ip"] for e in published.events()] == ["203.0.113.9", "198.51.100.23"]


async def test_a_traceparent_is_kept_only_where_it_is_valid(wrap: Any, published: Any) -> None:
    """A forged traceparent does not get into the event."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    app = wrap(app_of(answer))
    for value in (f"00-{trace}-{span}-01", f"00-{'0' * 32}-{span}-01", "<script>", "ff-1-2-3"):
        await post(app, traceparent=value)

    wrap.recorder.close(10)
    assert [e["trace"]["id"] for e in published.events()] == [trace, "", "", ""]
    assert published.events()[0]["span"]["id"] == span


async def test_the_lifespan_starts_the_recorder_and_flushes_it(wrap: Any, published: Any) -> None:
    """A recorder that was handed in is flushed at shutdown, and stays open for its owner."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []
    middleware = wrap(Starlette(routes=[Route(CHAT, answer, methods=["POST"])]))

    async def receive() -> dict[str, Any]:
        if len(messages) == 1:
            await post(middleware)
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await middleware({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(published.events()) == 1


async def test_strict_lets_an_answer_go_when_its_event_is_durable(wrap: Any) -> None:
    """The caller gets the answer, and the event is on disk by then."""
    app = wrap(app_of(answer), delivery_mode="strict", intents="off")

    response = await post(app)

    assert wrap.recorder.counters().spooled == 1
    assert response.json() == ANSWER
    assert wrap.only_event()["event"]["outcome"] == "success"


async def test_strict_streams_pass_but_for_their_end(wrap: Any) -> None:
    """A stream arrives byte for byte."""
    response = await post(wrap(app_of(stream), delivery_mode="strict", intents="off"))

    assert response.content == b"".join(CHUNKS)
    assert wrap.only_event()["gatebook"]["stream"]["completed"] is True


def break_spool(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every fsync of the spool fails."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    wrap.recorder.start()
    monkeypatch.setattr("gatebook.producers.spool.os.fdatasync", fail)


async def test_strict_answers_503_where_the_event_cannot_be_kept(
    wrap: Any, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's answer is withheld; the drop is counted; the next request is not even begun."""
    called = 0

    async def counting(request: Request) -> Response:
        nonlocal called
        called += 1
        return await answer(request)

    app = wrap(app_of(counting), delivery_mode="strict", intents="off")
    break_spool(wrap, monkeypatch)

    first, second = await post(app), await post(app)

    assert (first.status_code, second.status_code) == (503, 503)
    assert first.json()["error"]["type"] == "audit_unavailable"
    assert called == 1
    assert wrap.recorder.counters().dropped == {"spool_unavailable": 1}
    monkeypatch.undo()
    assert wrap.recorder.close(10).complete
    events = published.events()
    assert [e["http"]["response"]["status_code"] for e in events] == [503, 503]
    assert {e["event"]["reason"] for e in events} == {"unavailable"}


async def test_strict_leaves_a_stream_without_its_end_where_the_event_cannot_be_kept(
    wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller can tell that the answer is not whole."""
    app = wrap(app_of(stream), delivery_mode="strict", intents="off")
    break_spool(wrap, monkeypatch)
    sent: list[Any] = []
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await incoming.put({"type": "http.request", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(Exception, match="not durable"):
        await app(raw_scope(), incoming.get, send)

    monkeypatch.undo()
    body = b"".join(m.get("body", b"") for m in sent)
    assert body == b"".join(CHUNKS[:4])
    assert sent[-1]["more_body"] is True
    assert wrap.only_event()["event"]["reason"] != ""
