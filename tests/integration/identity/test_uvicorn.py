"""Behind a real server: who is a proxy, where the server itself reads proxies' headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from tests.integration.identity.test_oidc_provider import CHAT, Service
from tests.waiting import wait_until

FORGED = {"x-forwarded-for": "10.0.0.1", "x-forwarded-user": "root", "x-end-user": "someone"}


@contextmanager
def served(service: Service, proxy_headers: bool) -> Iterator[str]:
    """The service under uvicorn on loopback."""
    config = uvicorn.Config(
        service.app, port=0, log_level="error", proxy_headers=proxy_headers, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until("uvicorn listens", lambda: server.started, 20)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}{CHAT}"
    finally:
        server.should_exit = True
        thread.join(20)


def recorded(home: Path, proxy_headers: bool, proxy: str, headers: Any = FORGED) -> dict[str, Any]:
    """The event of one request from loopback, where `proxy` is trusted."""
    service = Service(home, trusted_proxies=(proxy,), identity_user_header="x-forwarded-user")
    try:
        with served(service, proxy_headers) as url:
            httpx.post(url, json={}, headers=headers, trust_env=False)
            # The caller has its answer before the event is emitted.
            wait_until("the event", lambda: service.recorder.counters().emitted, 20)
            return service.events()[0]
    finally:
        service.close()


def test_an_address_that_uvicorn_took_from_a_header_opens_nothing(tmp_path: Path) -> None:
    """With --proxy-headers a caller may look like a proxy by its address, and is none."""
    event = recorded(tmp_path, True, "10.0.0.0/8")

    assert event["gatebook"]["identity"] == {"method": "anonymous", "on_behalf_of": "someone"}
    assert "user" not in event


def test_a_caller_that_is_no_proxy_names_nobody_and_comes_from_where_it_comes(
    tmp_path: Path,
) -> None:
    """Its X-Forwarded-For and X-Forwarded-User are its own words."""
    event = recorded(tmp_path, False, "10.0.0.0/8")

    assert event["source"]["ip"] == "127.0.0.1"
    assert "user" not in event


def test_a_trusted_proxy_names_the_caller_and_its_address(tmp_path: Path) -> None:
    """With --no-proxy-headers the proxy is seen as what it is."""
    headers = {"x-forwarded-for": "6.6.6.6, 198.51.100.2", "x-forwarded-user": "alice"}
    event = recorded(tmp_path, False, "127.0.0.1", headers)

    assert event["source"]["ip"] == "198.51.100.2"
    assert event["user"]["id"] == "alice"
    assert event["gatebook"]["identity"]["assurance"] == "verified"


def test_a_header_sent_twice_names_nobody(tmp_path: Path) -> None:
    """A proxy that adds its name to a caller's instead of replacing it is not believed."""
    headers = [("x-forwarded-user", "root"), ("x-forwarded-user", "alice")]
    event = recorded(tmp_path, False, "127.0.0.1", headers)

    assert event["gatebook"]["identity"]["assurance"] == "failed"
    assert event["gatebook"]["attributes"] == {"identity_reason": "header_repeated"}
    assert "user" not in event
