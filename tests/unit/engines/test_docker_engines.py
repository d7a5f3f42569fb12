"""Which engines a test run takes, and what testcontainers then asks of Docker.

The daemon here speaks just enough of Docker's HTTP interface to be written to, and notes what it
is asked. What a real Docker makes of these requests is not shown by these tests.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.docker_engines import TestcontainersEngines, choose_for_tests

from gatebook.engines.containers import container_environment, image
from gatebook.engines.errors import ContainerEngineFailed
from gatebook.engines.processes import free_ports
from gatebook.engines.settings import EngineName, EngineSettings

ADDRESSES = {"kafka_bootstrap": "127.0.0.1:1", "elasticsearch_url": "http://127.0.0.1:1"}


class Daemon(ThreadingHTTPServer):
    """Notes (method, path, body) of each request that changes something."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests: list[tuple[str, str, Any]] = []
        self.created: list[dict[str, Any]] = []

    @property
    def calls(self) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.requests]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON for one request; `path` without the version in front."""
        if method != "GET":
            self.requests.append((method, path, body))
        if path.startswith("/containers/create"):
            self.created.append(body)
            return 201, {"Id": f"c{len(self.created)}", "Warnings": []}
        if found := re.fullmatch(r"/containers/(c\d+)/json", path):
            return 200, self._inspect(found[1])
        if path.endswith("/wait"):
            return 200, {"StatusCode": 137}
        if method in ("POST", "DELETE"):
            return 204, None
        if path.startswith("/networks"):
            return 200, []
        if path == "/version":
            return 200, {"ApiVersion": "1.44", "Version": "27.0.0"}
        return 200, {"Id": "sha256:1", "Config": {}}

    def _inspect(self, container: str) -> dict[str, Any]:
        """A container that runs, with every port of it on this very server."""
        ports = self.created[int(container[1:]) - 1]["HostConfig"]["PortBindings"]
        here = [{"HostIp": "127.0.0.1", "HostPort": str(self.server_port)}]
        return {
            "Id": container,
            "State": {"Status": "running"},
            "NetworkSettings": {"Ports": dict.fromkeys(ports, here)},
        }


class Answer(BaseHTTPRequestHandler):
    server: Daemon
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path = re.sub(r"^/v[\d.]+", "", self.path)
        status, found = self.server.answer(self.command, path, body)
        data = b"" if found is None else json.dumps(found).encode()
        data = b"OK" if path == "/_ping" else data
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_HEAD = _any

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon at DOCKER_HOST. The reaper is left out: it is one per process, and the process
    may have a real one."""
    from testcontainers.core.config import testcontainers_config

    daemon = Daemon()
    monkeypatch.setattr(testcontainers_config, "_ryuk_disabled", True)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{daemon.server_port}")
    thread = threading.Thread(target=daemon.serve_forever, daemon=True)
    thread.start()
    yield daemon
    daemon.shutdown()
    daemon.server_close()
    thread.join()


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_ports(1)[0]}")


def given(tmp_path: Path, **more: str) -> EngineSettings:
    return EngineSettings(home=tmp_path / "home", **more)  # type: ignore[arg-type] # test data


@pytest.mark.usefixtures("docker")
def test_addresses_go_before_docker(tmp_path: Path) -> None:
    """Whoever gives addresses means them, in a test run too."""
    assert choose_for_tests(given(tmp_path, **ADDRESSES)).kind == "external"


@pytest.mark.usefixtures("docker")
def test_a_docker_that_answers_is_used_through_testcontainers(tmp_path: Path) -> None:
    """By itself, and when it is asked for by name."""
    for engine in ("auto", "docker"):
        chosen = choose_for_tests(given(tmp_path, engine=engine))
        assert isinstance(chosen, TestcontainersEngines)


@pytest.mark.usefixtures("no_docker")
def test_without_docker_the_engines_are_embedded(tmp_path: Path) -> None:
    """Never none at all; but a Docker asked for by name is not replaced silently."""
    assert choose_for_tests(given(tmp_path)).kind == "embedded"
    with pytest.raises(ContainerEngineFailed, match="No Docker"):
        choose_for_tests(given(tmp_path, engine="docker"))


@pytest.mark.usefixtures("docker")
def test_embedded_asked_for_by_name_is_taken(tmp_path: Path) -> None:
    """Although Docker answers."""
    assert choose_for_tests(given(tmp_path, engine="embedded")).kind == "embedded"


@pytest.mark.parametrize("name", ["kafka", "elasticsearch"])
def test_a_container_has_the_configuration_of_compose(
    docker: Daemon, tmp_path: Path, name: EngineName
) -> None:
    """The locked image, every variable, and the one port on loopback where clients look."""
    settings = given(tmp_path)
    TestcontainersEngines(settings)._up(name)
    (created,) = docker.created
    assert created["Image"] == image(name)
    variables = {f"{k}={v}" for k, v in container_environment(name, settings).items()}
    assert variables <= set(created["Env"])
    inside, outside = (9092, 19092) if name == "kafka" else (9200, 19200)
    here = [{"HostIp": "127.0.0.1", "HostPort": str(outside)}]
    assert created["HostConfig"]["PortBindings"] == {f"{inside}/tcp": here}
    assert docker.calls[-1] == "POST /containers/c1/start"


def test_a_killed_container_starts_again_as_itself(docker: Daemon, tmp_path: Path) -> None:
    """SIGKILL, wait for its end, start the same container: same data, same address."""
    engines = TestcontainersEngines(given(tmp_path))
    engines._up("kafka")
    docker.requests.clear()
    engines.kill("kafka")
    engines._up("kafka")
    assert docker.calls == [
        "POST /containers/c1/kill?signal=SIGKILL",
        "POST /containers/c1/wait",
        "POST /containers/c1/start",
    ]


def test_removal_takes_containers_and_volumes(docker: Daemon, tmp_path: Path) -> None:
    """A test run leaves nothing, whatever state a container is in; a second removal is fine."""
    engines = TestcontainersEngines(given(tmp_path))
    engines._up("kafka")
    engines._up("elasticsearch")
    engines.remove()
    engines.remove()
    removed = sorted(call for call in docker.calls if call.startswith("DELETE"))
    assert [re.sub(r"\?.*", "", call) for call in removed] == [
        "DELETE /containers/c1",
        "DELETE /containers/c2",
    ]
    assert all("v=True" in call and "force=True" in call for call in removed)
