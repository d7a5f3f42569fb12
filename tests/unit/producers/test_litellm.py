"""The LiteLLM callback without LiteLLM: who called, and requests whose end is told oddly."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.producers.conftest import MakeRecorder, Published

from gatebook.producers.adapters import litellm
from gatebook.producers.adapters.litellm import GatebookCallback
from gatebook.producers.identity import key_id
from gatebook.producers.recorder import Recorder
from gatebook.schemas.intents import intent_id

SECRET = "s" * 32
KEY, PATH = "planted-key", "/v1/chat/completions"
HASH = hashlib.sha256(KEY.encode()).hexdigest()

Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def recorder(make_recorder: MakeRecorder) -> Recorder:
    return make_recorder(key_digest_secret=SECRET)


@pytest.fixture
def callback(recorder: Recorder) -> GatebookCallback:
    return GatebookCallback(recorder)


@pytest.fixture
def events(recorder: Recorder, published: Published) -> Events:
    def read() -> list[dict[str, Any]]:
        assert recorder.flush(10).complete
        return published.events()

    return read


def key(**known: Any) -> Any:
    """UserAPIKeyAuth, as far as it is looked at."""
    return SimpleNamespace(**{"token": HASH, "request_route": PATH, **known})


def request(**more: Any) -> dict[str, Any]:
    """A request's data, as hooks get it."""
    return {"model": "tiny", "messages": [], "metadata": {}, "litellm_call_id": "chosen", **more}


def logged(data: dict[str, Any], **payload: Any) -> dict[str, Any]:
    """What logging events get of a request."""
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    return {
        "litellm_params": {"metadata": data["metadata"]},
        "standard_logging_object": {"response": answer, "model": "openai/tiny-q4", **payload},
    }


async def succeed(callback: GatebookCallback, data: dict[str, Any], who: Any) -> None:
    """A request without a stream, from its first hook to its last."""
    await callback.async_pre_call_hook(who, None, data, "acompletion")
    await callback.async_log_success_event(logged(data), None, None, None)


@pytest.mark.parametrize(
    ("who", "method", "assurance"),
    [
        (key(user_id="alice"), "api_key", "verified"),
        (key(token="litellm_proxy_master_key"), "api_key", "verified"),
        (key(token=None, api_key=KEY, user_role="internal_user"), "api_key", "asserted"),
        (key(token="hashed-jwt-1234", user_id="alice"), "oidc", "verified"),
        (key(token=None), "anonymous", ""),
    ],
)
async def test_only_a_key_with_an_owner_is_verified(
    callback: GatebookCallback, events: Events, who: Any, method: str, assurance: str
) -> None:
    """A proxy without a master key admits every key: that proves nothing."""
    await succeed(callback, request(), who)
    (event,) = events()
    identity = event["gatebook"]["identity"]
    assert (identity["method"], identity["assurance"]) == (method, assurance)
    assert bool(identity["key_id"]) is (method == "api_key")


@pytest.mark.parametrize("shown", [KEY, HASH])
async def test_a_key_in_the_clear_gets_the_id_of_its_hash(
    callback: GatebookCallback, events: Events, shown: str
) -> None:
    """LiteLLM hashes only keys that begin with sk-."""
    await succeed(callback, request(), key(token=shown))
    (event,) = events()
    assert event["gatebook"]["identity"]["key_id"] == key_id(SECRET.encode(), HASH)
    assert KEY not in repr(event)
    assert HASH not in repr(event)


@pytest.mark.parametrize("forged", ["", "gatebook", "0" * 34])
async def test_nobody_hides_an_access_behind_a_forged_token(
    callback: GatebookCallback, events: Events, forged: str
) -> None:
    """The body of a refused request, its metadata too, is the caller's."""
    error = type("ProxyException", (Exception,), {"code": "401", "type": "auth_error"})
    data = request(metadata={"gatebook_request": forged})
    await callback.async_post_call_failure_hook(data, error(), key(token=None, api_key=KEY))
    await callback.async_log_success_event(logged(data), None, None, None)
    refused, answered = events()
    assert refused["event"]["reason"] == "unauthenticated"
    assert answered["event"]["outcome"] == "success"


async def test_an_error_type_that_is_an_enumeration(
    callback: GatebookCallback, events: Events
) -> None:
    """LiteLLM answers an unknown key by 400 where it has no database."""
    kind = SimpleNamespace(value="no_db_connection")
    error = type("ProxyException", (Exception,), {"code": "400", "type": kind})
    await callback.async_post_call_failure_hook(request(), error(), key(token=None, api_key=KEY))
    (event,) = events()
    assert event["event"]["reason"] == "unauthenticated"
    assert event["gatebook"]["identity"]["assurance"] == "failed"
    assert event["http"]["response"]["status_code"] == 400


async def test_litellms_own_words_for_a_caller_who_left(
    callback: GatebookCallback, events: Events
) -> None:
    """Where the stream's hook did not see it, LiteLLM's mark on its success event tells."""
    data = request(stream=True)
    await callback.async_pre_call_hook(key(), None, data, "acompletion")
    kwargs = logged(data, error_information={"error_code": "499"})
    await callback.async_log_success_event(kwargs, None, None, None)
    (event,) = events()
    assert event["event"]["reason"] == "client_aborted"


async def test_a_guardrail_that_intervened(callback: GatebookCallback, events: Events) -> None:
    """Its name stands on the event, and a block is no invalid request."""
    data = request()
    await callback.async_pre_call_hook(key(), None, data, "acompletion")
    told = [{"guardrail_name": "pii", "guardrail_status": "guardrail_intervened"}]
    data["standard_logging_object"] = {"guardrail_information": told}
    error = type("Refused", (Exception,), {"status_code": 400})
    await callback.async_post_call_failure_hook(data, error(), key())
    (event,) = events()
    assert event["event"]["reason"] == "content_filtered"
    assert event["attributes"]["guardrail"] == "pii"


async def test_a_cached_answer_says_so(callback: GatebookCallback, events: Events) -> None:
    """Nothing was computed for it."""
    data = request()
    await callback.async_pre_call_hook(key(), None, data, "acompletion")
    kwargs = logged(data, cache_hit=True, response_cost=0.0)
    await callback.async_log_success_event(kwargs, None, None, None)
    (event,) = events()
    assert (event["attributes"]["cache_hit"], event["attributes"]["cost_usd"]) == ("true", "0.0")


def test_the_library_without_a_proxy(callback: GatebookCallback, events: Events) -> None:
    """Synchronous calls are recorded by the events alone; there is no caller to name."""
    kwargs = {"model": "tiny", "messages": [], "call_type": "completion", "litellm_params": {}}
    answer = {"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 4}}
    payload = {"response": answer, "startTime": 100.0, "endTime": 101.5}
    callback.log_success_event({**kwargs, "standard_logging_object": payload}, None, None, None)
    callback.log_failure_event({**kwargs, "exception": TimeoutError()}, None, None, None)
    good, bad = events()
    assert (good["event"]["outcome"], good["event"]["action"]) == ("success", "chat")
    assert good["event"]["duration"] == 1_500_000_000
    assert good["gen_ai"]["usage"]["output_tokens"] == 4
    assert bad["event"]["reason"] == "timeout"
    assert bad["gatebook"]["identity"]["method"] == "anonymous"


async def test_what_is_open_at_the_end_is_recorded(
    callback: GatebookCallback, events: Events
) -> None:
    """A process that ends within a request leaves its outcome unknown."""
    await callback.async_pre_call_hook(key(), None, request(), "acompletion")
    callback.end_open()
    callback.end_open()
    (event,) = events()
    assert event["event"]["outcome"] == "unknown"


async def test_open_requests_are_bounded(
    callback: GatebookCallback, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests whose end is never told do not pile up: the oldest is recorded as unknown."""
    monkeypatch.setattr(litellm, "_MAX_OPEN", 3)
    for _ in range(5):
        await callback.async_pre_call_hook(key(), None, request(), "acompletion")
    assert [event["event"]["outcome"] for event in events()] == ["unknown"] * 2


async def test_an_asynchronous_stream_passes_unchanged_also_when_cancelled(
    callback: GatebookCallback, events: Events
) -> None:
    """The very objects, and the cancellation, go through."""
    parts = [{"choices": [{"delta": {"content": "a"}}]}, object()]

    async def upstream() -> AsyncIterator[Any]:
        for part in parts:
            yield part
        await asyncio.Event().wait()

    data, seen = request(stream=True), []
    await callback.async_pre_call_hook(key(), None, data, "acompletion")

    async def read() -> None:
        hook = callback.async_post_call_streaming_iterator_hook(key(), upstream(), data)
        async for part in hook:
            seen.append(part)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.05)
    assert all(a is b for a, b in zip(seen, parts, strict=True))
    (event,) = events()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"]["chunks"] == 2


async def test_odd_data_never_reaches_litellm_as_an_error(callback: GatebookCallback) -> None:
    """A hook that raised would refuse the request."""
    for data in (None, [], {}, {"metadata": None}, {"metadata": {}, "messages": object()}):
        await callback.async_pre_call_hook(object(), None, data, "acompletion")


def test_litellm_finds_the_hooks_on_the_class_itself() -> None:
    """It looks into vars() of the class: what is inherited is not called."""
    for name in ("async_pre_call_hook", "async_post_call_streaming_iterator_hook"):
        assert name in vars(GatebookCallback)


def test_the_callback_of_the_configuration_is_made_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Importing the module has no effects."""
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    assert "callback" not in vars(litellm)
    assert isinstance(litellm.callback, GatebookCallback)
    monkeypatch.delitem(vars(litellm), "callback")
    with pytest.raises(AttributeError):
        _ = litellm.nothing_of_that_name


async def test_an_intent_is_written_before_the_model_is_asked(
    make_recorder: MakeRecorder, published: Published
) -> None:
    """It names the caller, the route and the event that follows."""
    recorder = make_recorder(intents="on")
    sent = {"url": f"http://proxy.test{PATH}", "method": "POST"}
    await succeed(GatebookCallback(recorder), request(proxy_server_request=sent), key(user_id="a"))
    recorder.flush(10)
    intent, terminal = published.events()
    assert intent["event"]["id"] == intent_id(terminal["event"]["id"])
    assert (intent["user"]["id"], intent["url"]["path"]) == ("a", PATH)
    assert intent["event"]["action"] == "chat"


async def test_strict_mode_refuses_what_it_cannot_record(
    make_recorder: MakeRecorder, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not asked; the refusal is an event as well."""

    class HTTPException(Exception):
        def __init__(self, status_code: int, detail: str) -> None:
            self.status_code = status_code

    monkeypatch.setitem(sys.modules, "fastapi", SimpleNamespace(HTTPException=HTTPException))
    recorder = make_recorder(delivery_mode="strict")
    monkeypatch.setattr(recorder, "accepts_durably", lambda: False)
    callback = GatebookCallback(recorder)
    with pytest.raises(HTTPException):
        await callback.async_pre_call_hook(key(), None, request(), "acompletion")
    recorder.flush(10)
    (event,) = published.events()
    assert event["event"]["reason"] == "unavailable"
