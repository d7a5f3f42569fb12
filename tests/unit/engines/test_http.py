"""Questions to an Elasticsearch that somebody else runs: with its login, without proxies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gatebook.engines import http
from gatebook.engines.errors import BadSetting
from gatebook.engines.external import cluster_health
from gatebook.engines.processes import free_ports
from gatebook.engines.settings import EngineSettings


class Server(ThreadingHTTPServer):
    """Answers as told and keeps what it was sent."""

    status = 200
    body = b'{"status": "green"}'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.authorizations: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.authorizations.append(self.headers.get("Authorization"))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (None, None),
        (EngineSettings(), None),
        (EngineSettings(elasticsearch_api_key="k"), "ApiKey k"),
        (EngineSettings(elasticsearch_username="u", elasticsearch_password="p"), "Basic dTpw"),
    ],
)
def test_the_login_of_the_settings_is_sent(
    server: Server, login: EngineSettings | None, expected: str | None
) -> None:
    """An API key goes before a name and a password, as in the workers."""
    assert http.get(server.url, "/", login) == http.Answer(200, {"status": "green"})
    assert server.authorizations == [expected]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"status": "yellow"}', "yellow"),
        (200, b"[]", None),
        (200, b"no json", None),
        (401, b"", "refused"),
        (403, b"", "unreadable"),
        (503, b"", None),
    ],
)
def test_health_tells_refused_from_absent(
    server: Server, status: int, body: bytes, expected: str | None
) -> None:
    """A wrong password is another trouble than a dead server."""
    server.status, server.body = status, body
    assert cluster_health(server.url) == expected


def test_addresses_are_tried_in_turn(server: Server) -> None:
    """Several addresses mean the same here as in the workers."""
    (dead,) = free_ports(1)
    assert cluster_health(f"http://127.0.0.1:{dead}, {server.url}/") == "green"


def test_proxies_of_the_environment_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers use none, so the doctor would look at another way."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert cluster_health(server.url) == "green"


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    """With the variable's name; so is a certificate file that is none."""
    with pytest.raises(BadSetting, match="GATEBOOK_ELASTICSEARCH_URL"):
        http.get("file:///etc/passwd", "/")
    broken = tmp_path / "ca.pem"
    broken.write_text("none")
    for file in (broken, tmp_path / "absent.pem"):
        with pytest.raises(BadSetting, match="GATEBOOK_ELASTICSEARCH_CA_FILE"):
            http.get("https://127.0.0.1:1", "/", EngineSettings(elasticsearch_ca_file=str(file)))
