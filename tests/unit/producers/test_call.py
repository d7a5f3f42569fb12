"""The decorator and the context manager for calls in this process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.unit.producers.conftest import MakeRecorder, Published
from tests.waiting import wait_until

from gatebook.producers.adapters import call as calls
from gatebook.producers.adapters.call import current_call, record_call, recorded_call
from gatebook.producers.call_draft import describe_call
from gatebook.producers.identity import Identity
from gatebook.producers.recorder import NotDurable, Recorder
from gatebook.schemas.intents import intent_id

MESSAGES = [{"role": "user", "content": "planted question"}]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Events = Callable[[], list[dict[str, Any]]]


class StatusError(Exception):
    """An exception as client libraries raise it."""

    def __init__(self, status_code: int, code: str | None = None) -> None:
        super().__init__("planted answer of the service")
        self.status_code = status_code
        self.code = code


@pytest.fixture
def recorder(make_recorder: MakeRecorder) -> Recorder:
    return make_recorder()


@pytest.fixture
def events(recorder: Recorder, published: Published) -> Events:
    """Every event so far."""

    def read() -> list[dict[str, Any]]:
        assert recorder.flush(10).complete
        return published.events()

    return read


def test_the_context_manager_says_what_it_is_told(recorder: Recorder, events: Events) -> None:
    """Model, sampling, answer, tokens, tools, provenance, user and trace stand on the event."""
    with (
        calls.trace(TRACE),
        record_call("chat", model="tiny", user="alice", provider="own", recorder=recorder) as call,
    ):
        call.request(messages=MESSAGES, temperature=0.5, user="end-user-17")
        call.output("Hello")
        call.tool_call("search", '{"q": 1}')
        call.tool_call("open", index=1)
        call.usage(input_tokens=12, output_tokens=40, cached_tokens=3, reasoning_tokens=7)
        call.finish("tool_calls")
        call.returned(model="tiny-q4", response_id="r-1")
        call.served_by(weights_hash="sha256:1", engine="llama.cpp", unknown="x")
        call.attribute("queue", "fast")
    (event,) = events()
    assert (event["event"]["outcome"], event["event"]["action"]) == ("success", "chat")
    assert event["user"]["id"] == "alice"
    assert event["gatebook"]["identity"]["assurance"] == "asserted"
    assert event["gatebook"]["identity"]["on_behalf_of"] == "end-user-17"
    gen_ai = event["gen_ai"]
    assert gen_ai["provider"]["name"] == "own"
    assert (gen_ai["request"]["model"], gen_ai["request"]["temperature"]) == ("tiny", 0.5)
    assert gen_ai["request"]["message_count"] == 1
    assert (gen_ai["response"]["id"], gen_ai["response"]["model"]) == ("r-1", "tiny-q4")
    assert gen_ai["response"]["finish_reasons"] == ["tool_calls"]
    assert gen_ai["tool"]["called"] == ["search", "open"]
    usage = gen_ai["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 40)
    assert usage["cache_read"]["input_tokens"] == 3
    assert usage["reasoning"]["output_tokens"] == 7
    assert event["gatebook"]["model"]["weights_hash"] == "sha256:1"
    assert event["attributes"] == {"queue": "fast"}
    assert event["trace"]["id"] == TRACE.split("-")[1]
    assert event["http"]["response"]["status_code"] is None


@pytest.mark.parametrize("operation", ["chat", "embeddings", "rerank", "execute_tool"])
def test_each_operation_has_opentelemetrys_name(
    recorder: Recorder, events: Events, operation: str
) -> None:
    """A tool that a service runs for a model is an access like a chat."""
    with record_call(operation, recorder=recorder):
        pass
    (event,) = events()
    assert event["event"]["action"] == event["gen_ai"]["operation"]["name"] == operation


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("planted"), "server_error"),
        (TimeoutError(), "timeout"),
        (StatusError(401), "unauthenticated"),
        (StatusError(429), "rate_limited"),
        (StatusError(400), "invalid_request"),
        (StatusError(400, "content_filter"), "content_filtered"),
        (ExceptionGroup("several", [StatusError(403)]), "forbidden"),
        (asyncio.CancelledError(), "client_aborted"),
    ],
)
def test_an_exception_gives_its_reason_and_passes_on(
    recorder: Recorder, events: Events, error: BaseException, reason: str
) -> None:
    """The caller gets the same object; its text stays out of the event."""

    def ask() -> None:
        with record_call(model="tiny", recorder=recorder) as call:
            call.request(messages=MESSAGES)
            raise error

    with pytest.raises(type(error)) as caught:
        ask()
    assert caught.value is error
    (event,) = events()
    assert (event["event"]["outcome"], event["event"]["reason"]) == ("failure", reason)
    assert "planted" not in repr(event)


def test_an_exit_is_no_verdict_on_the_call(recorder: Recorder, events: Events) -> None:
    """A process that ends within a call leaves its outcome unknown; an exit code is no status."""
    with pytest.raises(SystemExit), record_call(recorder=recorder):
        raise SystemExit(404)
    (event,) = events()
    assert event["event"]["outcome"] == "unknown"


def test_a_failure_without_an_exception(recorder: Recorder, events: Events) -> None:
    """Code that answers with a refusal says so."""
    with record_call(recorder=recorder) as call:
        call.output("I cannot help with that.")
        call.fail("content_filtered")
        with pytest.raises(ValueError, match="reason"):
            call.fail("no such reason")
    (event,) = events()
    assert event["event"]["reason"] == "content_filtered"


def test_what_was_asked_does_not_change_afterwards(
    make_recorder: MakeRecorder, published: Published
) -> None:
    """An agent that appends to the list it sent does not change the record."""
    recorder = make_recorder(capture_level="redacted")
    messages = list(MESSAGES)
    with record_call(recorder=recorder) as call:
        call.request(messages=messages)
        messages.append({"role": "user", "content": "later words"})
    recorder.flush(10)
    (event,) = published.events()
    assert b"planted question" in event["content"]
    assert b"later words" not in event["content"]


def test_a_value_that_is_no_json_costs_only_itself(recorder: Recorder, events: Events) -> None:
    """Objects, cycles and broken text do not stop the call or the event."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with record_call(model="tiny", recorder=recorder) as call:
        call.request(messages=cycle, temperature=object(), input="half \ud800 pair")
        call.answer(object())
        call.chunk({"choices": [{"delta": {"content": cycle}}]})
    (event,) = events()
    assert event["event"]["outcome"] == "success"
    assert event["gen_ai"]["request"]["model"] == "tiny"


def test_a_call_is_for_one_call(recorder: Recorder, events: Events) -> None:
    """Ending it twice gives one event; beginning it twice is an error."""
    call = record_call(recorder=recorder)
    with pytest.raises(RuntimeError, match="not begun"):
        call.output("too early")
    with call:
        call.end()
    with pytest.raises(RuntimeError, match="another"):
        call.begin()
    assert len(events()) == 1


def test_a_decorated_function(recorder: Recorder, events: Events) -> None:
    """Arguments by the API's names, defaults aside, are what is asked; text returned is said."""

    @recorded_call("chat", model="tiny", recorder=recorder)
    def answer(messages: Any, temperature: float = 1.0, **more: Any) -> str:
        found = current_call()
        assert found is not None
        found.usage(output_tokens=3)
        return "Hello"

    assert answer(MESSAGES, temperature=0.25, max_tokens=7, own=object()) == "Hello"
    assert current_call() is None
    (event,) = events()
    request = event["gen_ai"]["request"]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("tiny", 0.25, 7)
    assert event["gen_ai"]["usage"]["output_tokens"] == 3
    assert answer.__name__ == "answer"


def test_wrong_arguments_are_the_functions_own_error(recorder: Recorder, events: Events) -> None:
    """The decorator does not get in between."""

    @recorded_call(recorder=recorder)
    def answer(messages: Any) -> str:
        return ""

    with pytest.raises(TypeError, match="messages"):
        answer()  # type: ignore[call-arg]  # that is the point
    assert len(events()) == 1


def pieces(*texts: str) -> Iterator[str]:
    yield from texts


def test_a_generator_is_passed_through(recorder: Recorder, events: Events) -> None:
    """Values, what is sent in, exceptions thrown in, and the return value."""

    @recorded_call("chat", recorder=recorder)
    def stream() -> Any:
        assert current_call() is not None
        got = yield "Hel"
        try:
            yield f"lo {got}"
        except KeyError:
            yield "!"
        return "end"

    steps = stream()
    assert next(steps) == "Hel"
    assert current_call() is None
    assert steps.send("Alice") == "lo Alice"
    assert steps.throw(KeyError()) == "!"
    with pytest.raises(StopIteration) as stopped:
        next(steps)
    assert stopped.value.value == "end"
    (event,) = events()
    assert event["gatebook"]["stream"] == {"chunks": 3, "completed": True, "aborted_by": ""}
    assert event["gen_ai"]["response"]["time_to_first_chunk"] > 0


def test_a_generator_closed_early(recorder: Recorder, events: Events) -> None:
    """The caller left; the function's own clean-up runs."""
    cleaned = []

    @recorded_call(recorder=recorder)
    def stream() -> Iterator[str]:
        try:
            yield from pieces("one", "two", "three")
        finally:
            cleaned.append(True)

    for piece in stream():
        if piece == "two":
            break
    (event,) = events()
    assert cleaned
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"]["chunks"] == 2
    assert event["attributes"]["output_deltas"] == "2"


def test_a_generator_nobody_starts_calls_nothing(recorder: Recorder, events: Events) -> None:
    """No access, so no event."""

    @recorded_call(recorder=recorder)
    def stream() -> Iterator[str]:
        yield "never"

    del stream
    assert events() == []


def test_a_stream_that_a_function_returned_and_nobody_read(
    recorder: Recorder, events: Events
) -> None:
    """The model was called, so it is recorded when the stream is thrown away."""

    @recorded_call(recorder=recorder)
    def ask() -> Iterator[str]:
        return pieces("one", "two")

    ask()
    gc.collect()
    wait_until("the event", lambda: recorder.counters().emitted)
    (event,) = events()
    assert event["event"]["reason"] == "client_aborted"


async def test_coroutines_and_asynchronous_generators(recorder: Recorder, events: Events) -> None:
    """Both are recorded when they end; an asynchronous generator takes what is sent in."""

    @recorded_call("chat", recorder=recorder)
    async def answer(prompt: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}

    @recorded_call("chat", recorder=recorder)
    async def stream() -> AsyncIterator[str]:
        yield "Hel"
        await asyncio.sleep(0)
        yield "lo"

    assert (await answer("x"))["choices"]
    assert [piece async for piece in stream()] == ["Hel", "lo"]
    whole, streamed = events()
    assert whole["gen_ai"]["response"]["finish_reasons"] == ["stop"]
    assert streamed["gatebook"]["stream"] == {"chunks": 2, "completed": True, "aborted_by": ""}


async def test_who_leaves_an_asynchronous_call(recorder: Recorder, events: Events) -> None:
    """A cancelled task and a closed generator are callers who left; a time-out inside is not."""

    @recorded_call(recorder=recorder)
    async def slow() -> None:
        await asyncio.Event().wait()

    @recorded_call(recorder=recorder)
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @recorded_call(recorder=recorder)
    async def stream() -> Any:
        yield "one"
        yield "two"

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await impatient()
    steps = stream()
    await anext(steps)
    await steps.aclose()
    reasons = [event["event"]["reason"] for event in events()]
    assert reasons == ["client_aborted", "timeout", "client_aborted"]


async def test_tasks_do_not_mix_their_callers(recorder: Recorder, events: Events) -> None:
    """Identity is taken from the context of each task."""

    @recorded_call(recorder=recorder)
    async def answer(prompt: str) -> str:
        await asyncio.sleep(0)
        return prompt

    async def by(user: str) -> None:
        with calls.identity(user, method="oidc", assurance="verified"):
            await answer(user)

    await asyncio.gather(*(by(f"user-{n}") for n in range(20)))
    found = {event["user"]["id"] for event in events()}
    assert found == {f"user-{n}" for n in range(20)}


def test_a_given_identity_goes_before_the_context(recorder: Recorder, events: Events) -> None:
    """Innermost wins: the call's own argument, then what is learned on the way."""
    with calls.identity("outer"), record_call(user=Identity(user_id="given"), recorder=recorder):
        pass
    with calls.identity("outer"), record_call(recorder=recorder) as call:
        call.identity(Identity(user_id="learned"))
    assert [event["user"]["id"] for event in events()] == ["given", "learned"]


def test_no_content_at_level_metadata(recorder: Recorder, events: Events) -> None:
    """Neither question nor answer, only keyed digests of them."""
    with record_call(recorder=recorder) as call:
        call.request(messages=MESSAGES)
        call.output("planted answer")
    (event,) = events()
    assert "planted" not in repr(event)
    assert event["gatebook"]["content_digest"]["output"]


def test_strict_mode_refuses_what_it_cannot_record(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not called where the event could not be kept; else it is durable on return."""
    recorder = make_recorder(delivery_mode="strict")
    asked = []

    @recorded_call(recorder=recorder)
    def answer() -> str:
        asked.append(True)
        return "Hello"

    answer()
    assert recorder.counters().spooled == 2  # before the call, and after it
    monkeypatch.setattr(recorder, "accepts_durably", lambda: False)
    with pytest.raises(NotDurable):
        answer()
    assert len(asked) == 1


def test_an_error_whose_text_fails_is_still_an_error(recorder: Recorder, events: Events) -> None:
    """Even that costs neither the event nor the caller's exception."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(Odd), record_call(recorder=recorder):
        raise Odd
    assert describe_call(Odd()).type_name == "Odd"
    (event,) = events()
    assert event["error"]["type"] == "Odd"


@pytest.mark.parametrize("intents", ["on", "off"])
async def test_an_intent_goes_before_the_call(
    make_recorder: MakeRecorder, published: Published, intents: str
) -> None:
    """Where intents are written, each kind of call has one, which names the event that follows."""
    recorder = make_recorder(intents=intents)

    @recorded_call("chat", recorder=recorder)
    async def answer(prompt: str) -> str:
        return prompt

    @recorded_call("chat", recorder=recorder)
    async def stream() -> AsyncIterator[str]:
        yield "Hello"

    with calls.identity("alice"), record_call("chat", recorder=recorder):
        pass
    await answer("x")
    assert [piece async for piece in stream()]
    recorder.flush(10)
    phases: dict[str, list[Any]] = {"intent": [], "terminal": []}
    for event in published.events():
        phases[event["gatebook"]["phase"]].append(event)
    announced = [event["event"]["id"] for event in phases["intent"]]
    ended = [intent_id(event["event"]["id"]) for event in phases["terminal"]]
    assert len(ended) == 3
    assert announced == (ended if intents == "on" else [])
    assert [e["user"]["id"] for e in phases["intent"][:1]] == ["alice"] * (intents == "on")
