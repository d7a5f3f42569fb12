"""Ollama's native API through the ASGI middleware, the proxy and the WSGI middleware, over real
sockets. The server is a replay of the objects ollama's documentation shows
(tests/unit/producers/recorded/ollama.json): ollama itself does not run where these tests do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.integration.demo_model.conftest import serving
from tests.waiting import wait_until

from gatebook.producers.adapters.proxy import ProxySettings, create_proxy
from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.provenance import ModelProvenance

from .recording import Recording
from .test_wsgi import serving as serving_wsgi

RECORDED = json.loads(
    (Path(__file__).parents[2] / "unit/producers/recorded/ollama.json").read_text()
)
CASES = sorted(n for n, case in RECORDED.items() if isinstance(case, dict) and "path" in case)
WAIT_SECONDS = 20.0
NDJSON = "application/x-ndjson"


def lines_of(case: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in case["lines"]]


def ollama(case: dict[str, Any]) -> Starlette:
    """A server that answers one recorded case, and the questions about itself."""

    async def answer(request: Request) -> Response:
        assert await request.json() == case["request"]
        if "answer" in case:
            return JSONResponse(case["answer"])

        async def lines() -> Any:
            for line in lines_of(case):
                yield line

        return StreamingResponse(lines(), media_type=NDJSON)

    async def about(request: Request) -> Response:
        return JSONResponse(RECORDED["server"][request.url.path])

    routes = [Route(path, about, methods=["GET", "POST"]) for path in RECORDED["server"]]
    return Starlette(routes=[Route(case["path"], answer, methods=["POST"]), *routes])


@contextmanager
def through_asgi(case: dict[str, Any], recording: Recording) -> Iterator[str]:
    with serving(GatebookMiddleware(ollama(case), recording.recorder)) as url:
        yield url


@contextmanager
def through_proxy(case: dict[str, Any], recording: Recording) -> Iterator[str]:
    with serving(ollama(case)) as upstream_url:
        settings = ProxySettings(upstream_url=upstream_url, provenance=False)
        with serving(create_proxy(settings, recording.recorder)) as url:
            yield url


@contextmanager
def through_wsgi(case: dict[str, Any], recording: Recording) -> Iterator[str]:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        kind = "application/json" if "answer" in case else NDJSON
        start_response("200 OK", [("Content-Type", kind)])
        return [json.dumps(case["answer"]).encode()] if "answer" in case else lines_of(case)

    with serving_wsgi(GatebookWsgiMiddleware(app, recording.recorder)) as url:
        yield url


FRONTS = {"asgi": through_asgi, "proxy": through_proxy, "wsgi": through_wsgi}


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", CASES)
def test_a_documented_answer_passes_and_is_recorded(name: str, front: str, tmp_path: Path) -> None:
    """The same bytes for the caller and the same facts in the event, whatever stands before it."""
    case, recording = RECORDED[name], Recording(tmp_path)
    with FRONTS[front](case, recording) as url:
        got = httpx.post(url + case["path"], json=case["request"], trust_env=False)
    if "answer" in case:
        assert got.json() == case["answer"]
    else:
        assert got.content == b"".join(lines_of(case))

    event, expected = recording.only_event(), case["facts"]
    assert event["event"]["outcome"] == "success"
    assert event["event"]["action"] == expected["action"]
    assert event["gen_ai"]["request"]["model"] == case["request"]["model"]
    assert event["gen_ai"]["response"]["model"] == expected["model"]
    usage = event["gen_ai"]["usage"]
    assert [usage["input_tokens"], usage["output_tokens"]] == expected["tokens"]
    assert event["gen_ai"]["tool"]["called"] == expected.get("tools", [])
    assert event["attributes"].get("load_duration_ns") == expected.get("load_duration_ns")
    assert event["attributes"].get("eval_duration_ns") == expected.get("eval_duration_ns")
    if "lines" in case:
        assert event["gatebook"]["stream"]["completed"] is True
    for said in ("sky", "Paris", "llamas"):
        assert said not in repr(event)


@pytest.mark.parametrize("front", FRONTS)
def test_a_stream_without_its_end_is_a_failure(front: str, tmp_path: Path) -> None:
    """A server that ends its answer without `done` did not finish it."""
    case = dict(RECORDED["chat_stream"], lines=RECORDED["chat_stream"]["lines"][:2])
    recording = Recording(tmp_path)
    with FRONTS[front](case, recording) as url:
        httpx.post(url + case["path"], json=case["request"], trust_env=False)
    event = recording.only_event()
    assert event["event"]["reason"] == "upstream_error"
    assert event["gatebook"]["stream"]["aborted_by"] == "upstream"
    assert event["attributes"]["output_deltas"] == "2"


def test_the_proxy_says_which_weights_answered(tmp_path: Path) -> None:
    """What ollama tells of the model a request named, read in the background."""
    case, recording = RECORDED["chat_stream"], Recording(tmp_path)
    recorder = recording.recorder
    with serving(ollama(case)) as upstream_url:
        app = create_proxy(ProxySettings(upstream_url=upstream_url), recorder)
        assert isinstance(app.provenance, ModelProvenance)
        assert app.provenance.wait(WAIT_SECONDS)
        with serving(app) as url:
            for number in (1, 2):  # the first access of a model is what makes it asked for
                httpx.post(url + case["path"], json=case["request"], trust_env=False)
                wait_until("it is emitted", lambda n=number: recorder.counters().emitted >= n)
                recorder.flush(WAIT_SECONDS)
                assert app.provenance.wait(WAIT_SECONDS)
    first, second = recording.events()
    assert first["gatebook"]["model"]["engine"] == "ollama"
    assert first["gen_ai"]["provider"]["name"] == "ollama"
    assert second["gatebook"]["model"] == {
        "engine": "ollama",
        "engine_version": "0.5.1",
        "quantization": "Q4_0",
        "weights_hash": "sha256:200765e1283640ffbd013184bf496e261032fa75b99498a9613be4e94d63ad52",
        "adapter": "",
        "resolved": "llama3.2:latest",
    }
