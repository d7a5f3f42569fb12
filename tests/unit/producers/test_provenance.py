"""What model servers tell of themselves (recorded/*.json), asked without making anybody wait."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from gatebook.producers.provenance import ModelProvenance
from gatebook.producers.provenance_servers import file_digest

FOLDER = Path(__file__).parent / "recorded"
SERVERS = json.loads((FOLDER / "servers.json").read_text())
SERVERS["ollama"] = json.loads((FOLDER / "ollama.json").read_text())["server"]
WAIT_SECONDS = 20.0


class ModelServer(ThreadingHTTPServer):
    """Answers from a table of paths; notes every request."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.hold: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        if self.server.hold is not None:
            self.server.hold.wait(WAIT_SECONDS)
        found = self.server.answers.get(self.path)
        if isinstance(found, str):
            self.send_response(302)
            self.send_header("location", found)
            self.end_headers()
            return
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[ModelServer]:
    server = ModelServer(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def known(provenance: ModelProvenance, model: str) -> dict[str, str]:
    """What is known once nothing is being asked any more."""
    for _ in range(2):  # the first question of a model is asked once the server is known
        provenance.of(model)
        assert provenance.wait(WAIT_SECONDS)
    return dict(provenance.of(model))


EXPECTED = [
    (
        "llama.cpp",
        "whatever-the-caller-says",
        {
            "engine": "llama_cpp",
            "engine_version": "b5432-0123abcd",
            "quantization": "Q4_K - Medium",
            "adapter": "legal.gguf",
            "resolved": "gatebook-demo-slm",
        },
    ),
    (
        "ollama",
        "llama3.2",
        {
            "engine": "ollama",
            "engine_version": "0.5.1",
            "quantization": "Q4_0",
            "weights_hash": "sha256:"
            "200765e1283640ffbd013184bf496e261032fa75b99498a9613be4e94d63ad52",
            "resolved": "llama3.2:latest",
        },
    ),
    ("ollama", "unknown-model", {"engine": "ollama", "engine_version": "0.5.1"}),
    (
        "vllm",
        "meta-llama/Llama-3.2-1B",
        {"engine": "vllm", "engine_version": "0.10.1", "resolved": "/models/Llama-3.2-1B"},
    ),
    (
        "vllm",
        "legal",
        {
            "engine": "vllm",
            "engine_version": "0.10.1",
            "adapter": "/adapters/legal",
            "resolved": "/models/Llama-3.2-1B",
        },
    ),
    (
        "tgi",
        "tgi",
        {
            "engine": "tgi",
            "engine_version": "3.3.2",
            "weights_hash": "revision:e985a63cdc139290c5f700ff1929f0b5942cced2",
            "resolved": "bigscience/bloom-560m",
        },
    ),
]


@pytest.mark.parametrize(("kind", "model", "expected"), EXPECTED)
def test_each_kind_of_server_is_recognised_and_read(
    kind: str, model: str, expected: dict[str, str]
) -> None:
    """Engine, version, form of the weights and what the name stands for, as far as it tells."""
    with serving(SERVERS[kind]) as server:
        assert known(ModelProvenance(server.url), model) == expected


def test_without_a_blob_ollamas_manifest_stands_in_and_says_so() -> None:
    """A digest of something else is not called that of the weights."""
    answers = {**SERVERS["ollama"], "/api/show": {"modelfile": "FROM codellama"}}
    with serving(answers) as server:
        found = known(ModelProvenance(server.url), "codellama:13b")
    assert found["weights_hash"].startswith("manifest:9f438cb9")
    assert found["quantization"] == "Q4_0"


def test_weights_on_this_machine_are_digested_once(tmp_path: Path) -> None:
    """llama.cpp names the file; its digest is computed here, anew only when the file changes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(3_000_000))
    properties = {**SERVERS["llama.cpp"]["/props"], "model_path": str(path)}
    with serving({"/props": properties}) as server:
        found = known(ModelProvenance(server.url), "m")
    assert found["weights_hash"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    path.write_bytes(b"GGUF, changed")
    assert file_digest(str(path)) != found["weights_hash"]


def test_only_weights_files_are_read(tmp_path: Path) -> None:
    """A server that names another file of this machine learns nothing about it, nor do readers."""
    path = tmp_path / "secret.txt"
    path.write_text("planted secret")
    assert file_digest(str(path)) == ""
    assert file_digest(str(tmp_path)) == ""
    assert file_digest(str(tmp_path / "absent.gguf")) == ""


def test_nobody_waits_for_a_server_that_does_not_answer() -> None:
    """While it is asked there is nothing; what it says later is there later."""
    with serving(SERVERS["tgi"]) as server:
        server.hold = threading.Event()
        provenance = ModelProvenance(server.url)
        assert provenance.of("m") == {}
        wait_until("the first question", lambda: server.asked, WAIT_SECONDS)
        assert provenance.of("m") == {}
        server.hold.set()
        assert provenance.wait(WAIT_SECONDS)
        assert provenance.of("m")["engine"] == "tgi"


def test_the_time_limit_ends_the_questions() -> None:
    """A silent server is given up, and asked again later only."""
    with serving(SERVERS["tgi"]) as server:
        server.hold = threading.Event()
        provenance = ModelProvenance(server.url, time_limit_seconds=0.2)
        provenance.of("m")
        assert provenance.wait(WAIT_SECONDS)
        asked = len(server.asked)
        assert provenance.of("m") == {}
        assert provenance.wait(WAIT_SECONDS)
        assert len(server.asked) == asked
        server.hold.set()


def test_a_server_is_asked_once_however_many_accesses_there_are() -> None:
    """And names that callers make up are not asked for at all."""
    with serving(SERVERS["ollama"]) as server:
        provenance = ModelProvenance(server.url)
        known(provenance, "llama3.2")
        asked = server.paths()
        assert asked.count("/api/show") == 1
        for number in range(500):
            provenance.of("llama3.2")
            provenance.of(f"made-up-{number}")
        assert provenance.wait(WAIT_SECONDS)
        assert server.paths() == asked


def test_a_model_that_is_exchanged_is_noticed() -> None:
    """After the refresh time the server is asked anew, with the models known so far."""
    with serving(dict(SERVERS["tgi"])) as server:
        provenance = ModelProvenance(server.url, refresh_seconds=0.0)
        assert known(provenance, "m")["resolved"] == "bigscience/bloom-560m"
        server.answers["/info"] = {**server.answers["/info"], "model_id": "other"}
        assert known(provenance, "m")["resolved"] == "other"


def test_what_cannot_be_confirmed_is_not_said() -> None:
    """A server that is gone at the refresh may come back with another model."""
    with serving(SERVERS["tgi"]) as server:
        provenance = ModelProvenance(server.url, refresh_seconds=0.0, retry_seconds=0.0)
        assert known(provenance, "m")
    assert known(provenance, "m") == {}


def test_the_key_goes_to_the_upstream_and_nowhere_else() -> None:
    """A redirect is not followed."""
    with serving({}) as other, serving({}) as server:
        server.answers["/props"] = f"{other.url}/props"
        known(ModelProvenance(server.url, api_key="sk-planted"), "m")
        assert {h["authorization"] for _, _, h in _lowered(server.asked)} == {"Bearer sk-planted"}
        assert other.asked == []


def _lowered(asked: list[Any]) -> list[tuple[str, str, dict[str, str]]]:
    return [(m, p, {k.lower(): v for k, v in h.items()}) for m, p, h in asked]


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/props": [1], "/info": 5, "/version": {"version": 7}},
        {"/props": {"model_path": None}, "/lora-adapters": {"a": 1}},
        {"/api/version": {"version": "1"}, "/api/tags": {"models": [5, {"name": 3}, None]}},
        {"/version": {"version": "1"}, "/v1/models": {"data": [None, {"owned_by": "vllm"}]}},
    ],
)
def test_a_server_that_says_nonsense_costs_nothing(answers: dict[str, Any]) -> None:
    """No shape of answer raises, or ends the thread."""
    with serving(answers) as server:
        found = known(ModelProvenance(server.url), "m")
        assert not found.get("weights_hash")


def test_a_forked_child_asks_for_itself() -> None:
    """The thread that was asking belongs to the parent, and so may a lock it held."""
    with serving(dict(SERVERS["tgi"])) as server:
        provenance = ModelProvenance(server.url)
        known(provenance, "m")
        server.answers["/info"] = {**server.answers["/info"], "model_id": "of the child"}
        reading, writing = os.pipe()
        provenance._lock.acquire()  # as another thread may have it at the moment of the fork
        child = os.fork()
        if child == 0:
            os.write(writing, known(provenance, "m")["resolved"].encode())
            os._exit(0)
        provenance._lock.release()
        assert os.read(reading, 100) == b"of the child"
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
