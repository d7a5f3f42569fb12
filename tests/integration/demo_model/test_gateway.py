"""The gateway in front of an upstream whose every byte the test decides."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from gatebook.cli.demo.gateway import TIMEOUT_HEADER, create_app

from .conftest import serving

WAIT_SECONDS = 20.0
Conversation = Callable[[socket.socket], None]


@contextmanager
def upstream(converse: Conversation) -> Iterator[str]:
    """One TCP server whose every connection is handed to `converse`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, converse), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)  # wakes the accept below, which then ends
        thread.join(WAIT_SECONDS)


def _accept(listener: socket.socket, converse: Conversation) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            converse(connection)


def read_request(connection: socket.socket) -> bytes:
    """The request's bytes, head and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"connection: x-hop\r\nx-hop: only for the gateway\r\nx-model: kept\r\n\r\n"
)
# Cut where no event ends, with CRLF, a comment and bytes that are not UTF-8.
PIECES = [b'data: {"a', b'":1}\r\n\r\n: ping\n\nda', b"ta: \xff\xfe\n", b"\ndata: [DONE]\n\n"]


def test_a_stream_passes_byte_for_byte() -> None:
    """The client gets exactly the upstream's bytes; only hop-by-hop headers stay behind."""

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD)
        for piece in PIECES:
            connection.sendall(chunked(piece))
        connection.sendall(chunked(b""))

    with upstream(converse) as upstream_url, serving(create_app(upstream_url, 10)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", content=b"{}", trust_env=False)
    assert answer.content == b"".join(PIECES)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-model"] == "kept"
    assert "x-hop" not in answer.headers


def test_the_request_arrives_unchanged_but_for_its_hop_by_hop_headers() -> None:
    """Path, query, key and body reach the model; what concerns only this connection does not."""
    requests: list[bytes] = []

    def converse(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    headers = {
        "authorization": "Bearer sk-demo",
        "connection": "x-hop",
        "x-hop": "1",
        TIMEOUT_HEADER: "5",
        "traceparent": "00-1-2-01",
    }
    with upstream(converse) as upstream_url, serving(create_app(upstream_url, 10)) as url:
        target = f"{url}/v1/completions?a=1&b=%20"
        httpx.post(target, content=b'{"x": 1}', headers=headers, trust_env=False)
    head, _, body = requests[0].lower().partition(b"\r\n\r\n")
    assert head.startswith(b"post /v1/completions?a=1&b=%20 http/1.1\r\n")
    assert b"\r\nauthorization: bearer sk-demo" in head
    assert b"\r\ntraceparent: 00-1-2-01" in head
    assert b"x-hop" not in head
    assert TIMEOUT_HEADER.encode() not in head
    assert body == b'{"x": 1}'


def test_a_chunk_is_passed_on_before_the_next_one_exists() -> None:
    """The first piece arrives while the upstream still holds the rest."""
    first_seen = threading.Event()

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD + chunked(b"data: 1\n\n"))
        assert first_seen.wait(WAIT_SECONDS)
        connection.sendall(chunked(b"data: 2\n\n") + chunked(b""))

    with (
        upstream(converse) as upstream_url,
        serving(create_app(upstream_url, WAIT_SECONDS)) as url,
        httpx.stream("POST", f"{url}/v1/chat/completions", trust_env=False, timeout=10) as answer,
    ):
        pieces = answer.iter_raw()
        assert next(pieces) == b"data: 1\n\n"
        first_seen.set()
        assert b"".join(pieces) == b"data: 2\n\n"


@pytest.mark.parametrize("bytes_before_leaving", [b"", STREAM_HEAD + chunked(b"data: 1\n\n")])
def test_a_client_that_leaves_closes_the_upstream(bytes_before_leaving: bytes) -> None:
    """Whether it leaves before the answer or within it, the model stops working for nobody."""
    received, closed = threading.Event(), threading.Event()

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(bytes_before_leaving)
        received.set()
        if connection.recv(1) == b"":
            closed.set()

    with upstream(converse) as upstream_url, serving(create_app(upstream_url, 60)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
            )
            assert received.wait(WAIT_SECONDS)
            if bytes_before_leaving:
                assert client.recv(1)
        assert closed.wait(WAIT_SECONDS)


@pytest.mark.parametrize("header", [{}, {TIMEOUT_HEADER: "nan"}, {TIMEOUT_HEADER: "-1"}])
def test_a_silent_upstream_becomes_a_504(header: dict[str, str]) -> None:
    """No answer in time is an error in OpenAI's shape; a senseless wish changes nothing."""
    done = threading.Event()

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        assert done.wait(WAIT_SECONDS)

    with upstream(converse) as upstream_url, serving(create_app(upstream_url, 0.2)) as url:
        answer = httpx.post(
            f"{url}/v1/embeddings", content=b"{}", headers=header, trust_env=False, timeout=10
        )
        done.set()
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"


def test_an_unreachable_upstream_becomes_a_502() -> None:
    """A model service that is down is an error in OpenAI's shape that names no address."""
    with upstream(lambda _: None) as upstream_url:
        pass
    with serving(create_app(upstream_url, 10)) as url:
        answer = httpx.post(f"{url}/v1/completions", content=b"{}", trust_env=False)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "upstream_error"
    assert "127.0.0.1" not in answer.text


def test_a_truncated_answer_does_not_look_finished() -> None:
    """When the upstream breaks off, the client's connection breaks off too."""

    def converse(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(STREAM_HEAD + chunked(b"data: 1\n\n"))

    with (
        upstream(converse) as upstream_url,
        serving(create_app(upstream_url, 10)) as url,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.post(f"{url}/v1/chat/completions", content=b"{}", trust_env=False)


def test_other_paths_are_not_forwarded() -> None:
    """The gateway serves the OpenAI routes and nothing else of llama.cpp's server."""
    with serving(create_app("http://127.0.0.1:9", 10)) as url:
        assert httpx.get(f"{url}/slots", trust_env=False).status_code == 404
        assert httpx.get(f"{url}/v1/completions", trust_env=False).status_code == 405
