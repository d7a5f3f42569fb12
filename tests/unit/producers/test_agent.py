"""The language-neutral door without a broker: what it takes, refuses, bounds and answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gatebook.producers.adapters.agent import Agent
from gatebook.producers.adapters.agent_intake import make_intake
from gatebook.producers.adapters.agent_settings import AgentSettings, read_token
from gatebook.producers.recorder import Recorder
from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.intents import intent_id

TOKEN = "t" * 32
MANY_HEADERS = b"".join(b"h%d: 1\r\n" % number for number in range(200))
SMALL = {"frame_max_bytes": 16 * 1024, "spool_max_bytes": 64 * 1024}


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Door:
    """A running agent, and requests to it."""

    def __init__(self, agent: Agent, address: str) -> None:
        self.agent = agent
        self.host, _, port = address.removeprefix("http://").rpartition(":")
        self.port = int(port) if port.isdigit() else 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def post(
        self, body: bytes | str | list[Any] | dict[str, Any], token: str = TOKEN, **headers: str
    ) -> Got:
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = {"Authorization": f"Bearer {token}", "Content-Length": str(len(data)), **named}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return await self.raw(f"POST /v1/events HTTP/1.1\r\n{head}\r\n".encode() + data)

    async def raw(self, request: bytes) -> Got:
        reader, writer = await self.connect()
        writer.write(request)
        got = await read_answer(reader)
        writer.close()
        return got


async def read_answer(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    is_json = headers["content-type"] == "application/json"
    return Got(int(head.split(" ")[1]), headers, json.loads(body) if is_json else body)


@asynccontextmanager
async def opened(recorder: Recorder, **settings: Any) -> AsyncIterator[Door]:
    given = AgentSettings(**{"listen": "127.0.0.1:0", **settings})
    agent = Agent(given, make_intake(recorder.settings, recorder), TOKEN.encode())
    address = (await agent.start())[0]
    serving = asyncio.create_task(agent.serve(1))
    try:
        yield Door(agent, address)
    finally:
        agent.stop()
        await serving


def access(user: str = "ada", **more: Any) -> dict[str, Any]:
    return {"user": {"id": user}, "http": {"response": {"status_code": 200}}, **more}


async def test_object_array_and_lines_are_all_events(make_recorder: Any, published: Any) -> None:
    """Three forms, one result for each event, and what follows from the rest is filled in."""
    recorder = make_recorder()
    async with opened(recorder) as door:
        one = await door.post(access("u1"))
        array = await door.post([access("u2"), access("u3")])
        lines = f"{json.dumps(access('u4'))}\n\n{json.dumps(access('u5'))}\n"
        by_type = await door.post(lines, Content_Type="application/x-ndjson")
        by_look = await door.post(lines)
    assert [got.status for got in (one, array, by_type, by_look)] == [200] * 4
    assert [r["position"] for r in by_type.body["results"]] == ["line 1", "line 3"]
    assert recorder.flush(10).complete
    events = published.events()
    assert [e["user"]["id"] for e in events] == ["u1", "u2", "u3", "u4", "u5", "u4", "u5"]
    assert one.body["results"][0]["id"] == events[0]["event"]["id"]
    assert (events[0]["event"]["outcome"], events[0]["event"]["type"]) == ("success", "access")
    assert events[0]["attributes"] == {"door": "agent"}


async def test_an_answer_200_means_fsynced(make_recorder: Any, published: Any) -> None:
    """Before it the events stand in the spool, whatever the broker does."""
    recorder = make_recorder()
    published.publisher.down = True
    async with opened(recorder) as door:
        got = await door.post([access() for _ in range(100)])
        assert (got.status, got.body["accepted"]) == (200, 100)
        assert recorder.counters().spooled == 100
    published.publisher.down = False


async def test_a_bad_line_is_told_with_its_place_and_costs_nobody_else(
    make_recorder: Any, published: Any
) -> None:
    """No value of it is in the answer; its neighbours are recorded."""
    recorder = make_recorder()
    lines = [
        json.dumps(access("good")),
        '{"user": {"id": "hunter2"',
        json.dumps({"user": {"id": "hunter2", "sk-hunter2-KEY": 1}}),
        json.dumps({"gen_ai": {"usage": {"input_tokens": "hunter2"}}}),
        json.dumps({"@timestamp": "hunter2"}),
        json.dumps({"event": {"outcome": "hunter2"}}),
        '["hunter2"]',
    ]
    async with opened(recorder) as door:
        got = await door.post("\n".join(lines), Content_Type="application/x-ndjson")
    assert (got.status, got.body["accepted"], got.body["invalid"]) == (200, 1, 6)
    assert "hunter2" not in json.dumps(got.body)
    errors = {r["position"]: r["error"] for r in got.body["results"] if r["status"] == "invalid"}
    assert "is not JSON" in errors["line 2"]
    assert errors["line 3"] == "user: has an unknown field, number 2"
    assert errors["line 4"] == "gen_ai.usage.input_tokens: is not an integer"
    assert errors["line 5"].startswith("timestamp: is neither ISO 8601")
    assert errors["line 6"].startswith("event.outcome")
    assert recorder.flush(10).complete
    assert [e["user"]["id"] for e in published.events()] == ["good"]


@pytest.mark.parametrize("body", ["", "[]", "null", "5", '"text"', "{", "[" * 100_000, b"\xff\xfe"])
async def test_a_body_without_a_valid_event_is_400(make_recorder: Any, body: Any) -> None:
    """And the agent goes on."""
    async with opened(make_recorder()) as door:
        assert (await door.post(body)).status == 400
        assert (await door.post(access())).status == 200


async def test_what_a_sender_may_not_decide_is_decided_here(
    make_recorder: Any, published: Any
) -> None:
    """Capture, producer, assurance and error texts; a key becomes its digest."""
    recorder = make_recorder()
    claimed = access(
        gatebook={
            "identity": {"method": "oidc", "assurance": "verified", "key_id": "sk-secret-key"},
            "capture": {"level": "full", "policy": "mine"},
            "content_digest": {"input": "forged"},
        },
        url={"path": "/v1/chat/completions?api_key=sk-secret"},
        error={"type": "E", "message": "the prompt was: sk-secret"},
        content={"input_messages": [{"role": "user", "content": "sk-secret"}]},
    )
    async with opened(recorder) as door:
        assert (await door.post(claimed)).status == 200
        refused = await door.post(access(gatebook={"producer_id": "p", "sequence": 1}))
    assert refused.body["results"][0]["error"] == "gatebook: has an unknown field, producer_id"
    assert recorder.flush(10).complete
    (event,) = published.events()
    ours = event["gatebook"]
    assert "sk-secret" not in repr(event)
    assert ours["identity"]["assurance"] == "asserted"
    assert ours["identity"]["key_id"].startswith("key_")
    assert (ours["capture"]["level"], ours["capture"]["policy"]) == ("metadata", "settings")
    assert len(ours["content_digest"]["input"]) == 64
    assert event["content"] is None
    assert (event["url"]["path"], event["error"]["message"]) == ("/v1/chat/completions", "")
    assert event["event"]["action"] == "chat"


async def test_content_is_kept_for_intake_where_the_level_allows_it(
    make_recorder: Any, published: Any
) -> None:
    """As an object or as JSON text; at `none` nothing but that it happened."""
    recorder = make_recorder(capture_level="redacted")
    content = {"input_messages": [{"role": "user", "content": "hello"}]}
    async with opened(recorder) as door:
        got = await door.post(
            [access(content=content), access(content=json.dumps(content), content_encoding="json")]
        )
    assert got.body["accepted"] == 2
    assert recorder.flush(10).complete
    assert [json.loads(e["content"]) for e in published.events()] == [content, content]

    bare = make_recorder(capture_level="none")
    async with opened(bare) as door:
        assert (await door.post(access("ada", content=content))).status == 200
    assert bare.flush(10).complete
    last = published.events()[-1]
    assert (last["user"]["id"], last["content"]) == ("", None)
    assert last["event"]["outcome"] == "success"


async def test_an_event_keeps_its_own_id(make_recorder: Any, published: Any) -> None:
    """A retry is then the same event; without a time of its own it could not be."""
    recorder = make_recorder()
    own = "018f0000-0000-7000-8000-00000000000a"
    when = "2026-11-23T10:00:00.123456789+01:00"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    async with opened(recorder) as door:
        got = await door.post([{"event": {"id": own.upper()}, "@timestamp": now}])
        bad = await door.post(
            [{"event": {"id": own}}, {"event": {"id": "mine"}, "@timestamp": now}]
        )
        old = await door.post([{"@timestamp": "2001-01-01T00:00:00Z"}, {"@timestamp": when[:-6]}])
    assert got.body["results"][0]["id"] == own
    assert [r["error"].partition(":")[0] for r in bad.body["results"]] == ["@timestamp", "event.id"]
    assert old.body["invalid"] == 2
    assert recorder.flush(10).complete
    assert [e["event"]["id"] for e in published.events()] == [own]


async def test_a_full_spool_is_429_and_clears_up(make_recorder: Any, published: Any) -> None:
    """What did not fit is marked for a retry; after the broker is back it fits."""
    recorder = make_recorder(**SMALL, memory_buffer_max_bytes=64 * 1024)
    published.publisher.down = True
    async with opened(recorder) as door:
        big = access(attributes={f"k{n}": "v" * 1000 for n in range(10)})
        got = await door.post([big] * 60)
        assert got.status == 429
        assert int(got.headers["retry-after"]) >= 1
        assert got.body["retry"] > 0
        assert got.body["accepted"] + got.body["retry"] == 60
        assert {r.get("error", "") for r in got.body["results"]} <= {
            "",
            "buffer_full",
            "spool_full",
        }
        published.publisher.down = False
        assert recorder.flush(20).complete
        assert (await door.post(big)).status == 200


async def test_a_spool_that_cannot_be_written_is_503(make_recorder: Any, tmp_path: Path) -> None:
    """Nothing is called accepted that a crash would lose; healthz says so, too."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    recorder = make_recorder(spool_dir=str(blocked))
    async with opened(recorder) as door:
        got = await door.post(access())
        assert (got.status, got.body["accepted"], got.body["retry"]) == (503, 0, 1)
        assert (await door.raw(b"GET /healthz HTTP/1.1\r\n\r\n")).status == 503


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
async def test_without_the_token_nothing_goes_in(
    make_recorder: Any, published: Any, header: str
) -> None:
    """401 before the body is read."""
    recorder = make_recorder()
    async with opened(recorder) as door:
        got = await door.post(access(), Authorization=header)
        assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
    assert recorder.counters().emitted == 0


async def test_health_and_metrics_say_nothing_of_events(make_recorder: Any) -> None:
    """They are open, and count."""
    async with opened(make_recorder()) as door:
        await door.post(access("very-private"))
        assert (await door.raw(b"GET /healthz HTTP/1.1\r\n\r\n")).body == {"status": "ok"}
        metrics = (await door.raw(b"GET /metrics HTTP/1.1\r\n\r\n")).body
    assert b'gatebook_agent_events_total{result="accepted"}' in metrics
    assert b"gatebook_producer_events_emitted_total" in metrics
    assert b"very-private" not in metrics


async def test_bodies_have_a_limit_packed_or_not(make_recorder: Any) -> None:
    """413 for what is declared, sent in chunks, or unpacked larger."""
    async with opened(make_recorder(), body_max_bytes=2048) as door:
        assert (await door.post(b" " * 3000)).status == 413
        bomb = gzip.compress(b" " * 5_000_000)
        assert (await door.post(bomb[:2000], Content_Encoding="gzip")).status in (400, 413)
        small = gzip.compress(json.dumps(access()).encode())
        assert (await door.post(small, Content_Encoding="gzip")).status == 200
        assert (await door.post(gzip.compress(b" " * 3000), Content_Encoding="gzip")).status == 413
        assert (await door.post(small[:-9], Content_Encoding="gzip")).status == 400
        assert (await door.post(b"{}", Content_Encoding="br")).status == 415
        head = f"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        body = json.dumps(access()).encode()
        whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        assert (await door.raw(chunked + whole)).status == 200
        assert (await door.raw(chunked + b"ffff\r\n")).status == 413
        assert (await door.raw(chunked + b"zz\r\n")).status == 400


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /v1/events HTTP/1.1\r\n\r\n", 405),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode(), 411),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length : 5\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + MANY_HEADERS + b"\r\n", 431),
        (
            b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
            + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
            + b"Content-Length: -1\r\n\r\n",
            400,
        ),
        (b"POST /v1/events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)  # fmt: skip
async def test_odd_requests_get_an_answer(
    make_recorder: Any, request_bytes: bytes, status: int
) -> None:
    """Whatever is sent, the agent says what is wrong and lives on."""
    async with opened(make_recorder()) as door:
        assert (await door.raw(request_bytes)).status == status
        assert (await door.post(access())).status == 200


async def test_a_slow_client_is_cut_off(make_recorder: Any) -> None:
    """However slowly head or body drip in, the connection ends after the time for a request."""
    async with opened(make_recorder(), request_timeout_seconds=0.3) as door:
        reader, writer = await door.connect()
        writer.write(b"POST /v1/ev")
        assert (await read_answer(reader)).status == 408
        assert await reader.read() == b""
        writer.close()
        head = b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
        got = await door.raw(head + b"Content-Length: 9\r\n\r\n{")
        assert got.status == 408


async def test_idle_and_surplus_connections_are_closed(make_recorder: Any) -> None:
    """So that they cannot keep others out for ever."""
    async with opened(make_recorder(), connections_max=2, idle_timeout_seconds=1.0) as door:
        pairs = [await door.connect() for _ in range(3)]
        assert await pairs[2][0].read() == b""  # one too many
        for reader, _ in pairs[:2]:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert (await door.post(access())).status == 200
        for _, writer in pairs:
            writer.close()


async def test_a_connection_serves_many_requests(make_recorder: Any) -> None:
    """One after the other, `Expect: 100-continue` as curl sends it included."""
    async with opened(make_recorder()) as door:
        reader, writer = await door.connect()
        body = json.dumps(access()).encode()
        head = f"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        for _ in range(3):
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert (await read_answer(reader)).status == 200
        expecting = f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        writer.write(expecting.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader)).status == 200
        writer.close()


async def test_a_unix_socket_is_guarded_by_its_mode(make_recorder: Any, tmp_path: Path) -> None:
    """No token; what a dead agent left is cleared away, a living one is not displaced."""
    path = tmp_path / "agent.sock"
    recorder = make_recorder()
    async with opened(recorder, listen="", socket=str(path), socket_mode="0620"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        reader, writer = await asyncio.open_unix_connection(path)
        body = json.dumps(access()).encode()
        writer.write(b"POST /v1/events HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await read_answer(reader)).status == 200
        writer.close()
        with pytest.raises(Fatal, match="already"):
            async with opened(recorder, listen="", socket=str(path)):
                raise AssertionError("two agents on one socket")
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(Fatal, match="no socket"):
        async with opened(recorder, listen="", socket=str(path)):
            raise AssertionError("a file was replaced")
    assert path.read_text() == "precious"


def test_the_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """A file that others may read is refused, as is one with hardly anything in it."""
    made = read_token(AgentSettings(), tmp_path)
    path = tmp_path / "keys" / "agent.token"
    assert read_token(AgentSettings(), tmp_path) == made
    assert (len(made), stat.S_IMODE(path.stat().st_mode)) == (64, 0o600)
    os.chmod(path, 0o640)
    with pytest.raises(Fatal, match="others may read"):
        read_token(AgentSettings(), tmp_path)
    os.chmod(path, 0o600)
    path.write_text("short\n")
    with pytest.raises(Fatal, match="fewer than"):
        read_token(AgentSettings(), tmp_path)
    with pytest.raises(Fatal, match="cannot be read"):
        read_token(AgentSettings(token_file=str(tmp_path / "gone")), tmp_path)


@pytest.mark.parametrize(
    "environment",
    [
        {"GATEBOOK_AGENT_LISTEN": "0.0.0.0:4320"},
        {"GATEBOOK_AGENT_LISTEN": "no-port"},
        {"GATEBOOK_AGENT_SOCKET_MODE": "rw"},
        {"GATEBOOK_AGENT_CONNECTIONS_MAX": "0"},
    ],
)
def test_dangerous_or_wrong_settings_are_refused(environment: dict[str, str]) -> None:
    """Beyond loopback only on somebody's word."""
    with pytest.raises(WrongSetting):
        AgentSettings.from_env(environment)
    remote = {"GATEBOOK_AGENT_LISTEN": "0.0.0.0:4320", "GATEBOOK_AGENT_ALLOW_REMOTE": "true"}
    assert AgentSettings.from_env(remote).address == ("0.0.0.0", 4320)
    with pytest.raises(Fatal, match="nowhere"):
        AgentSettings.from_env({}, listen="")


async def test_the_end_waits_for_requests_under_way(make_recorder: Any, published: Any) -> None:
    """Told to stop, the agent takes no new connection, and answers what has begun."""
    recorder = make_recorder()
    async with opened(recorder) as door:
        reader, writer = await door.connect()
        body = json.dumps(access("last")).encode()
        head = f"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue"
        writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")  # it waits for the body
        door.agent.stop()
        writer.write(body)
        assert (await read_answer(reader)).status == 200
        writer.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await door.connect()
    assert recorder.flush(10).complete
    assert [event["user"]["id"] for event in published.events()] == ["last"]


async def test_an_intent_is_told_the_id_that_its_end_is_to_have(
    make_recorder: Any, published: Any
) -> None:
    """Both name each other by their ids, whoever made them up."""
    recorder = make_recorder()
    begins = {"gatebook": {"phase": "intent"}, "user": {"id": "ada"}, "event": {"action": "chat"}}
    own = "0190b1e0-0000-7000-8000-000000000001"
    now = time.time_ns()
    async with opened(recorder) as door:
        first = await door.post(begins)
        announced = first.body["results"][0]["id"]
        end = {"@timestamp": now, "event": {"id": announced}}
        await door.post(access("ada", **end))
        second = await door.post({**begins, "@timestamp": now, "event": {"id": own}})
    assert second.body["results"][0]["id"] == own
    assert recorder.flush(10).complete
    found = published.events()
    assert [e["gatebook"]["phase"] for e in found] == ["intent", "terminal", "intent"]
    ids = [e["event"]["id"] for e in found]
    assert ids == [intent_id(announced), announced, intent_id(own)]
    assert [e["event"]["outcome"] for e in found] == ["unknown", "success", "unknown"]


@pytest.mark.parametrize(
    "end",
    [
        {"http": {"response": {"status_code": 200}}},
        {"event": {"outcome": "success"}},
        {"event": {"duration": 5}},
        {"gen_ai": {"usage": {"output_tokens": 3}}},
        {"error": {"type": "x"}},
    ],
)
async def test_an_intent_that_knows_its_end_is_refused(
    make_recorder: Any, end: dict[str, Any]
) -> None:
    """It is written before the call, or it is no intent."""
    async with opened(make_recorder()) as door:
        got = await door.post({"gatebook": {"phase": "intent"}, **end})
    assert got.status == 400
    assert "intent" in got.body["results"][0]["error"]
