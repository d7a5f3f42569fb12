"""What `gatebook attach` prints is run as it stands, and an access gets into the index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline import Pipeline

# Around the printed lines: what the reader has already, and a use of it.
AROUND = {
    "starlette": (
        "from starlette.applications import Starlette\n"
        "from starlette.responses import JSONResponse\n"
        "from starlette.routing import Route\n"
        "async def chat(request):\n"
        "    asked = await request.json()\n"
        "    return JSONResponse({'choices': [], 'model': asked['model']})\n"
        "app = Starlette(routes=[Route('/v1/chat/completions', chat, methods=['POST'])])\n",
        "from starlette.testclient import TestClient\n"
        "with TestClient(app) as client:\n"
        "    answer = client.post('/v1/chat/completions', json={'model': 'slm', 'messages': []})\n"
        "    assert answer.status_code == 200\n",
    ),
    "wsgi": (
        "def app(environ, start_response):\n"
        "    environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))\n"
        "    start_response('200 OK', [('Content-Type', 'application/json')])\n"
        '    return [b\'{"choices": [], "model": "slm"}\']\n',
        "from io import BytesIO\n"
        "from wsgiref.util import setup_testing_defaults\n"
        'body = b\'{"model": "slm", "messages": []}\'\n'
        "environ = {'PATH_INFO': '/v1/chat/completions', 'REQUEST_METHOD': 'POST',\n"
        "    'CONTENT_TYPE': 'application/json', 'CONTENT_LENGTH': str(len(body)),\n"
        "    'REMOTE_ADDR': '127.0.0.1', 'wsgi.input': BytesIO(body)}\n"
        "setup_testing_defaults(environ)\n"
        "answer = app(environ, lambda status, headers, error=None: None)\n"
        "assert b'slm' in b''.join(answer)\n"
        "answer.close()\n",
    ),
    "openai-client": (
        "import threading\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Model(BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['Content-Length']))\n"
        '        body = b\'{"id": "c", "object": "chat.completion", "created": 1,\'\\\n'
        '            b\'"model": "slm", "choices": [{"index": 0, "finish_reason": "stop",\'\\\n'
        '            b\'"message": {"role": "assistant", "content": "hi"}}]}\'\n'
        "        self.send_response(200)\n"
        "        self.send_header('Content-Type', 'application/json')\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def log_message(self, *_): pass\n"
        "server = HTTPServer(('127.0.0.1', 0), Model)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "from openai import OpenAI\n"
        "client = OpenAI(api_key='k', base_url=f'http://127.0.0.1:{server.server_port}/v1')\n",
        "client.chat.completions.create(model='slm', messages=[{'role': 'user', 'content': 'x'}])\n"
        "server.shutdown()\n",
    ),
    "in-process": (
        "model, user, messages = 'slm', 'ada', [{'role': 'user', 'content': 'hello'}]\n"
        "def generate(messages): return 'hi'\n",
        "assert text == 'hi'\n",
    ),
}


def printed(pipeline: Pipeline, service: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "attach", service, "--json"],
        env=pipeline.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def environment(pipeline: Pipeline, found: dict[str, Any]) -> dict[str, str]:
    """Of a service that has only what was printed, and our commands on its path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEBOOK_")}
    return {**kept, "PATH": path, **found["environment"]}


@pytest.mark.parametrize("service", AROUND)
def test_the_printed_python_lines_work_as_they_are(
    pipeline: Pipeline, tmp_path: Path, service: str
) -> None:
    """Pasted between what a reader has, they record the access."""
    found = printed(pipeline, service)
    before, after = AROUND[service]
    script = tmp_path / "service.py"
    script.write_text(before + found["lines"] + after)
    pipeline.start("intake", "index")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(pipeline, found),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    pipeline.wait_indexed(1)
    (document,) = pipeline.documents()
    assert document["service"]["name"] == service
    assert document["event"]["action"] == "chat"
    assert document["event"]["outcome"] == "success"
    assert document["gen_ai"]["request"]["model"] == "slm"


def test_the_printed_shell_lines_work_as_they_are(pipeline: Pipeline, tmp_path: Path) -> None:
    """An agent and a request by curl; an import of a log."""
    pipeline.start("intake", "index")
    agent = printed(pipeline, "other-language")
    port = _free_port()
    script = agent["lines"].replace("4320", str(port)) + "kill -TERM $!\nwait\n"
    _shell(script, environment(pipeline, agent))
    logs = printed(pipeline, "existing-logs")
    log = tmp_path / "access.log"
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    log.write_text(f'10.0.0.1 - - [{when}] "GET /v1/models HTTP/1.1" 200 5\n')
    _shell(
        logs["lines"].replace("/var/log/nginx/access.log", str(log)), environment(pipeline, logs)
    )
    pipeline.wait_indexed(2)
    found = {d["service"]["name"]: d for d in pipeline.documents()}
    assert found["other-language"]["user"]["id"] == "ada"
    assert found["existing-logs"]["event"]["action"] == "list_models"


class Model(BaseHTTPRequestHandler):
    """A model server that one cannot change."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"model": "slm-7", "choices": [{"index": 0, "finish_reason": "stop"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


def test_the_printed_proxy_line_works_as_it_is(pipeline: Pipeline) -> None:
    """Before a server on another port than the usual one; the provider is filled in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = printed(pipeline, "vllm")
    port = _free_port()
    line = found["lines"].replace(":8000", f":{server.server_port}").replace("8090", str(port))
    asking = (
        f"until curl --silent --fail http://127.0.0.1:{port}/v1/chat/completions "
        '-H \'Content-Type: application/json\' -d \'{"model": "slm", "messages": []}\'; '
        "do sleep 1; done\n"
    )
    pipeline.start("intake", "index")
    try:
        script = f"{line.rstrip()} &\n{asking}kill -TERM $!\nwait\n"
        _shell(script, environment(pipeline, found))
    finally:
        server.shutdown()
        server.server_close()
    pipeline.wait_indexed(1)
    document = next(d for d in pipeline.documents() if d["event"]["outcome"] == "success")
    assert document["gen_ai"]["provider"]["name"] == "vllm"
    assert document["gen_ai"]["request"]["model"] == "slm"
    assert document["gen_ai"]["response"]["model"] == "slm-7"


def _free_port() -> int:
    from gatebook.engines.processes import free_ports

    return free_ports(1)[0]


def _shell(script: str, env: dict[str, str]) -> None:
    child = subprocess.Popen(
        ["bash", "-eu", "-c", script],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == 0, output.decode()
