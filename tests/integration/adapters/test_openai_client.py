"""The real openai client, recorded, against the real llama.cpp server."""

from __future__ import annotations

import asyncio
import gc
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.contracts.adapters._contract import ABORTED_CHUNKS, SCRIPTS, Situation
from tests.contracts.adapters.openai_client import scripted
from tests.integration.adapters.litellm_proxy import SOURCES, proxy_environment
from tests.waiting import wait_until

from gatebook.cli.demo.model_file import MODEL_NAME, write_model
from gatebook.cli.demo.model_server import ModelServer
from gatebook.producers.adapters.call import identity
from gatebook.producers.adapters.openai_client import recorded
from gatebook.producers.identity import key_id

from .recording import Recording

Event = dict[str, Any]

KEY, SECRET = "sk-of-the-openai-client-test", "s" * 32
ENDLESS = {"ignore_eos": True, "timings_per_token": True}  # of llama.cpp: to the last token
ASKED: Any = {
    "model": MODEL_NAME,
    "messages": [{"role": "user", "content": "planted question"}],
    "max_tokens": 5,
    "extra_body": ENDLESS,
}
LONG: Any = {**ASKED, "max_tokens": 300}
TOO_SHORT_SECONDS, IMPATIENT_SECONDS = 0.001, 0.05


@pytest.fixture(scope="module")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """llama.cpp's own server."""
    path = write_model(tmp_path_factory.mktemp("model") / "model.gguf")
    with ModelServer(path, [KEY]) as server:
        yield server


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path, key_digest_secret=SECRET, service_name="caller")


@pytest.fixture
def client(model_server: ModelServer, recording: Recording) -> Iterator[openai.OpenAI]:
    """A recorded client without retries."""
    made = openai.OpenAI(base_url=f"{model_server.url}/v1", api_key=KEY, max_retries=0)
    with recorded(made, recording.recorder) as client:
        yield client


def async_events(
    server: ModelServer, recording: Recording, ask: Callable[[openai.AsyncOpenAI], Any]
) -> list[Event]:
    """What `ask` leads to with a recorded asynchronous client."""

    async def run() -> None:
        made = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        async with recorded(made, recording.recorder) as client:
            await ask(client)

    asyncio.run(run())
    return recording.events()


def check_tokens(event: Event, input_tokens: int, output_tokens: int) -> None:
    usage = event["gen_ai"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (input_tokens, output_tokens)


def test_a_whole_answer(client: openai.OpenAI, recording: Recording) -> None:
    """Service, upstream, key and what the model said of itself."""
    answer = client.chat.completions.create(**ASKED, user="end-user-17")
    event = recording.only_event()
    assert event["event"]["outcome"] == "success"
    assert event["service"]["name"] == "caller"
    assert event["url"] == {"path": "/v1/chat/completions", "domain": "127.0.0.1"}
    assert event["user_agent"]["original"].startswith("OpenAI/Python")
    assert event["gatebook"]["identity"]["key_id"] == key_id(SECRET.encode(), KEY)
    assert event["gatebook"]["identity"]["on_behalf_of"] == "end-user-17"
    assert event["gen_ai"]["response"]["id"] == answer.id
    assert answer.usage is not None
    check_tokens(event, answer.usage.prompt_tokens, answer.usage.completion_tokens)


def test_a_streamed_answer(client: openai.OpenAI, recording: Recording) -> None:
    """The client closes a stream at its end mark; that is complete."""
    with client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}
    ) as stream:
        pieces = list(stream)
    event = recording.only_event()
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["stream"]["completed"] is True
    assert event["gatebook"]["stream"]["chunks"] > 1
    usage = pieces[-1].usage
    assert usage is not None
    check_tokens(event, usage.prompt_tokens, usage.completion_tokens)


def test_an_asynchronous_stream(model_server: ModelServer, recording: Recording) -> None:
    """The asynchronous client goes the same way."""

    async def ask(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        assert [chunk async for chunk in stream]

    (event,) = async_events(model_server, recording, ask)
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["stream"]["completed"] is True
    assert event["gen_ai"]["usage"]["output_tokens"] == ASKED["max_tokens"]


def test_embeddings_and_models(client: openai.OpenAI, recording: Recording) -> None:
    """Endpoints other than chat are recorded without further ado."""
    client.embeddings.create(model=MODEL_NAME, input="planted question")
    client.models.list()
    actions = [event["event"]["action"] for event in recording.events()]
    assert actions == ["embeddings", "list_models"]


def test_a_refused_key(client: openai.OpenAI, recording: Recording) -> None:
    """A 401 is recorded with the digest of the key, also of a client made from the recorded one."""
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-of-nobody").chat.completions.create(**ASKED)
    event = recording.only_event()
    assert event["event"]["reason"] == "unauthenticated"
    assert event["gatebook"]["identity"]["assurance"] == "failed"
    assert event["gatebook"]["identity"]["key_id"] == key_id(SECRET.encode(), "sk-of-nobody")
    assert "sk-of-nobody" not in repr(event)


def test_a_time_out_and_its_retries(client: openai.OpenAI, recording: Recording) -> None:
    """Each attempt is an access; the request id tells that they are one call."""
    patient = client.with_options(timeout=TOO_SHORT_SECONDS, max_retries=1)
    with pytest.raises(openai.APITimeoutError):
        patient.chat.completions.create(**LONG)
    with pytest.raises(openai.APITimeoutError):
        patient.with_options(max_retries=0).chat.completions.create(**LONG)
    events = recording.events()
    assert [event["event"]["reason"] for event in events] == ["timeout"] * 3
    first, second, other = (event["http"]["request"]["id"] for event in events)
    assert first == second != other
    assert [event["attributes"].get("retry") for event in events] == [None, "1", None]


def test_leaving_a_stream(client: openai.OpenAI, recording: Recording) -> None:
    """The event says that the caller left, and keeps the tokens that had come."""
    with client.chat.completions.create(**LONG, stream=True) as stream:
        next(stream)
        next(stream)
    event = recording.only_event()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"]["completed"] is False
    assert event["gatebook"]["stream"]["aborted_by"] == "client"
    assert 0 < event["gen_ai"]["usage"]["output_tokens"] < LONG["max_tokens"]


def test_a_cancelled_task(recording: Recording) -> None:
    """Whoever cancels the task that reads leaves. The server is one that falls silent: llama.cpp
    would be done before the task is cancelled."""

    async def ask(url: str) -> None:
        made = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        async with recorded(made, recording.recorder) as client:
            stream = await client.chat.completions.create(**ASKED, stream=True)
            pieces = aiter(stream)
            for _ in ABORTED_CHUNKS:
                await anext(pieces)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(pieces), IMPATIENT_SECONDS)

    with scripted(SCRIPTS[Situation.CLIENT_GONE]) as url:
        asyncio.run(ask(url))
    event = recording.only_event()
    assert event["event"]["reason"] == "client_aborted"
    assert event["gatebook"]["stream"]["chunks"] == len(ABORTED_CHUNKS)


def test_a_stream_that_is_dropped(client: openai.OpenAI, recording: Recording) -> None:
    """A stream that nobody closes is recorded when it is thrown away."""
    stream = client.chat.completions.create(**LONG, stream=True)
    next(stream)
    del stream
    gc.collect()  # it is part of a cycle
    wait_until("the event", lambda: recording.recorder.counters().emitted)
    event = recording.only_event()
    assert event["event"]["reason"] == "client_aborted"


def test_the_user_of_the_context(client: openai.OpenAI, recording: Recording) -> None:
    """Who the service calls for is named, with the key it used."""
    with identity("alice", method="oidc", assurance="verified", issuer="https://id.example"):
        client.chat.completions.create(**ASKED)
    event = recording.only_event()
    assert event["user"]["id"] == "alice"
    assert event["gatebook"]["identity"]["method"] == "oidc"
    assert event["gatebook"]["identity"]["key_id"] == key_id(SECRET.encode(), KEY)


def test_content_only_where_the_level_allows_it(model_server: ModelServer, tmp_path: Path) -> None:
    """At `redacted` the event carries question and answer for intake, at `metadata` neither."""
    for level in ("metadata", "redacted"):
        recording = Recording(tmp_path / level, capture_level=level)
        client = openai.OpenAI(base_url=f"{model_server.url}/v1", api_key=KEY)
        with recorded(client, recording.recorder):
            client.chat.completions.create(**ASKED)
        event = recording.only_event()
        assert (b"planted question" in (event["content"] or b"")) is (level == "redacted")
        assert event["gatebook"]["content_digest"]["input"]


CHILD = """
import json, sys
import httpx, openai
from gatebook.producers.adapters.openai_client import recorded
from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event, open_frame

url, key, model, home = sys.argv[1:]
publisher = MemoryPublisher()
recorder = Recorder(ProducerSettings(home=home), lambda _: publisher)
client = recorded(openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0), recorder)
assert isinstance(client._client, httpx.Client), type(client._client).__mro__
asked = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
asked["extra_body"] = {"ignore_eos": True, "timings_per_token": True}
client.chat.completions.create(**asked)
list(client.chat.completions.create(**asked, stream=True))
assert recorder.close(10).complete
frames = [open_frame(message) for _, message in publisher.messages]
events = [decode_event(data) for frame in frames for data in frame.events]
for event in events:
    print(json.dumps([event["event"]["outcome"], event["gen_ai"]["usage"]["output_tokens"]]))
"""


def test_an_older_client_on_httpx(model_server: ModelServer, tmp_path: Path) -> None:
    """openai 2, which LiteLLM brings, uses httpx instead of httpx2."""
    python = proxy_environment() / "bin" / "python"
    child = subprocess.run(
        [str(python), "-c", CHILD, model_server.url, KEY, MODEL_NAME, str(tmp_path)],
        env={"PYTHONPATH": SOURCES, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split("\n")[:2] == ['["success", 5]', '["success", 5]']
