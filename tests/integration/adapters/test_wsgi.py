"""The WSGI middleware in a real WSGI server (wsgiref): a small gateway before llama.cpp, asked by
the openai client, and clients that leave."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import openai
import pytest

from gatebook.cli.demo.model_file import MODEL_NAME, write_model
from gatebook.cli.demo.model_server import ModelServer
from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware

from .recording import Recording

KEY = "sk-alice-of-the-wsgi-test"
QUESTION: Any = [{"role": "user", "content": "planted question"}]
WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """llama.cpp's own server."""
    path = write_model(tmp_path_factory.mktemp("model") / "model.gguf")
    with ModelServer(path, [KEY]) as server:
        yield server


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """wsgiref's server, a thread per connection."""

    daemon_threads = False
    block_on_close = True


class Handler(WSGIRequestHandler):
    """Without the log of each request; passes the client's port on, as other servers do."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "REMOTE_PORT": str(self.client_address[1])}


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve a WSGI application on a free loopback port; ends when its requests have."""
    server = make_server("127.0.0.1", 0, app, ThreadedServer, Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def gateway(upstream_url: str) -> Any:
    """A WSGI application that hands requests to a model server, streaming."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = http.client.HTTPConnection(upstream_url.removeprefix("http://"))
        headers = {"Authorization": environ.get("HTTP_AUTHORIZATION", "")}
        connection.request(environ["REQUEST_METHOD"], environ["PATH_INFO"], body, headers)
        upstream = connection.getresponse()
        kind = upstream.getheader("content-type") or ""
        start_response(f"{upstream.status} {upstream.reason}", [("Content-Type", kind)])
        try:
            while piece := upstream.read1(65_536):
                yield piece
        finally:
            connection.close()

    return app


def test_the_openai_client_notices_nothing_and_every_access_is_recorded(
    tmp_path: Path, model_server: ModelServer
) -> None:
    """A chat, a stream, embeddings and a wrong key, through wsgiref to llama.cpp."""
    recording = Recording(tmp_path)
    app = GatebookWsgiMiddleware(gateway(model_server.url), recording.recorder)
    with serving(app) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-other", max_retries=0)
        asked: Any = {
            "model": "tiny",
            "messages": QUESTION,
            "max_tokens": 4,
            "extra_body": {"ignore_eos": True},  # of llama.cpp: to the last token
        }
        whole = client.chat.completions.create(**asked)
        pieces = list(client.chat.completions.create(**asked, stream=True))
        client.embeddings.create(model="tiny", input="planted question")
        with pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(model="tiny", messages=QUESTION)

    answered, streamed, embedded, refused = recording.events()
    assert whole.usage is not None
    assert answered["gen_ai"]["usage"]["input_tokens"] == whole.usage.prompt_tokens
    assert answered["gen_ai"]["response"]["model"] == MODEL_NAME
    assert answered["source"]["ip"] == "127.0.0.1"
    assert answered["source"]["port"] > 0
    assert pieces[-1].choices[0].finish_reason == "length"
    assert streamed["gatebook"]["stream"]["completed"] is True
    assert streamed["gen_ai"]["response"]["finish_reasons"] == ["length"]
    assert embedded["event"]["action"] == "embeddings"
    assert refused["event"]["reason"] == "unauthenticated"
    events = repr((answered, streamed, embedded, refused))
    for planted in (KEY, "sk-other", "planted question"):
        assert planted not in events


def plain_answer(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"choices": []}']


def test_the_server_answers_as_it_would_without_the_middleware(tmp_path: Path) -> None:
    """The same headers too: wsgiref makes a Content-Length of a list of one piece."""
    recording = Recording(tmp_path)
    answers = []
    for app in (plain_answer, GatebookWsgiMiddleware(plain_answer, recording.recorder)):
        with serving(app) as url:
            answers.append(httpx.get(url, trust_env=False))
    bare, through = answers
    assert through.content == bare.content
    assert through.headers["content-length"] == bare.headers["content-length"]
    assert sorted(through.headers) == sorted(bare.headers)


def test_a_client_that_leaves_mid_stream_stops_the_application(tmp_path: Path) -> None:
    """The server's next write fails; the generator is closed, and the event says who left."""
    closed = threading.Event()
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'

    def endless(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        try:
            while True:
                yield piece
        finally:
            closed.set()

    recording = Recording(tmp_path)
    with serving(GatebookWsgiMiddleware(endless, recording.recorder)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(10)
        assert closed.wait(WAIT_SECONDS)
    event = recording.only_event()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"]["aborted_by"] == "client"
    assert event["gatebook"]["stream"]["chunks"] > 0


def test_an_application_that_raises_is_the_servers_own_error_page(tmp_path: Path) -> None:
    """The server's answer is its own; the event has the class of the exception and no more."""

    def failing(environ: Any, start_response: Any) -> Any:
        raise KeyError("planted question")

    recording = Recording(tmp_path)
    with serving(GatebookWsgiMiddleware(failing, recording.recorder)) as url:
        assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 500
    event = recording.only_event()
    assert event["event"]["reason"] == "server_error"
    assert event["error"]["type"] == "KeyError"
    assert "planted" not in repr(event)
