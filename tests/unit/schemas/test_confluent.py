"""The Confluent format without a registry, and with one that answers badly.

A small HTTP server stands in for registries (and proxies before them) that fail in ways a healthy
one cannot be brought to; the real registry is in tests/integration/registry.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from gatebook.schemas import codec, confluent
from gatebook.schemas.confluent import ConfluentWire, wire_from_env
from gatebook.schemas.errors import Fatal, RecordRejected, RegistryUnavailable
from gatebook.schemas.examples import examples
from gatebook.schemas.registry import load
from gatebook.schemas.wire import AnyWire

ALERT = examples("alert.v2")["delivered"]
ALERT_TEXT = json.dumps(load("alert.v2").raw)
MESSAGE_WITH_ID_7 = b"\x00\x00\x00\x00\x07payload"


class Answering:
    """An HTTP server with one answer, and the requests it got."""

    def __init__(self) -> None:
        self.status, self.body = 200, ""
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append(f"{self.command} {self.path}")
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body.encode())

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                """Tests print nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def will_answer(self, status: int, body: str) -> None:
        self.status, self.body = status, body

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def answering() -> Iterator[Answering]:
    server = Answering()
    yield server
    server.close()


UNUSABLE = [
    (500, '{"error_code": 50001, "message": "store failed"}'),
    (503, "busy"),
    (429, "slow down"),
    (401, '{"error_code": 401, "message": "who are you"}'),
    (403, "no"),
    (404, "<html>a proxy's page</html>"),
    (404, '{"error_code": 404, "message": "HTTP 404 Not Found"}'),
    (200, "not json"),
    (200, "[]"),
]


@pytest.mark.parametrize(("status", "body"), UNUSABLE)
def test_a_registry_that_fails_never_makes_a_message_bad(
    answering: Answering, status: int, body: str
) -> None:
    """Outages, wrong addresses and proxies' pages are retryable; the text keeps secrets out."""
    answering.will_answer(status, body)
    wire = ConfluentWire(answering.url.replace("//", "//user:hunter2@"), "t")
    calls: list[Callable[[], object]] = [
        lambda: wire.prefix("alert.v2"),
        lambda: wire.identify(MESSAGE_WITH_ID_7),
    ]
    for call in calls:
        with pytest.raises(RegistryUnavailable) as caught:
            call()
        assert "hunter2" not in str(caught.value)


def test_a_registry_that_comes_back_is_asked_again(answering: Answering) -> None:
    """An outage leaves nothing behind: the next call works."""
    wire = ConfluentWire(answering.url, "t")
    answering.will_answer(500, "")
    with pytest.raises(RegistryUnavailable):
        codec.encode("alert.v2", ALERT, wire)
    answering.will_answer(200, '{"id": 7}')
    message = codec.encode("alert.v2", ALERT, wire)
    answering.will_answer(500, "")
    with pytest.raises(RegistryUnavailable):
        codec.decode("alert.v2", message, wire)
    answering.will_answer(200, json.dumps({"schema": ALERT_TEXT}))
    assert codec.decode("alert.v2", message, wire)["event"]["id"] == ALERT["event"]["id"]


def test_nobody_listening_is_an_outage() -> None:
    """A refused connection is retryable."""
    with pytest.raises(RegistryUnavailable, match="ConnectError"):
        ConfluentWire("http://127.0.0.1:9", "t").prefix("alert.v2")


def test_known_ids_are_not_asked_for_again(answering: Answering) -> None:
    """One request per schema and per id, so that a busy reader does not load the registry, and
    goes on through an outage."""
    wire = ConfluentWire(answering.url, "t")
    answering.will_answer(200, '{"id": 7}')
    message = codec.encode("alert.v2", ALERT, wire)
    codec.encode("alert.v2", ALERT, wire)
    answering.will_answer(200, json.dumps({"schema": ALERT_TEXT}))
    for _ in range(3):
        codec.decode("alert.v2", message, wire)
    assert [line.partition("?")[0] for line in answering.requests] == [
        "POST /subjects/t.alert.v1-value/versions",
        "GET /schemas/ids/7",
    ]


def test_made_up_ids_do_not_flood_the_registry(answering: Answering) -> None:
    """An id the registry does not know is rejected, and not asked for again at once."""
    wire = ConfluentWire(answering.url, "t")
    answering.will_answer(404, '{"error_code": 40403, "message": "Schema 7 not found"}')
    for _ in range(3):
        with pytest.raises(RecordRejected, match="unknown_schema"):
            wire.identify(MESSAGE_WITH_ID_7)
    assert len(answering.requests) == 1


def test_an_unknown_id_is_asked_for_again_later(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that lags behind a producer catches up; the id is believed then."""
    monkeypatch.setattr(confluent, "UNKNOWN_ID_SECONDS", 0.0)
    wire = ConfluentWire(answering.url, "t")
    answering.will_answer(404, '{"error_code": 40403, "message": "Schema 7 not found"}')
    with pytest.raises(RecordRejected):
        wire.identify(MESSAGE_WITH_ID_7)
    answering.will_answer(200, json.dumps({"schema": ALERT_TEXT}))
    assert wire.identify(MESSAGE_WITH_ID_7) == (load("alert.v2"), 5)


def test_what_is_remembered_of_hostile_ids_is_bounded(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids made up without end do not grow the process."""
    monkeypatch.setattr(confluent, "MAX_REMEMBERED_IDS", 3)
    wire = ConfluentWire(answering.url, "t")
    foreign = json.dumps({"schema": '"string"'})
    for first, status, body in ((0, 404, '{"error_code": 40403}'), (10, 200, foreign)):
        answering.will_answer(status, body)
        for number in range(first, first + 10):
            with pytest.raises(RecordRejected):
                wire.identify(b"\x00" + number.to_bytes(4, "big"))
    assert len(wire._schemas) <= 3
    assert len(wire._unknown_until) <= 3


@pytest.mark.parametrize(
    "text",
    [
        '"string"',
        "",
        "{",
        "null",
        "7",
        '{"type": "record", "name": "Other", "fields": []}',
        '{"type": "unheard"}',
        "[" * 100_000,
        ALERT_TEXT.replace("AlertRule", "Planted"),
    ],
    ids=lambda text: text[:12],
)
def test_a_schema_of_somebody_else_is_rejected(answering: Answering, text: str) -> None:
    """Whatever is registered behind the id: only packaged schemas are read."""
    answering.will_answer(200, json.dumps({"schema": text}))
    with pytest.raises(RecordRejected, match="not a packaged one"):
        ConfluentWire(answering.url, "t").identify(MESSAGE_WITH_ID_7)


@pytest.mark.parametrize("message", [b"", b"\x00", b"\x00\x00\x00\x00", b"\xc3\x01", b"{", b"\x01"])
def test_a_cut_or_foreign_prefix_is_rejected_without_asking(message: bytes) -> None:
    """No request is made for bytes that cannot hold an id."""
    for wire in (ConfluentWire("http://127.0.0.1:9", "t"), AnyWire()):
        with pytest.raises(RecordRejected):
            wire.identify(message)


def test_an_id_no_registry_gives_is_rejected_without_asking() -> None:
    """Ids are positive 32-bit numbers."""
    with pytest.raises(RecordRejected, match="no such id"):
        ConfluentWire("http://127.0.0.1:9", "t").identify(b"\x00\xff\xff\xff\xffpayload")


@pytest.mark.parametrize("status", [409, 422])
def test_a_registry_that_refuses_our_schema_stops_the_process(
    answering: Answering, status: int
) -> None:
    """Trying again cannot help: a person has to compare the schemas."""
    answering.will_answer(status, '{"error_code": 409, "message": "incompatible"}')
    with pytest.raises(Fatal, match=r"refuses alert.v2 under t.alert.v1-value") as caught:
        ConfluentWire(answering.url, "t").prefix("alert.v2")
    assert caught.value.next_step


def test_without_a_registry_its_messages_are_rejected() -> None:
    """A message in the Confluent format cannot be read without SCHEMA_REGISTRY_URL."""
    with pytest.raises(RecordRejected, match="no schema registry is configured"):
        AnyWire().identify(MESSAGE_WITH_ID_7)


def test_the_environment_chooses_the_format() -> None:
    """SCHEMA_REGISTRY_URL set: Confluent; unset or empty: single-object encoding."""
    for environ in ({}, {"SCHEMA_REGISTRY_URL": " "}):
        assert wire_from_env(environ=environ).prefix("alert.v2")[:2] == b"\xc3\x01"
    chosen = wire_from_env(environ={"SCHEMA_REGISTRY_URL": "http://127.0.0.1:9"})
    with pytest.raises(RegistryUnavailable):
        chosen.prefix("alert.v2")


@pytest.mark.parametrize(
    ("given", "variable", "subject"),
    [
        (None, "", "gatebook.access.v1-value"),
        (None, "ops", "ops.access.v1-value"),
        ("mine", "ops", "mine.access.v1-value"),
    ],
)
def test_the_subject_is_that_of_the_topic(
    answering: Answering, given: str | None, variable: str, subject: str
) -> None:
    """Any Confluent client finds the schema by the topic's name."""
    environ = {"SCHEMA_REGISTRY_URL": answering.url, "GATEBOOK_NAMESPACE": variable}
    answering.will_answer(200, '{"id": 1}')
    assert wire_from_env(given, environ).prefix("frame.v2") == b"\x00\x00\x00\x00\x01"
    assert answering.requests[0].startswith(f"POST /subjects/{subject}/versions")


@pytest.mark.parametrize("url", ["localhost:8081", "file:///etc", "http://a, mock://b"])
def test_an_address_that_is_none_stops_the_process(url: str) -> None:
    """A wrong setting is found at the start, not at the first message."""
    with pytest.raises(Fatal, match="SCHEMA_REGISTRY_URL is not an address"):
        wire_from_env(environ={"SCHEMA_REGISTRY_URL": url})
