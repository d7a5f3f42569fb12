"""A strict stand-in for Alertmanager's API v2, for the demo and for tests.

It takes `POST /api/v2/alerts` as the published OpenAPI document has it, and says no (400) to
everything else: a body that is not a list of alerts, an alert without labels, a label name that
Prometheus would not take, a time that is not RFC 3339, a property nobody knows. It groups by
alertname, resolves by `endsAt`, and pages nobody.

    with AlertReceiver() as receiver:
        ...                       # point a target at receiver.url
        print(receiver.alerts)    # one per set of labels, the latest of each
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

MAX_BODY_BYTES = 4 * 1024 * 1024
ALERTS_PATH = "/api/v2/alerts"
GROUPS_PATH = "/api/v2/alerts/groups"
HEALTH_PATHS = ("/-/healthy", "/-/ready")
_KNOWN_PROPERTIES = frozenset({"labels", "annotations", "startsAt", "endsAt", "generatorURL"})
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")

Alert = dict[str, Any]


def parse_rfc3339(text: str) -> datetime:
    """A time as RFC 3339 has it, cut to microseconds. Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not RFC 3339")
    day, clock, decimals, zone = match.groups()
    micro = (decimals or "0")[:6].ljust(6, "0")
    offset = "+00:00" if zone in "Zz" else zone
    return datetime.fromisoformat(f"{day}T{clock}.{micro}{offset}")


def problems_of(body: bytes) -> list[str]:
    """Why Alertmanager would not take this body; empty where it would."""
    try:
        alerts = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return ["the body is not JSON in UTF-8"]
    if not isinstance(alerts, list):
        return ["the body is not a list of alerts"]
    return [
        f"alert {number}: {problem}"
        for number, alert in enumerate(alerts)
        for problem in _alert_problems(alert)
    ]


def _alert_problems(alert: Any) -> Iterator[str]:
    if not isinstance(alert, dict):
        yield "is not an object"
        return
    for name in sorted(alert.keys() - _KNOWN_PROPERTIES):
        yield f"property {name!r} is not known"
    yield from _label_problems("labels", alert.get("labels"))
    labels = alert.get("labels")
    if isinstance(labels, dict) and not any(labels.values()):
        yield "at least one label pair required"
    if "annotations" in alert:
        yield from _label_problems("annotations", alert["annotations"])
    yield from _time_problems(alert)
    if "generatorURL" in alert and not _is_uri(alert["generatorURL"]):
        yield "generatorURL is not a URI"


def _label_problems(what: str, labels: Any) -> Iterator[str]:
    if not isinstance(labels, dict):
        yield f"{what} is not an object"
        return
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name):
            yield f"{what}: name {name!r} is not valid"
        if not isinstance(value, str):
            yield f"{what}: value of {name!r} is not a string"
        elif any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{what}: value of {name!r} is not valid UTF-8"


def _time_problems(alert: Mapping[str, Any]) -> Iterator[str]:
    times = {}
    for name in ("startsAt", "endsAt"):
        if name in alert:
            try:
                times[name] = parse_rfc3339(alert[name])
            except (TypeError, ValueError):
                yield f"{name} is not an RFC 3339 time"
    if len(times) == 2 and times["endsAt"] < times["startsAt"]:
        yield "start time must be before end time"


def _is_uri(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return False
    return " " not in value and bool(urlsplit(value).scheme)


@dataclass(frozen=True)
class Answer:
    """What the receiver says to one request instead of judging it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    keep: bool = False
    """Whether the alerts are taken all the same: failed, but persisted anyway."""


class AlertReceiver:
    """Runs in a thread of its own from entry to exit; `with` and `async with` both do."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = (host, port)
        self._lock = threading.Lock()
        self._script: deque[Answer] = deque()
        self._closing = threading.Event()
        self.received: list[Alert] = []
        """Every alert taken, in order."""
        self.refused: list[list[str]] = []
        """What was wrong with each body that was not taken."""
        self.authorizations: list[str] = []
        """Authorization header of each request; empty where there was none."""
        self.url = ""
        """Base URL while it runs."""

    @property
    def requests(self) -> int:
        """Requests to post alerts so far."""
        return len(self.authorizations)

    @property
    def alerts(self) -> list[Alert]:
        """One alert per set of labels, the latest of each, in the order of their first."""
        with self._lock:
            merged = {json.dumps(a["labels"], sort_keys=True): a for a in self.received}
        return list(merged.values())

    @property
    def active(self) -> list[Alert]:
        """The alerts that are not resolved yet."""
        now = datetime.now(UTC)
        return [a for a in self.alerts if "endsAt" not in a or parse_rfc3339(a["endsAt"]) > now]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Active alerts by alertname, as GET /api/v2/alerts/groups shows them."""
        by_name: dict[str, list[Alert]] = {}
        for alert in self.active:
            by_name.setdefault(alert["labels"].get("alertname", ""), []).append(alert)
        return [{"labels": {"alertname": n}, "alerts": found} for n, found in by_name.items()]

    def answer_next_with(self, *answers: Answer) -> None:
        """Say this to the next requests, in order; after that, judge again."""
        with self._lock:
            self._script.extend(answers)

    def take(self, body: bytes, authorization: str) -> tuple[int, Mapping[str, str]]:
        """Judge one request; the status and headers to answer with."""
        with self._lock:
            self.authorizations.append(authorization)
            answer = self._script.popleft() if self._script else None
        if answer is not None and not answer.keep:
            self._closing.wait(answer.delay_seconds)
            return answer.status, answer.headers
        problems = problems_of(body)
        with self._lock:
            if problems:
                self.refused.append(problems)
            else:
                self.received += json.loads(body)
        if answer is not None:
            self._closing.wait(answer.delay_seconds)
            return answer.status, answer.headers
        return (400 if problems else 200), {}

    def __enter__(self) -> Self:
        self._closing.clear()
        self._server = ThreadingHTTPServer(self._address, _handler(self))
        self._server.daemon_threads = True
        host, port = self._server.server_address[:2]
        self.url = f"http://{host!s}:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _handler(receiver: AlertReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == ALERTS_PATH:
                self._answer(200, receiver.active)
            elif path == GROUPS_PATH:
                self._answer(200, receiver.groups)
            elif path in HEALTH_PATHS:
                self._answer(200, "OK")
            else:
                self._answer(404, "no such path")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                self._answer(413, "a body of known, moderate length is wanted")
                return
            body = self.rfile.read(int(length))
            if urlsplit(self.path).path != ALERTS_PATH:
                self._answer(404, "no such path")
            elif self.headers.get_content_type() != "application/json":
                self._answer(415, "application/json is wanted")
            else:
                status, headers = receiver.take(body, self.headers.get("Authorization", ""))
                self._answer(status, problems_of(body) if status == 400 else "", headers)

        def _answer(
            self, status: int, value: Any, headers: Mapping[str, str] | None = None
        ) -> None:
            body = json.dumps(value).encode()
            try:
                self.send_response(status)
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the caller did not wait for the answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a request line is not worth a line on the console."""

    return Handler


def main() -> None:
    """Run it in the foreground until Ctrl-C, printing what arrives."""
    with AlertReceiver(port=9093) as receiver:
        print(f"taking alerts at {receiver.url}{ALERTS_PATH}")
        seen = 0
        try:
            while True:
                time.sleep(0.2)
                for alert in receiver.received[seen:]:
                    print(json.dumps(alert, indent=2))
                seen = len(receiver.received)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
