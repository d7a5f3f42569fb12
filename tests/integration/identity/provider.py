"""A small OpenID Connect provider on loopback, that can also misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.identity import tokens

DISCOVERY = "/realm/.well-known/openid-configuration"
KEYS = "/realm/keys"


class Provider:
    """What it shows, set by a test, and what it was asked for."""

    def __init__(self, origin: str) -> None:
        self.issuer = f"{origin}/realm"
        self.keys = [tokens.public_jwk("RS256")]
        self.discovery: dict[str, Any] = {"issuer": self.issuer, "jwks_uri": origin + KEYS}
        self.asked: list[str] = []
        self.status = 200
        self.redirect_to = ""
        self.padding_bytes = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return self.asked.count(path)

    def body(self, path: str) -> bytes:
        """What stands at a path."""
        if path == DISCOVERY:
            return json.dumps(self.discovery).encode()
        return json.dumps({"keys": self.keys, "padding": "x" * self.padding_bytes}).encode()


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        provider = self.provider
        provider.asked.append(self.path)
        provider.may_answer.wait(60)
        redirected = bool(provider.redirect_to) and self.path == KEYS
        body = provider.body(self.path)
        self.send_response(302 if redirected else provider.status)
        if redirected:
            self.send_header("Location", provider.redirect_to)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """A client that hangs up early, as one does that has read enough, is no error."""


@contextmanager
def running(port: int = 0) -> Iterator[Provider]:
    """A provider that runs until the end of the block."""
    handler: Any = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    provider = handler.provider = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
