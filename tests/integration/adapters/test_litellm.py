"""The callback in LiteLLM's real proxy, asked by the real openai client, on the real Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from tests.contracts.adapters._contract import STREAM_CHUNKS
from tests.integration.adapters.litellm_proxy import MASTER_KEY, litellm_proxy, proxy_environment
from tests.integration.producers.kafka_reading import closed, create_topic, read_frames

from gatebook.producers.identity import key_id
from gatebook.schemas.codec import decode_event
from gatebook.schemas.topics import ACCESS, topic_name

Event = dict[str, Any]

SECRET = "s" * 32
UPSTREAM_KEY = "sk-planted-upstream-key"
WRONG_KEY, PLAIN_WRONG_KEY = "sk-planted-wrong-key", "planted-wrong-key-without-prefix"
QUESTION = "the planted question"
BLOCKED = "block this planted question"
PATIENCE_SECONDS = 20.0

GUARD = """
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

class Guard(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "block this" in str(data.get("messages")):
            raise HTTPException(400, {"error": "Violated guardrail policy"})

guard = Guard()
"""

OWN_AUTH = """
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

async def auth(request, api_key):
    if api_key != "sk-alice":
        raise ProxyException(message="no", type="auth_error", param=None, code=401)
    return UserAPIKeyAuth(api_key=api_key, user_id="alice", team_id="team-7", key_alias="laptop",
                          user_email="alice@example.org", org_id="acme")
"""


def config(upstream: str, auth: str) -> str:
    """The proxy's configuration, in JSON, which is YAML too."""

    def model(name: str, **params: Any) -> Event:
        return {"model_name": name, "litellm_params": {"api_key": UPSTREAM_KEY, **params}}

    api_base = f"{upstream}/v1"
    models = [
        model("tiny", model="openai/tiny-q4", mock_response="Hello", input_cost_per_token=0.001),
        model("served", model="openai/whole", api_base=api_base),
        model("left", model="openai/stays", api_base=api_base),
        model("cut", model="openai/cut", api_base=api_base),
        model("silent", model="openai/silent", api_base=api_base, timeout=0.5),
        model("limited", model="openai/limited", mock_response="litellm.RateLimitError"),
        model("flaky", model="openai/flaky", mock_response="litellm.InternalServerError"),
    ]
    callbacks = ["gatebook.producers.adapters.litellm.callback", "guard_module.guard"]
    return json.dumps(
        {
            "model_list": models,
            "litellm_settings": {"callbacks": callbacks, "fallbacks": [{"flaky": ["tiny"]}]},
            "router_settings": {"num_retries": 1, "retry_after": 0, "disable_cooldowns": True},
            "general_settings": json.loads(auth),
        }
    )


@contextmanager
def upstream() -> Iterator[str]:
    """A model server whose model's name says what it does; its address."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kind = body["model"]
            if kind == "silent":
                over.wait(PATIENCE_SECONDS)
            with suppress(ConnectionError):  # whoever asked has left
                self._answer(kind)
            self.close_connection = True

        def _answer(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in STREAM_CHUNKS if kind == "whole" else STREAM_CHUNKS[:2]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if kind == "stays":
                over.wait(PATIENCE_SECONDS)
            if kind == "whole":
                self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


class Recorded(NamedTuple):
    """What was asked of a proxy, and everything it recorded."""

    asked: list[str]
    received_before_the_cut: int
    events: list[Event]
    raw: bytes
    log: str

    def of(self, call: str) -> Event:
        """The one event of a request."""
        (event,) = [e for e in self.events if e["http"]["request"]["id"] == call]
        return event


class Caller:
    """Asks a proxy; each request has a name, which the caller may choose as LiteLLM's call id."""

    def __init__(self, url: str, key: str) -> None:
        self.client = openai.OpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS
        )
        self.asked: list[str] = []
        self.received_before_the_cut = 0

    def ask(
        self, call: str, model: str, content: str = QUESTION, key: str = "", **more: Any
    ) -> Any:
        self.asked.append(call)
        client = self.client.with_options(api_key=key) if key else self.client
        given: Any = {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "extra_headers": {"x-litellm-call-id": call},
            **more,
        }
        return client.chat.completions.create(**given)

    def read_until_cut(self) -> None:
        for _ in self.ask("cut", "cut", stream=True):
            self.received_before_the_cut += 1

    def refused(self, call: str, model: str, status: int, **more: Any) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            self.ask(call, model, **more)
        assert caught.value.status_code == status


def ask_everything(caller: Caller) -> None:
    """All situations, one after the other."""
    said = caller.ask("whole", "tiny", user="end-user-17", temperature=0.5)
    assert said.choices[0].message.content == "Hello"
    text = "".join(
        c.choices[0].delta.content or "" for c in caller.ask("mocked", "tiny", stream=True)
    )
    assert text == "Hello"
    assert len(list(caller.ask("streamed", "served", stream=True))) >= 3
    for call in ("same", "same"):
        caller.ask(call, "tiny")
    caller.ask("fallback", "flaky")
    caller.refused("limited", "limited", 429)
    caller.refused("unknown model", "nobody-has-this", 400)
    caller.refused("blocked", "tiny", 400, content=BLOCKED)
    caller.refused("silent", "silent", 408)
    forged = {"metadata": {"gatebook_request": "forged"}}
    caller.refused("wrong key", "tiny", 400, key=WRONG_KEY, extra_body=forged)
    caller.refused("plain wrong key", "tiny", 400, key=PLAIN_WRONG_KEY)
    with caller.ask("left", "left", stream=True) as stream:
        next(stream)
        next(stream)
    with pytest.raises(openai.APIError):
        caller.read_until_cut()
    caller.asked.append("vectors")
    caller.client.embeddings.create(
        model="tiny",
        input="x",
        encoding_format="float",  # by default the client asks for base64, which a mock is not
        extra_headers={"x-litellm-call-id": "vectors"},
    )


def record(
    engines: Any, folder: Path, auth: str, key: str, ask: Callable[[Caller], None]
) -> Recorded:
    """Run a proxy, ask it, end it, and read all it recorded."""
    namespace = f"t{folder.name.replace('-', '')}"[:30].lower()
    topic = topic_name(namespace, ACCESS)
    create_topic(engines.kafka_bootstrap, topic)
    (folder / "guard_module.py").write_text(GUARD)
    (folder / "auth_module.py").write_text(OWN_AUTH)
    path = folder / "config.yaml"
    settings = {
        "GATEBOOK_KAFKA_BOOTSTRAP": engines.kafka_bootstrap,
        "GATEBOOK_NAMESPACE": namespace,
        "GATEBOOK_HOME": str(folder / "home"),
        "GATEBOOK_KEY_DIGEST_SECRET": SECRET,
        "GATEBOOK_SERVICE_NAME": "litellm-test",
    }
    with upstream() as model_url:
        path.write_text(config(model_url, auth))
        with litellm_proxy(proxy_environment(), path, **settings) as url:
            caller = Caller(url, key)
            ask(caller)
    frames = read_frames(engines.kafka_bootstrap, topic, closed)
    data = [event for frame in frames for event in frame.events]
    events = [e for e in map(decode_event, data) if e["gatebook"]["phase"] == "terminal"]
    log, received = path.with_suffix(".log").read_text(), caller.received_before_the_cut
    return Recorded(caller.asked, received, events, b"".join(data), log)


@pytest.fixture(scope="module")
def recorded(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A proxy with a master key and no database, after all situations."""
    auth = json.dumps({"master_key": MASTER_KEY})
    folder = tmp_path_factory.mktemp("master")
    return record(engines, folder, auth, MASTER_KEY, ask_everything)


@pytest.fixture(scope="module")
def owned(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A proxy that knows whose its keys are."""

    def ask(caller: Caller) -> None:
        caller.ask("alice", "tiny")
        caller.refused("stranger", "tiny", 401, key=WRONG_KEY)

    auth = json.dumps({"custom_auth": "auth_module.auth", "master_key": MASTER_KEY})
    return record(engines, tmp_path_factory.mktemp("owned"), auth, "sk-alice", ask)


def test_every_request_has_exactly_one_event(recorded: Recorded) -> None:
    """As many events as requests: retries, fallbacks and events told twice add none, and a call id
    that the caller repeats hides none."""
    ids = [event["http"]["request"]["id"] for event in recorded.events]
    assert len(recorded.events) == len(recorded.asked)
    unnamed = {"wrong key", "plain wrong key"}  # LiteLLM takes no id before it knows the key
    assert sorted(set(ids) & set(recorded.asked)) == sorted(set(recorded.asked) - unnamed)
    assert ids.count("same") == 2


def test_a_whole_answer(recorded: Recorded) -> None:
    """Models requested and resolved, tokens, cost, caller, end user, client."""
    event = recorded.of("whole")
    assert (event["event"]["outcome"], event["event"]["action"]) == ("success", "chat")
    assert event["gen_ai"]["request"]["model"] == "tiny"
    assert event["gen_ai"]["request"]["temperature"] == 0.5
    assert event["gatebook"]["model"]["resolved"] == "openai/tiny-q4"
    assert event["gen_ai"]["provider"]["name"] == "openai"
    assert event["gen_ai"]["usage"]["output_tokens"] > 0
    assert event["gen_ai"]["response"]["finish_reasons"] == ["stop"]
    assert float(event["attributes"]["cost_usd"]) > 0
    assert event["http"]["response"]["status_code"] == 200
    assert event["url"]["path"] == "/v1/chat/completions"
    assert event["source"]["ip"] == "127.0.0.1"
    assert event["user_agent"]["original"].startswith("OpenAI/Python")
    identity = event["gatebook"]["identity"]
    assert (identity["method"], identity["assurance"]) == ("api_key", "verified")
    assert identity["on_behalf_of"] == "end-user-17"
    assert event["event"]["duration"] == event["event"]["end"] - event["timestamp"] > 0


@pytest.mark.parametrize(("call", "tokens"), [("mocked", None), ("streamed", (5, 2))])
def test_a_streamed_answer(recorded: Recorded, call: str, tokens: Any) -> None:
    """Chunks, time to the first, and the tokens the model counted."""
    event = recorded.of(call)
    assert event["event"]["outcome"] == "success"
    assert event["gatebook"]["stream"]["completed"] is True
    assert event["gatebook"]["stream"]["chunks"] >= 3
    assert event["gen_ai"]["response"]["time_to_first_chunk"] > 0
    usage = event["gen_ai"]["usage"]
    if tokens:
        assert (usage["input_tokens"], usage["output_tokens"]) == tokens


@pytest.mark.parametrize(
    ("call", "reason", "status"),
    [
        ("limited", "rate_limited", 429),
        ("unknown model", "not_found", 400),
        ("blocked", "content_filtered", 400),
        ("silent", "timeout", 408),
    ],
)
def test_a_failed_request(recorded: Recorded, call: str, reason: str, status: int) -> None:
    """Each kind of failure keeps its reason and the status the caller got."""
    event = recorded.of(call)
    assert (event["event"]["outcome"], event["event"]["reason"]) == ("failure", reason)
    assert event["http"]["response"]["status_code"] == status
    assert event["gatebook"]["identity"]["assurance"] == "verified"


def test_a_fallback_is_one_access_to_what_answered(recorded: Recorded) -> None:
    """The event names the model that was asked for and the one that answered."""
    event = recorded.of("fallback")
    assert event["event"]["outcome"] == "success"
    assert event["gen_ai"]["request"]["model"] == "flaky"
    assert event["gatebook"]["model"]["resolved"] == "openai/tiny-q4"


def test_a_refused_key_is_recorded_and_never_stored(recorded: Recorded) -> None:
    """LiteLLM without a database answers 400 and hands the callback a key in the clear."""
    refused = [e for e in recorded.events if e["event"]["reason"] == "unauthenticated"]
    assert len(refused) == 2
    for event in refused:
        assert event["event"]["category"] == "authentication"
        assert event["http"]["response"]["status_code"] == 400
        assert event["gatebook"]["identity"]["assurance"] == "failed"
        assert event["gatebook"]["identity"]["key_id"].startswith("key_")
        assert event["user"]["id"] == ""
        assert event["source"]["ip"] == "127.0.0.1"


def test_a_caller_who_leaves_a_stream(recorded: Recorded) -> None:
    """LiteLLM tells of a success; the event says who left, and after how much."""
    event = recorded.of("left")
    assert event["event"]["reason"] == "client_aborted"
    stream = event["gatebook"]["stream"]
    assert (stream["completed"], stream["aborted_by"]) == (False, "client")
    assert stream["chunks"] == 2
    assert event["attributes"]["output_deltas"] == "2"
    assert event["gatebook"]["model"]["resolved"] == "openai/stays"
    assert event["http"]["response"]["status_code"] == 200
    assert event["source"]["ip"] == "127.0.0.1"


def test_a_stream_that_the_model_server_cuts(recorded: Recorded) -> None:
    """What came before the cut is counted, and the cut is not the caller's. (LiteLLM passes on
    nothing where a stream is cut early: it would fall back to another model then.)"""
    event = recorded.of("cut")
    assert event["event"]["outcome"] == "failure"
    assert event["event"]["reason"] == "upstream_error"
    assert event["gatebook"]["stream"]["completed"] is False
    assert event["gatebook"]["stream"]["chunks"] == recorded.received_before_the_cut


def test_vectors_are_an_access_too(recorded: Recorded) -> None:
    """Embeddings go the same way."""
    event = recorded.of("vectors")
    assert (event["event"]["action"], event["event"]["outcome"]) == ("embeddings", "success")


def test_the_owner_of_a_key_is_named(owned: Recorded) -> None:
    """User, team and organisation as the proxy knows them; the key by its keyed digest."""
    event = owned.of("alice")
    assert (event["user"]["id"], event["user"]["name"]) == ("alice", "laptop")
    assert event["organization"]["id"] == "acme"
    assert event["attributes"]["team_id"] == "team-7"
    assert event["gatebook"]["identity"]["assurance"] == "verified"
    assert event["gatebook"]["identity"]["key_id"].startswith("key_")
    assert event["gatebook"]["identity"]["key_id"] != key_id(SECRET.encode(), "sk-alice")


def test_a_key_the_proxy_refuses_itself(owned: Recorded) -> None:
    """A 401 is an event of nobody."""
    (event,) = [e for e in owned.events if e["event"]["reason"] == "unauthenticated"]
    assert len(owned.events) == len(owned.asked)
    assert event["http"]["response"]["status_code"] == 401
    assert event["gatebook"]["identity"]["assurance"] == "failed"
    assert event["user"]["id"] == ""


def test_no_question_and_no_key_leaves_the_proxy(recorded: Recorded, owned: Recorded) -> None:
    """At level metadata no bytes on the topic hold content or a key."""
    for found in (recorded, owned):
        for planted in (QUESTION, BLOCKED, UPSTREAM_KEY, WRONG_KEY, PLAIN_WRONG_KEY, MASTER_KEY):
            assert planted.encode() not in found.raw
        assert "could not be followed" not in found.log
        assert b"sk-alice" not in found.raw
