"""Strict stand-ins for what alert targets talk to: each checks the published schema and keeps
what the real one would keep, one entry a key.

`opened` counts how often somebody would have been called, `open_keys` says who still would be.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from standardwebhooks import Webhook

from gatebook.cli.demo.alert_receiver import AlertReceiver, Answer

SCHEMAS = Path(__file__).parent / "vendor_schemas"
ROUTING_KEY = "0123456789abcdef0123456789abcdef"
GENIE_KEY = "11111111-2222-3333-4444-555555555555"
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SLACK_PATH = "/services/T000/B000/XXXX"


@cache
def _validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def schema_problems(name: str, value: Any) -> list[str]:
    """What a published schema says against a value."""
    errors = _validator(name).iter_errors(value)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors]


class _Server(ThreadingHTTPServer):
    """One that lets as many knock at once as a vendor's would: a queue of five refuses callers on
    a busy machine."""

    request_queue_size = 256


class Receiver(Protocol):
    """What the contract suite sees of any receiver."""

    url: str

    @property
    def requests(self) -> int:
        """Requests so far."""

    @property
    def refused(self) -> list[list[str]]:
        """What was wrong with each request that was refused for its content."""

    @property
    def opened(self) -> int:
        """How often somebody was called."""

    @property
    def open_keys(self) -> set[str]:
        """Keys of what is still open."""

    @property
    def texts(self) -> str:
        """All that was kept, as text."""

    def answer_next_with(self, *answers: Answer) -> None:
        """Say this to the next requests, in order; after that, judge again."""


class AlertmanagerReceiver(AlertReceiver):
    """The strict receiver of the demo, seen as the suite sees all."""

    @property
    def opened(self) -> int:
        return len(self.alerts)

    @property
    def open_keys(self) -> set[str]:
        return {alert["labels"]["dedup"] for alert in self.active}

    @property
    def texts(self) -> str:
        return json.dumps(self.received)


class VendorReceiver:
    """An HTTP server in a thread; a subclass judges and keeps."""

    accepted = 202

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._script: deque[Answer] = deque()
        self._closing = threading.Event()
        self.requests = 0
        self.refused: list[list[str]] = []
        self.kept: list[dict[str, Any]] = []
        self.opened = 0
        self.open_keys: set[str] = set()
        self.acknowledged: set[str] = set()
        self.times: list[float] = []
        self.url = ""

    def problems(self, path: str, headers: Mapping[str, str], body: Any, raw: bytes) -> list[str]:
        """What the vendor would say against a request; header names in lower case."""
        raise NotImplementedError

    def keep(self, path: str, body: Any) -> None:
        """What the vendor does with a good one."""
        raise NotImplementedError

    @property
    def texts(self) -> str:
        return json.dumps(self.kept)

    def answer_next_with(self, *answers: Answer) -> None:
        with self._lock:
            self._script.extend(answers)

    def _open(self, key: str) -> None:
        if key not in self.open_keys:
            self.opened += 1
            self.open_keys.add(key)

    def _close(self, key: str) -> None:
        self.open_keys.discard(key)
        self.acknowledged.discard(key)

    def take(self, path: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Judge one request, and keep it where it is good."""
        with self._lock:
            self.requests += 1
            answer = self._script.popleft() if self._script else None
            if answer is None or answer.keep:
                problems = self._judge(path, headers, raw)
                if problems:
                    self.refused.append(problems)
                status = 400 if problems else self.accepted
                answer = answer or Answer(status)
        self._closing.wait(answer.delay_seconds)
        return answer

    def _judge(self, path: str, headers: Mapping[str, str], raw: bytes) -> list[str]:
        try:
            body = json.loads(raw)
        except ValueError:
            return ["the body is not JSON"]
        problems = self.problems(path, headers, body, raw)
        if not problems:
            self.kept.append(body)
            self.times.append(time.time())
            self.keep(path, body)
        return problems

    def __enter__(self) -> Self:
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self._port), _handler(self.take))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(
    take: Callable[[str, Mapping[str, str], bytes], Answer],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = take(self.path, headers, raw)
            try:
                self.send_response(answer.status)
                for name, text in answer.headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
            except OSError:
                self.close_connection = True  # the caller did not wait for the answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    return Handler


def _wanted(what: str, actual: str | None, expected: str) -> Iterator[str]:
    if actual != expected:
        yield f"{what} is {actual!r}"


class PagerDutyReceiver(VendorReceiver):
    """Events API v2: an alert is open from its first trigger to its resolve."""

    def problems(self, path: str, headers: Mapping[str, str], body: Any, raw: bytes) -> list[str]:
        return [
            *_wanted("path", path, "/v2/enqueue"),
            *_wanted("content type", headers.get("content-type"), "application/json"),
            *schema_problems("pagerduty_event", body),
            *(["payload over 512 KB"] if len(raw) > 512 * 1024 else []),
            *_wanted("routing key", body.get("routing_key"), ROUTING_KEY),
        ]

    def keep(self, path: str, body: Any) -> None:
        key, action = body["dedup_key"], body["event_action"]
        if action == "trigger":
            self._open(key)
        elif action == "resolve":
            self._close(key)
        elif key in self.open_keys:
            self.acknowledged.add(key)


class OpsgenieReceiver(VendorReceiver):
    """Alert API: an open alias counts repetitions."""

    base = "/v2/alerts"
    _step = re.compile(r"(?P<base>.+)/(?P<alias>[^/]+)/(?P<step>close|acknowledge)")

    def problems(self, path: str, headers: Mapping[str, str], body: Any, raw: bytes) -> list[str]:
        parts = urlsplit(path)
        common = [
            *_wanted("authorization", headers.get("authorization"), f"GenieKey {GENIE_KEY}"),
            *_wanted("content type", headers.get("content-type"), "application/json"),
        ]
        if found := self._step.fullmatch(parts.path):
            query = parse_qs(parts.query).get("identifierType", [""])[0]
            return [
                *common,
                *_wanted("path", found["base"], self.base),
                *_wanted("identifierType", query, "alias"),
                *schema_problems("opsgenie_step", body),
            ]
        return [
            *common,
            *_wanted("path", path, self.base),
            *schema_problems("opsgenie_alert", body),
        ]

    def keep(self, path: str, body: Any) -> None:
        found = self._step.fullmatch(urlsplit(path).path)
        if found is None:
            self._open(body["alias"])
        elif found["step"] == "close":
            self._close(found["alias"])
        elif found["alias"] in self.open_keys:
            self.acknowledged.add(found["alias"])


class JsmReceiver(OpsgenieReceiver):
    """The same under the address of Jira Service Management."""

    base = "/jsm/ops/integration/v2/alerts"


class SlackReceiver(VendorReceiver):
    """An incoming webhook: every message is shown."""

    accepted = 200

    def problems(self, path: str, headers: Mapping[str, str], body: Any, raw: bytes) -> list[str]:
        markup = re.search(r"<[!@#]", body.get("text", "")) if isinstance(body, dict) else None
        return [
            *_wanted("path", path, SLACK_PATH),
            *_wanted("content type", headers.get("content-type"), "application/json"),
            *schema_problems("slack_message", body),
            *(["a mention"] if markup else []),
        ]

    def keep(self, path: str, body: Any) -> None:
        (context,) = [b for b in body["blocks"] if b["type"] == "context"]
        found = re.search(r"incident (\S+)", context["elements"][0]["text"])
        assert found
        if body["text"].startswith("resolved: "):
            self._close(found[1])
        elif body["text"].startswith("acknowledged: "):
            self.acknowledged.add(found[1])
        else:
            self.open_keys.add(found[1])
            self.opened += 1


class WebhookReceiver(VendorReceiver):
    """CloudEvents, checked with the reference library of Standard Webhooks; an id seen before is
    a repetition."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.seen: set[str] = set()

    def problems(self, path: str, headers: Mapping[str, str], body: Any, raw: bytes) -> list[str]:
        return [
            *_wanted("content type", headers.get("content-type"), "application/cloudevents+json"),
            *schema_problems("cloudevent", body),
            *_wanted("webhook-id", headers.get("webhook-id"), body.get("id")),
            *self._unsigned(headers, raw),
        ]

    def _unsigned(self, headers: Mapping[str, str], raw: bytes) -> Iterator[str]:
        try:
            Webhook(SIGNING_SECRET).verify(raw, dict(headers))
        except Exception as error:  # the library's own class is not exported
            yield f"not signed: {error}"

    def keep(self, path: str, body: Any) -> None:
        if body["id"] in self.seen:
            return
        self.seen.add(body["id"])
        step = body["type"].rpartition(".")[2]
        if step == "firing":
            self._open(body["subject"])
        elif step == "resolved":
            self._close(body["subject"])
        else:
            self.acknowledged.add(body["subject"])
