"""The model server as a process: it answers, refuses, and goes away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from gatebook.cli.demo.model_file import MODEL_NAME
from gatebook.cli.demo.model_server import API_KEYS_VARIABLE, ModelServer, ModelServerError
from gatebook.cli.demo.scenario import API_KEYS, WRONG_API_KEY

MAX_TOKENS = 4
CHAT = {"messages": [{"role": "user", "content": "Grüße, 世界"}], "max_tokens": MAX_TOKENS}


def chat(server: ModelServer, api_key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {api_key}"}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, headers=headers, json=CHAT, trust_env=False, timeout=30)


@pytest.mark.parametrize("user", sorted(API_KEYS))
def test_every_given_key_is_accepted(model_server: ModelServer, user: str) -> None:
    """Each user's own key opens the model, which counts the tokens it really read and wrote."""
    answer = chat(model_server, API_KEYS[user])
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == MODEL_NAME
    assert body["usage"]["prompt_tokens"] > 10
    assert 0 < body["usage"]["completion_tokens"] <= MAX_TOKENS


def test_another_key_gets_the_servers_own_refusal(model_server: ModelServer) -> None:
    """llama.cpp itself refuses a key it was not given."""
    answer = chat(model_server, WRONG_API_KEY)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


def test_the_model_says_its_name(model_server: ModelServer) -> None:
    """The list of models holds the name the file was given."""
    headers = {"authorization": f"Bearer {API_KEYS['alice']}"}
    answer = httpx.get(f"{model_server.url}/v1/models", headers=headers, trust_env=False)
    listed = answer.json()["data"]
    assert [model["id"] for model in listed] == [MODEL_NAME]


def test_it_listens_on_loopback_only(model_server: ModelServer) -> None:
    """A server whose keys are public knowledge is not reachable from outside."""
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(model_server.process_id).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_stop_ends_the_process_cleanly(model_path: Path) -> None:
    """SIGTERM ends the process with exit code 0, and stopping twice does no harm."""
    server = ModelServer(model_path, ["sk-demo-only"])
    assert server.stop() == 0
    assert server.stop() == 0
    assert not psutil.pid_exists(server.process_id)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", trust_env=False)


def test_it_does_not_outlive_a_killed_parent(model_path: Path) -> None:
    """When the parent dies without a word, the model server stops by itself."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path;"
            "from gatebook.cli.demo.model_server import ModelServer;"
            "server = ModelServer(Path(sys.argv[1]), ['sk-demo-only']);"
            "print(server.process_id, flush=True); time.sleep(600)",
            str(model_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=20)
    assert gone == [child]


def test_a_file_that_is_no_model_is_reported(tmp_path: Path) -> None:
    """A bad model file is an error that says where to look, not a server that hangs."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    log_path = tmp_path / "server.log"
    with pytest.raises(ModelServerError, match=re.escape(str(log_path))):
        ModelServer(broken, ["sk-demo-only"], log_path=log_path)
    assert log_path.stat().st_size > 0


def test_no_key_is_refused_at_start(model_path: Path) -> None:
    """Without keys llama.cpp would let anybody in, so the command does not start."""
    command = [sys.executable, "-m", "gatebook.cli.demo.model_server", "--model", str(model_path)]
    environment = {key: value for key, value in os.environ.items() if key != API_KEYS_VARIABLE}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert API_KEYS_VARIABLE in ended.stderr
