"""The contract of every adapter: one terminal event per access with one meaning, the caller gets
what it would get without the adapter, and a recorder that fails costs nobody an answer.

To add an adapter, add `tests/contracts/adapters/<name>.py`; see adapters/_contract.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event, open_frame

from .adapters._contract import (
    ANSWERED,
    API_KEY,
    REQUESTED_MODEL,
    RETURNED_MODEL,
    SECRET,
    AdapterUnderTest,
    Reply,
    Situation,
)
from .adapters.asgi import AsgiUnderTest

FOLDER = Path(__file__).parent / "adapters"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))
FLUSH_SECONDS = 10

REASONS = {
    Situation.SUCCESS: {""},
    Situation.STREAM: {""},
    Situation.ERROR: {"invalid_request"},
    Situation.TIMEOUT: {"timeout"},
    Situation.CLIENT_GONE: {"client_aborted"},
    # An application that fails is the service; a cut connection is the one behind it.
    Situation.EXCEPTION: {"server_error", "upstream_error"},
    Situation.UNAUTHENTICATED: {"unauthenticated"},
    Situation.SECRET_INPUT: {""},
}
STATUS = {Situation.SUCCESS: 200, Situation.ERROR: 400, Situation.UNAUTHENTICATED: 401}
TOKENS = {Situation.SUCCESS: (11, 3), Situation.STREAM: (5, 2), Situation.SECRET_INPUT: (11, 3)}

Run = Callable[[AdapterUnderTest, Situation], tuple[object, list[dict[str, Any]]]]


def harness(name: str) -> AdapterUnderTest:
    """The harness of a module in the folder."""
    module = importlib.import_module(f"{__package__}.adapters.{name}")
    made: AdapterUnderTest = module.harness()
    return made


CASES = [(n, s) for n in NAMES for s in Situation if s not in harness(n).absent]
cases = pytest.mark.parametrize(("name", "situation"), CASES)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a situation with a recorder of its own; gives what was received and the events."""
    recorders: list[Recorder] = []

    def once(adapter: AdapterUnderTest, situation: Situation) -> tuple[object, Any]:
        publisher = MemoryPublisher()
        recorder = Recorder(settings(tmp_path), lambda _: publisher)
        recorders.append(recorder)
        received = adapter.through(situation, recorder)
        assert recorder.close(FLUSH_SECONDS).complete
        frames = [open_frame(message) for _, message in publisher.messages]
        return received, [decode_event(data) for frame in frames for data in frame.events]

    yield once
    for recorder in recorders:
        recorder.close(0.1)


def settings(home: Path) -> ProducerSettings:
    return ProducerSettings(
        home=str(home), linger_seconds=0.0, capture_level="metadata", provider_name="llama_cpp"
    )


def only_terminal(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The one terminal event; there may be intents before it."""
    terminal = [e for e in events if e["gatebook"]["phase"] == "terminal"]
    assert len(terminal) == 1, f"{len(terminal)} terminal events"
    return terminal[0]


def check_meaning(adapter: AdapterUnderTest, situation: Situation, event: dict[str, Any]) -> None:
    """The event says what happened, in the words every adapter uses."""
    wanted = "success" if REASONS[situation] == {""} else "failure"
    assert event["event"]["outcome"] == wanted
    assert event["event"]["reason"] in REASONS[situation]
    assert event["event"]["action"] == "chat"
    assert event["event"]["duration"] == event["event"]["end"] - event["timestamp"] > 0
    assert event["gen_ai"]["request"]["model"] == REQUESTED_MODEL
    assert event["gen_ai"]["request"]["temperature"] == 0.5
    assert event["gen_ai"]["request"]["message_count"] == 1
    if wanted == "failure":
        assert event["error"]["type"]
        assert event["error"]["message"], "a fixed text of ours"
    if situation in STATUS and "status" not in adapter.unknown:
        assert event["http"]["response"]["status_code"] == STATUS[situation]
    check_answer(situation, event)
    check_stream(adapter, situation, event)
    check_caller(adapter, situation, event)


def check_answer(situation: Situation, event: dict[str, Any]) -> None:
    """Model, tokens and finish reason of an answer."""
    if situation not in TOKENS:
        return
    usage = event["gen_ai"]["usage"]
    assert event["gen_ai"]["response"]["model"] == RETURNED_MODEL
    assert event["gen_ai"]["response"]["id"] == "chatcmpl-1"
    assert event["gen_ai"]["response"]["finish_reasons"] == ["stop"]
    assert (usage["input_tokens"], usage["output_tokens"]) == TOKENS[situation]


def check_stream(adapter: AdapterUnderTest, situation: Situation, event: dict[str, Any]) -> None:
    """What was passed on of a stream, and how it ended."""
    if situation not in (Situation.STREAM, Situation.CLIENT_GONE):
        return
    aborted, stream = situation is Situation.CLIENT_GONE, event["gatebook"]["stream"]
    assert event["gen_ai"]["request"]["stream"] is True
    assert stream["completed"] is not aborted
    assert stream["aborted_by"] == ("client" if aborted else "")
    if "chunks" not in adapter.unknown:
        wanted = adapter.aborted_chunks if aborted else adapter.stream_chunks
        assert stream["chunks"] == wanted
        assert event["gen_ai"]["response"]["time_to_first_chunk"] > 0
    if aborted and "partial" not in adapter.unknown:
        usage, attributes = event["gen_ai"]["usage"], event["attributes"]
        assert event["gen_ai"]["response"]["model"] == RETURNED_MODEL
        assert usage["output_tokens"] == 2 or attributes["output_deltas"] == "2"


def check_caller(adapter: AdapterUnderTest, situation: Situation, event: dict[str, Any]) -> None:
    """Who called: by a digest of the key, and as a failure where the key was refused."""
    if "caller" in adapter.unknown:
        return
    identity = event["gatebook"]["identity"]
    refused = situation is Situation.UNAUTHENTICATED
    assert identity["method"] == "api_key"
    assert identity["assurance"] == ("failed" if refused else "asserted")
    assert identity["key_id"].startswith("key_")
    assert event["event"]["category"] == ("authentication" if refused else "api")


@cases
def test_every_access_has_one_terminal_event_of_the_same_meaning(
    name: str, situation: Situation, run: Run
) -> None:
    """Outcome, reason, model, tokens and chunks do not depend on the adapter."""
    adapter = harness(name)
    _, events = run(adapter, situation)
    check_meaning(adapter, situation, only_terminal(events))


@pytest.mark.parametrize(("name", "situation"), [c for c in CASES if c[1] in ANSWERED])
def test_the_caller_receives_what_it_would_without_the_adapter(
    name: str, situation: Situation, run: Run
) -> None:
    """Bytes, pieces and errors pass as they are."""
    adapter = harness(name)
    received, _ = run(adapter, situation)
    assert received == adapter.bare(situation)


@cases
def test_nothing_said_and_no_key_stands_in_the_event(
    name: str, situation: Situation, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """At level metadata neither event nor log holds question, answer, error text or API key."""
    _, events = run(harness(name), situation)
    check_no_content(repr(events) + caplog.text)


def check_no_content(text: str) -> None:
    assert text.strip("[]"), "nothing was recorded"
    for planted in (SECRET, API_KEY, "planted question", "Hello", "no such key"):
        assert planted not in text


@pytest.mark.parametrize(("name", "situation"), [c for c in CASES if c[1] in ANSWERED])
def test_a_broken_recorder_costs_nobody_an_answer(
    name: str, situation: Situation, tmp_path: Path
) -> None:
    """A recorder that raises leaves the answer as it is."""
    adapter, recorder = harness(name), BrokenRecorder(settings(tmp_path))
    assert adapter.through(situation, recorder) == adapter.bare(situation)
    assert recorder.asked, "the adapter never came to the recorder"


class BrokenRecorder(Recorder):
    """Fails at every event."""

    asked = False

    def emit(self, event: Any) -> str:
        self.asked = True
        raise RuntimeError("planted failure of the recorder")

    def emit_draft(self, draft: Any) -> None:
        self.emit(draft)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_adapter_leaves_out_it_gives_a_reason_for(name: str) -> None:
    """A situation is absent, and a fact unknown, only with a sentence that says why."""
    adapter = harness(name)
    for reason in (*adapter.absent.values(), *adapter.unknown.values()):
        assert len(reason.split()) > 3
    assert len(adapter.absent) < len(Situation) / 2


class Silent(AsgiUnderTest):
    """Records nothing."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        return self.bare(situation)


class Twice(AsgiUnderTest):
    """Records everything twice."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        super().through(situation, recorder)
        return super().through(situation, recorder)


class Mixed(AsgiUnderTest):
    """Records an access that went another way."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        good = REASONS[situation] == {""}
        return super().through(Situation.ERROR if good else Situation.SUCCESS, recorder)


@pytest.mark.parametrize("situation", list(Situation))
@pytest.mark.parametrize("planted", [Silent, Twice, Mixed])
def test_the_contract_goes_red(
    planted: type[AdapterUnderTest], situation: Situation, run: Run
) -> None:
    """An adapter that records nothing, twice or something else does not pass."""
    adapter = planted()
    _, events = run(adapter, situation)
    with pytest.raises(AssertionError):
        check_meaning(adapter, situation, only_terminal(events))


def test_the_search_for_content_goes_red() -> None:
    """A planted secret is found, and so is an access of which nothing was recorded."""
    for text in (f"...{SECRET}...", "[]"):
        with pytest.raises(AssertionError):
            check_no_content(text)
