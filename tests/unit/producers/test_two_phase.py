"""The record before the call, and the one after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.intents import intent_id, terminal_id

CHAT = "/v1/chat/completions"
QUESTION = {"model": "slm", "messages": [{"role": "user", "content": "my secret question"}]}
MakeRecorder = Callable[..., Recorder]


async def answer(request: Request) -> Response:
    await request.body()
    return JSONResponse({"object": "chat.completion", "model": "slm", "choices": []})


def middleware(recorder: Recorder, endpoint: Any = answer) -> GatebookMiddleware:
    return GatebookMiddleware(
        Starlette(routes=[Route(CHAT, endpoint, methods=["POST"])]), recorder=recorder
    )


async def post(app: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://svc") as client:
        return await client.post(
            CHAT, content=json.dumps(QUESTION), headers={"x-api-key": "k-1", "x-request-id": "r-7"}
        )


def test_an_intent_and_its_event_name_each_other() -> None:
    """By their ids alone, so no redaction can cut the link."""
    assert terminal_id(intent_id("0198")) == "0198"
    assert terminal_id("0198") == ""


@pytest.mark.parametrize(
    ("mode", "intents", "written"),
    [
        ("buffered", "auto", False),
        ("buffered", "on", True),
        ("best_effort", "on", True),
        ("strict", "auto", True),
        ("strict", "off", False),
    ],
)
def test_intents_are_written_where_they_are_asked_for(
    mode: Any, intents: Any, written: bool
) -> None:
    """Mode strict asks for them by itself."""
    assert ProducerSettings(delivery_mode=mode, intents=intents).writes_intents is written


@pytest.mark.parametrize("mode", ["best_effort", "buffered", "strict"])
async def test_the_intent_comes_before_the_call_and_one_event_after(
    make_recorder: MakeRecorder, published: Any, mode: str
) -> None:
    """The intent says who wants what, and holds neither the question nor a credential."""
    seen: list[int] = []
    recorder = make_recorder(delivery_mode=mode, intents="on")

    async def counting(request: Request) -> Response:
        seen.append(recorder.counters().emitted)
        return await answer(request)

    assert (await post(middleware(recorder, counting))).status_code == 200
    assert recorder.close(10).complete

    intent, event = published.events()
    assert seen == [1]
    assert [e["gatebook"]["phase"] for e in (intent, event)] == ["intent", "terminal"]
    assert intent["event"]["id"] == intent_id(event["event"]["id"])
    assert (intent["event"]["outcome"], intent["event"]["action"]) == ("unknown", "chat")
    assert (intent["event"]["end"], intent["event"]["duration"]) == (0, None)
    assert intent["timestamp"] == event["timestamp"]
    assert intent["source"] == event["source"]
    assert intent["url"] == event["url"]
    assert intent["http"]["request"]["id"] == "r-7"
    assert intent["gatebook"]["identity"] == event["gatebook"]["identity"]
    assert intent["content"] is None
    assert "k-1" not in str(intent)


async def test_without_intents_there_is_one_event(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """The default of mode buffered."""
    recorder = make_recorder()
    await post(middleware(recorder))
    assert recorder.close(10).complete
    (event,) = published.events()
    assert event["gatebook"]["phase"] == "terminal"


async def test_a_failing_application_has_its_one_event_too(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """An intent is left alone only where the process died."""

    async def fail(request: Request) -> Response:
        raise RuntimeError("no")

    recorder = make_recorder(intents="on")
    await post(middleware(recorder, fail))
    assert recorder.close(10).complete
    intent, event = published.events()
    assert terminal_id(intent["event"]["id"]) == event["event"]["id"]
    assert event["event"]["outcome"] == "failure"


async def test_at_level_none_the_intent_says_only_that_it_began(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """No caller and no address."""
    recorder = make_recorder(intents="on", capture_level="none")
    await post(middleware(recorder))
    assert recorder.close(10).complete
    intent = published.events()[0]
    assert (intent["gatebook"]["phase"], intent["source"]["ip"]) == ("intent", "")


def break_spool(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every fsync of the spool fails."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    recorder.start()
    monkeypatch.setattr("gatebook.producers.spool.os.fdatasync", fail)


async def test_strict_does_not_call_the_application_without_a_durable_intent(
    make_recorder: MakeRecorder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets a 503 before a model has done anything."""
    called: list[bool] = []

    async def counting(request: Request) -> Response:
        called.append(True)
        return await answer(request)

    recorder = make_recorder(delivery_mode="strict")
    break_spool(recorder, monkeypatch)
    assert (await post(middleware(recorder, counting))).status_code == 503
    assert called == []
    monkeypatch.undo()
    assert recorder.close(10).complete
    (event,) = published.events()
    assert event["http"]["response"]["status_code"] == 503
    assert recorder.counters().dropped == {"spool_unavailable": 1}


async def test_strict_tells_of_a_withheld_answer_under_the_id_its_intent_names(
    make_recorder: MakeRecorder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the intent would look as if its request had never ended."""
    recorder = make_recorder(delivery_mode="strict")

    async def breaking(request: Request) -> Response:
        break_spool(recorder, monkeypatch)
        return await answer(request)

    assert (await post(middleware(recorder, breaking))).status_code == 503
    monkeypatch.undo()
    assert recorder.close(10).complete
    intent, event = published.events()
    assert terminal_id(intent["event"]["id"]) == event["event"]["id"]
    assert event["http"]["response"]["status_code"] == 503


async def test_a_recorder_that_fails_costs_no_answer(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before the call either."""
    recorder = make_recorder(intents="on")

    def fail(event: Any) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr(recorder, "emit", fail)
    assert (await post(middleware(recorder))).status_code == 200
