"""`gatebook proxy` over real sockets: in front of llama.cpp with the openai client, and in front of
an upstream whose every byte the test decides."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.integration.demo_model.conftest import serving
from tests.integration.demo_model.test_gateway import (
    STREAM_HEAD,
    chunked,
    read_request,
    upstream,
)
from tests.integration.producers.kafka_reading import closed, create_topic, read_frames
from tests.integration.security.certificates import Authority, Issued

from gatebook.cli.demo.model_file import MODEL_NAME, write_model
from gatebook.cli.demo.model_server import ModelServer
from gatebook.producers.adapters.proxy import ProxySettings, create_proxy
from gatebook.producers.provenance import ModelProvenance
from gatebook.schemas.codec import decode_event
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import ACCESS, topic_name

from .recording import Recording

ALICE_KEY, PROXY_KEY = "sk-alice-of-the-proxy-test", "sk-own-key-of-the-proxy"
WAIT_SECONDS = 20.0
QUESTION: Any = [{"role": "user", "content": "planted question"}]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(scope="module")
def model_server(model_path: Path) -> Iterator[ModelServer]:
    """llama.cpp's own server."""
    with ModelServer(model_path, [ALICE_KEY, PROXY_KEY]) as server:
        yield server


@contextmanager
def proxy_process(upstream_url: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """`gatebook proxy` as a user starts it; gives its address and the process."""
    command = [sys.executable, "-m", "gatebook.cli.main", "proxy", "--upstream", upstream_url]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GATEBOOK_")}
    process = subprocess.Popen(
        [*command, "--port", "0"],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening http://127.0.0.1:"), process.communicate()
        yield line.split()[1], process
    finally:
        process.kill()
        process.communicate()


def ask_everything(url: str) -> dict[str, Any]:
    """What a user of the openai client does; what it got."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=ALICE_KEY, max_retries=0)
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-of-nobody", max_retries=0)
    asked: Any = {
        "model": "tiny",
        "messages": QUESTION,
        "max_tokens": 5,
        "extra_body": {"ignore_eos": True},  # of llama.cpp: to the last token
    }
    with client, stranger:
        whole = client.chat.completions.create(**asked)
        with client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        ) as stream:
            pieces = list(stream)
        embedded = client.embeddings.create(model="tiny", input="planted question")
        listed = client.models.list()
        with pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(**asked)
    return {"whole": whole, "pieces": pieces, "embedded": embedded, "listed": listed}


def test_the_openai_client_and_llama_cpp_notice_nothing_and_kafka_has_every_access(
    engines: Any, namespace: str, tmp_path: Path, model_server: ModelServer, model_path: Path
) -> None:
    """The command as a user runs it: answers pass, each access is an event with its model."""
    topic = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, topic)
    with proxy_process(
        model_server.url,
        GATEBOOK_KAFKA_BOOTSTRAP=engines.kafka_bootstrap,
        GATEBOOK_NAMESPACE=namespace,
        GATEBOOK_HOME=str(tmp_path),
        GATEBOOK_PROXY_UPSTREAM_API_KEY=PROXY_KEY,
    ) as (url, process):
        got = ask_everything(url)
        process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "recorded 5 accesses: 5 acknowledged, 0 in the spool, 0 dropped" in said
    assert complaints == ""

    assert got["whole"].model == MODEL_NAME
    assert got["pieces"][-1].usage.completion_tokens == 5
    assert got["listed"].data[0].id == MODEL_NAME

    frames = read_frames(engines.kafka_bootstrap, topic, closed)
    events = [decode_event(data) for frame in frames for data in frame.events]
    events = [e for e in events if e["gatebook"]["phase"] == "terminal"]
    check_events(events, got)
    digest = hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert events[-1]["gatebook"]["model"] == {
        "engine": "llama_cpp",
        "engine_version": got["whole"].system_fingerprint,
        "quantization": "all F32",
        "weights_hash": f"sha256:{digest}",
        "adapter": "",
        "resolved": MODEL_NAME,
    }
    for planted in (ALICE_KEY, PROXY_KEY, "planted question", "sk-of-nobody"):
        assert planted not in repr(events) + said


def check_events(events: list[dict[str, Any]], got: dict[str, Any]) -> None:
    """One event for each thing that was asked, in order."""
    whole, streamed, embedded, listed, refused = events
    assert [e["event"]["action"] for e in events] == [
        "chat", "chat", "embeddings", "list_models", "chat",
    ]  # fmt: skip
    assert [e["event"]["outcome"] for e in events] == ["success"] * 4 + ["failure"]
    usage = whole["gen_ai"]["usage"]
    assert usage["input_tokens"] == got["whole"].usage.prompt_tokens
    assert usage["output_tokens"] == got["whole"].usage.completion_tokens
    assert streamed["gen_ai"]["usage"]["output_tokens"] == 5
    assert streamed["gatebook"]["stream"]["completed"] is True
    assert streamed["gatebook"]["stream"]["chunks"] > 1
    assert embedded["gen_ai"]["usage"]["input_tokens"] == got["embedded"].usage.prompt_tokens
    assert listed["http"]["request"]["method"] == "GET"
    assert refused["event"]["reason"] == "unauthenticated"
    assert refused["gatebook"]["identity"]["assurance"] == "failed"
    assert whole["gatebook"]["identity"]["key_id"] == streamed["gatebook"]["identity"]["key_id"]
    assert whole["gatebook"]["identity"]["key_id"] != refused["gatebook"]["identity"]["key_id"]
    assert whole["source"]["ip"] == "127.0.0.1"


def test_without_a_key_of_its_own_the_proxy_uses_nobody_elses(
    tmp_path: Path, model_server: ModelServer
) -> None:
    """llama.cpp tells about itself to key holders only: then provenance is empty, not borrowed."""
    recording = Recording(tmp_path)
    app = create_proxy(ProxySettings(upstream_url=model_server.url), recording.recorder)
    with serving(app) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=ALICE_KEY)
        client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=1)
        assert isinstance(app.provenance, ModelProvenance)
        assert app.provenance.wait(WAIT_SECONDS)
        client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=1)
    assert not any(recording.events()[-1]["gatebook"]["model"].values())


@contextmanager
def proxied(converse: Any, home: Path, **settings: Any) -> Iterator[tuple[str, Recording]]:
    """The proxy in front of a scripted connection."""
    recording = Recording(home)
    with upstream(converse) as upstream_url:
        given = {"provenance": False, "timeout_seconds": WAIT_SECONDS, **settings}
        app = create_proxy(ProxySettings(upstream_url=upstream_url, **given), recording.recorder)
        with serving(app) as url:
            yield url, recording


def exchange(url: str, request: bytes) -> bytes:
    """One raw request, and everything that comes back until the other side closes."""
    host, port = url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) as client:
        client.sendall(request)
        while piece := client.recv(65_536):
            received += piece
    return received


def test_the_upstream_gets_what_the_client_sent_and_nothing_more(tmp_path: Path) -> None:
    """Method, path and query byte for byte; headers but for those of one connection."""
    requests: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with proxied(converse, tmp_path) as (url, recording):
        exchange(
            url,
            b"PUT /any/%2e%2e/p%C3%A4th//x;y=1?a=%20&a&b=%C3%a4 HTTP/1.1\r\nHost: front.test\r\n"
            b"Authorization: Bearer sk-1\r\nX-One: 1\r\nX-One: 2\r\nConnection: close, x-hop\r\n"
            b"X-Hop: 1\r\nTE: trailers\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n",
        )
    head, _, body = requests[0].partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"PUT /any/%2e%2e/p%C3%A4th//x;y=1?a=%20&a&b=%C3%a4 HTTP/1.1"
    names = sorted(header.partition(b":")[0].lower() for header in headers)
    assert names == [b"authorization", b"content-length", b"host", b"x-one", b"x-one"]
    assert not any(b"front.test" in header for header in headers)
    assert body == b"\x00\xff\r\n"
    event = recording.only_event()
    assert event["url"]["path"] == "/any/../päth//x;y=1"
    assert event["event"]["action"] == "unknown"


def test_the_answer_is_the_upstreams_own(tmp_path: Path) -> None:
    """No header is added, repeated ones stay, and the status is whatever it was."""

    def converse(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(
            b"HTTP/1.1 418 Teapot\r\nset-cookie: a\r\nset-cookie: b\r\nserver: up\r\n"
            b"content-length: 3\r\n\r\n\xff\x00\n"
        )

    with (
        upstream(converse) as upstream_url,
        proxy_process(
            upstream_url,
            GATEBOOK_HOME=str(tmp_path),
            GATEBOOK_KAFKA_BOOTSTRAP="127.0.0.1:9",
            GATEBOOK_PROXY_PROVENANCE="false",
        ) as (url, _),
    ):
        answer = httpx.get(f"{url}/", trust_env=False)
    assert answer.status_code == 418
    assert answer.content == b"\xff\x00\n"
    assert answer.headers.get_list("set-cookie") == ["a", "b"]
    assert sorted(answer.headers) == ["content-length", "server", "set-cookie"]
    assert answer.headers["server"] == "up"


@contextmanager
def tls_upstream(issued: Issued) -> Iterator[str]:
    """A model server that speaks TLS and says it is TGI."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"model_id":"org/tiny","version":"3.3.2","data":[]}')

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A refused handshake is what a test is about."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.store)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("trusted", [True, False])
def test_an_upstream_over_tls_is_verified(tmp_path: Path, trusted: bool) -> None:
    """With the authority's file it answers, and tells its model; without it is a 502."""
    authority = Authority(tmp_path, "authority")
    recording = Recording(tmp_path)
    with tls_upstream(authority.issue("upstream")) as upstream_url:
        settings = ProxySettings(
            upstream_url=upstream_url, upstream_ca_file=str(authority.file) if trusted else ""
        )
        app = create_proxy(settings, recording.recorder)
        assert isinstance(app.provenance, ModelProvenance)
        assert app.provenance.wait(WAIT_SECONDS)
        with serving(app) as url:
            answer = httpx.get(f"{url}/v1/models", trust_env=False)
    event = recording.only_event()
    assert answer.status_code == (200 if trusted else 502)
    assert event["gatebook"]["model"]["resolved"] == ("org/tiny" if trusted else "")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_is_said_at_the_start(
    tmp_path: Path, content: str | None
) -> None:
    """Not as a 502 to every caller."""
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Fatal, match="CA file"):
        create_proxy(ProxySettings(upstream_url="https://x.test", upstream_ca_file=str(path)))


def test_a_prefix_of_the_upstream_cannot_be_left_with_dots(tmp_path: Path) -> None:
    """`--upstream http://host/tenant` serves what is below /tenant only."""
    requests: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        requests.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    recording = Recording(tmp_path)
    with upstream(converse) as upstream_url:
        settings = ProxySettings(upstream_url=f"{upstream_url}/tenant/", provenance=False)
        with serving(create_proxy(settings, recording.recorder)) as url:
            for path in (b"/v1/models", b"/../admin", b"/v1/%2e%2E/x"):
                request = b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                exchange(url, request)
    assert [r.partition(b" HTTP")[0] for r in requests] == [b"GET /tenant/v1/models"]
    statuses = [e["http"]["response"]["status_code"] for e in recording.events()]
    assert statuses == [200, 400, 400]


def test_a_request_passes_while_it_is_still_being_sent(tmp_path: Path) -> None:
    """An upload is not gathered in the proxy's memory first."""
    first_half_seen = threading.Event()
    bodies: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        received = b""
        while b"first half" not in received:
            received += connection.recv(65_536)
        first_half_seen.set()
        while b"0\r\n\r\n" not in received:
            received += connection.recv(65_536)
        bodies.append(received.partition(b"\r\n\r\n")[2])
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    def halves() -> Iterator[bytes]:
        yield b"first half"
        assert first_half_seen.wait(WAIT_SECONDS)
        yield b"second half"

    with proxied(converse, tmp_path) as (url, recording):
        answer = httpx.post(f"{url}/v1/files", content=halves(), trust_env=False)
    assert answer.json() == {}
    assert bodies == [chunked(b"first half") + chunked(b"second half") + b"0\r\n\r\n"]
    event = recording.only_event()
    assert event["event"]["action"] == "upload_file"
    assert event["http"]["request"]["body"]["bytes"] == len(b"first halfsecond half")


def test_a_client_that_leaves_within_its_request_closes_the_upstream(tmp_path: Path) -> None:
    """Half a request does not stay open, and is recorded as the client's doing."""
    begun, closed_by_proxy = threading.Event(), threading.Event()

    def converse(connection: socket.socket) -> None:
        while connection.recv(65_536):
            begun.set()
        closed_by_proxy.set()

    with proxied(converse, tmp_path) as (url, recording):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\nhalf")
            assert begun.wait(WAIT_SECONDS)
        assert closed_by_proxy.wait(WAIT_SECONDS)
    assert recording.only_event()["event"]["reason"] == "client_aborted"


def test_a_client_that_leaves_within_the_answer_is_recorded_with_what_it_got(
    tmp_path: Path,
) -> None:
    """The upstream is closed; the pieces that were passed on are counted."""
    closed_by_proxy = threading.Event()
    piece = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD + chunked(piece))
        if connection.recv(1) == b"":
            closed_by_proxy.set()

    with proxied(converse, tmp_path) as (url, recording):
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", content=b'{"stream":true}', trust_env=False
        ) as answer:
            assert next(answer.iter_raw()) == piece
        assert closed_by_proxy.wait(WAIT_SECONDS)
    event = recording.only_event()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"] == {"chunks": 1, "completed": False, "aborted_by": "client"}
    assert event["gen_ai"]["response"]["model"] == "m"
    assert event["attributes"]["output_deltas"] == "1"


def test_an_upstream_that_breaks_off_is_seen_by_the_client_and_the_record(tmp_path: Path) -> None:
    """A truncated stream does not look finished to either."""

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD + chunked(b'data: {"choices":[{"delta":{"content":"a"}}]}'))

    with (
        proxied(converse, tmp_path) as (url, recording),
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.post(f"{url}/v1/chat/completions", content=b"{}", trust_env=False)
    event = recording.only_event()
    assert event["event"]["reason"] == "upstream_error"
    assert event["gatebook"]["stream"]["aborted_by"] == "upstream"


@pytest.mark.parametrize(
    ("silent", "status", "kind", "reason"),
    [(True, 504, "timeout_error", "timeout"), (False, 502, "upstream_error", "upstream_error")],
)
def test_no_answer_is_an_error_in_openais_shape(
    tmp_path: Path, silent: bool, status: int, kind: str, reason: str
) -> None:
    """A silent upstream is a 504, one that hangs up a 502; the record says which."""
    over = threading.Event()

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        if silent:
            assert over.wait(WAIT_SECONDS)

    patience = 0.3 if silent else WAIT_SECONDS
    with proxied(converse, tmp_path, timeout_seconds=patience) as (url, recording):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="tiny", messages=QUESTION)
        over.set()
    assert caught.value.status_code == status
    assert caught.value.type == kind
    assert "127.0.0.1" not in caught.value.message
    event = recording.only_event()
    assert event["event"]["reason"] == reason
    assert event["error"]["type"] == kind


def test_a_websocket_is_refused_in_words(tmp_path: Path) -> None:
    """Rather than forwarded half, or left hanging; and it is recorded."""
    with proxied(lambda _: None, tmp_path) as (url, recording):
        answer = exchange(
            url,
            b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n"
            b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 501")
    assert b"WebSockets are not forwarded" in answer
    assert recording.only_event()["http"]["response"]["status_code"] == 501


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://host", "http://", "http://u:secret@host", "http://host?x=1"]
)
def test_an_upstream_that_is_no_address_is_refused_at_the_start(url: str) -> None:
    """Not at the first request; and a password in it is not repeated."""
    with pytest.raises(Fatal) as caught:
        create_proxy(ProxySettings(upstream_url=url))
    assert "secret" not in str(caught.value) + caught.value.next_step


def test_a_port_that_is_taken_is_said_plainly(tmp_path: Path) -> None:
    """One line that says what to do, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "gatebook.cli.main", "proxy", "--port"]
        command += [str(taken.getsockname()[1]), "--upstream", "http://127.0.0.1:9"]
        ended = subprocess.run(
            command,
            env={**os.environ, "GATEBOOK_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr
