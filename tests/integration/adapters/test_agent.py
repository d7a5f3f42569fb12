"""`gatebook agent` as a process of its own, up to the index."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.pipeline import Pipeline
from tests.waiting import wait_until

AGENT = (sys.executable, "-m", "gatebook.cli.main", "agent")
SECRET = "AKIAIOSFODNN7EXAMPLE"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class Agent:
    """The process and where it listens."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path, home: Path) -> None:
        self.child = child
        found = wait_until(
            "the agent listens",
            lambda: re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text()),
        )
        self.port = int(found[1])
        self.token = (home / "keys" / "agent.token").read_text().strip()

    def post(self, events: Any) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.token}"}
        return ask(connection, events, headers)


def ask(
    connection: http.client.HTTPConnection, events: Any, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    connection.request("POST", "/v1/events", json.dumps(events), headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


@contextmanager
def running(pipeline: Pipeline, name: str, *options: str, **environment: str) -> Iterator[Agent]:
    log = pipeline.home / f"agent-{name}.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [*AGENT, "--listen", "127.0.0.1:0", *options],
            env=pipeline.environment(**environment),
            stderr=file,
        )
    try:
        yield Agent(child, log, pipeline.home)
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) in (0, -signal.SIGKILL)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime())


def events(count: int) -> list[dict[str, Any]]:
    return [
        {
            "@timestamp": now(),
            "event": {"id": str(uuid.uuid4()), "action": "chat", "duration": 801_000_000},
            "user": {"id": f"user{number}"},
            "source": {"ip": "10.20.4.18"},
            "http": {"response": {"status_code": 200 if number % 5 else 500}},
            "gen_ai": {"request": {"model": "slm"}, "usage": {"output_tokens": number}},
        }
        for number in range(count)
    ]


def test_events_sent_again_after_a_kill_stand_in_the_index_once(pipeline: Pipeline) -> None:
    """What was answered 200 survives SIGKILL; a client that sends everything again changes
    nothing, and no dead letter tells of its copies."""
    pipeline.start("intake", "index")
    sent = events(60)
    with running(pipeline, "killed") as agent:
        status, body = agent.post(sent[:40])
        assert (status, body["accepted"]) == (200, 40)
        agent.child.kill()
        agent.child.wait(30)
    with running(pipeline, "again") as agent:
        status, body = agent.post(sent)
        assert (status, body["accepted"]) == (200, 60)
        assert [r["id"] for r in body["results"]] == [e["event"]["id"] for e in sent]
    pipeline.wait_indexed(60)
    with running(pipeline, "third") as agent:
        last = events(1)
        agent.post([*sent, *last])
    wait_until("the last event", lambda: pipeline.indexed() == 61)

    found = {document["event"]["id"]: document for document in pipeline.documents()}
    assert found.keys() == {e["event"]["id"] for e in [*sent, *last]}
    assert pipeline.indexed("deadletter") == 0
    failed = found[sent[5]["event"]["id"]]
    assert (failed["event"]["outcome"], failed["event"]["reason"]) == ("failure", "server_error")
    assert failed["@timestamp"] == sent[5]["@timestamp"]


def test_content_through_a_unix_socket_is_redacted_like_any_other(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """No token there, the file's mode decides; a secret in prompt or path reaches no index."""
    path = Path(os.path.relpath(tmp_path / "a.sock"))  # a socket's path is short
    pipeline.start("intake", "index")
    event = {
        **events(1)[0],
        "url": {"path": f"/v1/files/{SECRET}"},
        "content": {"input_messages": [{"role": "user", "content": f"my key is {SECRET}"}]},
    }
    level = {"GATEBOOK_CAPTURE_LEVEL": "redacted"}
    with running(pipeline, "unix", "--socket", str(path), **level):
        wait_until("the socket", path.exists)
        status, _ = ask(UnixConnection(path), event, {})
        assert status == 200
    pipeline.wait_indexed(1)
    (document,) = pipeline.documents()
    text = json.dumps(document)
    assert SECRET not in text
    assert "my key is" in document["gen_ai"]["input"]["messages"]
    assert document["gatebook"]["redaction"]["counts"]
    assert document["gatebook"]["attributes"]["door"] == "agent"
