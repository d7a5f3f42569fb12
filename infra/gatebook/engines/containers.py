"""The engines as Docker containers, through the `docker` command.

The official images, with the configuration of the embedded engines and ports on loopback only.
`infra/compose.yaml` is the same thing for people who prefer compose.

Not testcontainers, which the tests use: its reaper ends every container when the process that
started it is gone, and `gatebook up` ends as soon as the engines answer. The `docker` command also
needs no package beyond the base install.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess

from gatebook.engines import elasticsearch, jars, kafka, state
from gatebook.engines.errors import ContainerEngineFailed, DidNotStart
from gatebook.engines.processes import wait_until
from gatebook.engines.progress import Progress
from gatebook.engines.settings import (
    ENGINE_NAMES,
    LOOPBACK,
    Endpoints,
    EngineName,
    EngineSettings,
    EngineStatus,
    Status,
)

DOCKER_TIMEOUT_SECONDS = 30
PULL_TIMEOUT_SECONDS = 1800


def docker_answers() -> bool:
    """Whether a Docker engine is there for us; says nothing about its images."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def image(name: EngineName) -> str:
    """The official image at the version that the embedded engines are locked to."""
    version = jars.read_lock().groups[name].version
    if name == "kafka":
        return f"apache/kafka:{version}"
    return f"docker.elastic.co/elasticsearch/elasticsearch:{version}"


def container_environment(name: EngineName, settings: EngineSettings) -> dict[str, str]:
    """The variables that give an image the configuration of its embedded counterpart."""
    if name == "elasticsearch":
        heap = settings.elasticsearch_heap_mib
        own = {
            "xpack.security.enabled": "false",  # as embedded: loopback only, no users
            "path.repo": "/usr/share/elasticsearch/data/snapshots",
            "ES_JAVA_OPTS": f"-Xms{min(heap, 256)}m -Xmx{heap}m",
        }
        return elasticsearch.NODE_SETTINGS | own
    own = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{settings.kafka_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data",
    }
    properties = kafka.BROKER_SETTINGS | own
    as_variables = {
        "KAFKA_" + key.upper().replace(".", "_"): value for key, value in properties.items()
    }
    return as_variables | {"KAFKA_HEAP_OPTS": f"-Xmx{settings.kafka_heap_mib}m"}


def port(name: EngineName, settings: EngineSettings) -> int:
    """The port on loopback at which clients reach the engine."""
    return settings.kafka_port if name == "kafka" else settings.elasticsearch_port


INSIDE_PORTS: dict[EngineName, int] = {"kafka": 9092, "elasticsearch": 9200}
DATA: dict[EngineName, str] = {
    "kafka": "/var/lib/kafka/data",
    "elasticsearch": "/usr/share/elasticsearch/data",
}


class DockerEngines:
    """The containers of one home; their names carry a digest of its path."""

    kind = "docker"

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]
        self._container = {name: f"gatebook-{name}-{digest}" for name in ENGINE_NAMES}

    def start(self, progress: Progress) -> Endpoints:
        with state.exclusive(self.settings.engines_dir):
            for name in ENGINE_NAMES:
                progress.step(f"starting {name} in Docker")
                self._up(name)
            recorded = state.State(
                engine=self.kind,
                containers={name: self._container[name] for name in ENGINE_NAMES},
                addresses={name: self._address(name) for name in ENGINE_NAMES},
            )
            state.write(self.settings.engines_dir, recorded)
            for name in ENGINE_NAMES:
                self._await(name)
        return Endpoints(
            engine=self.kind,
            kafka_bootstrap=self._address("kafka"),
            elasticsearch_url=self._address("elasticsearch"),
        )

    def stop(self) -> None:
        """Stop both; containers and volumes stay, so the next start finds the data."""
        with state.exclusive(self.settings.engines_dir):
            for name in reversed(ENGINE_NAMES):
                if self._exists(name):
                    self._docker("stop", self._container[name], timeout_seconds=60)
            state.write(self.settings.engines_dir, state.State())

    def remove(self) -> None:
        for name in ENGINE_NAMES:
            if self._exists(name):
                self._docker("rm", "--force", "--volumes", self._container[name])
                self._docker("volume", "rm", "--force", self._container[name])

    def status(self) -> Status:
        return Status(
            engine=self.kind, engines=tuple(self._status_of(name) for name in ENGINE_NAMES)
        )

    def start_one(self, name: EngineName) -> None:
        self._up(name)
        self._await(name)

    def kill(self, name: EngineName) -> None:
        self._docker("kill", "--signal", "KILL", self._container[name])

    def _up(self, name: EngineName) -> None:
        if self._exists(name):
            self._docker("start", self._container[name])  # does nothing where it runs
            return
        variables = container_environment(name, self.settings)
        publish = f"{LOOPBACK}:{port(name, self.settings)}:{INSIDE_PORTS[name]}"
        options = ["--detach", "--name", self._container[name], "--publish", publish]
        options += ["--volume", f"{self._container[name]}:{DATA[name]}"]
        for key, value in sorted(variables.items()):
            options += ["--env", f"{key}={value}"]
        self._docker("run", *options, image(name), timeout_seconds=PULL_TIMEOUT_SECONDS)

    def _await(self, name: EngineName) -> None:
        if not wait_until(lambda: self._answers(name), self.settings.start_timeout_seconds):
            raise DidNotStart(
                f"{name} gave no answer in its container in time.",
                f"read: docker logs {self._container[name]}",
            )

    def _answers(self, name: EngineName) -> bool:
        if name == "kafka":
            return kafka.answers(port(name, self.settings))
        return elasticsearch.answers(port(name, self.settings))

    def _status_of(self, name: EngineName) -> EngineStatus:
        address = self._address(name)
        if not self._runs(name):
            return EngineStatus(name=name, state="stopped", address=address)
        answers = self._answers(name)
        return EngineStatus(name=name, state="running" if answers else "unhealthy", address=address)

    def _exists(self, name: EngineName) -> bool:
        wanted = f"name=^{self._container[name]}$"
        return bool(self._docker("ps", "--all", "--quiet", "--filter", wanted))

    def _runs(self, name: EngineName) -> bool:
        return bool(self._docker("ps", "--quiet", "--filter", f"name=^{self._container[name]}$"))

    def _address(self, name: EngineName) -> str:
        scheme = "http://" if name == "elasticsearch" else ""
        return f"{scheme}{LOOPBACK}:{port(name, self.settings)}"

    def _docker(self, *arguments: str, timeout_seconds: float = DOCKER_TIMEOUT_SECONDS) -> str:
        command = ["docker", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except FileNotFoundError as error:
            raise no_docker() from error
        except subprocess.TimeoutExpired as error:
            raise ContainerEngineFailed(
                f"`docker {arguments[0]}` took longer than {timeout_seconds:.0f} seconds.",
                "check that Docker is well (`docker info`), then try again",
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise ContainerEngineFailed(
                f"`docker {arguments[0]}` failed: {lines[-1]}",
                "correct that, or use the embedded engines: gatebook up --engine embedded",
            )
        return done.stdout.strip()


def no_docker() -> ContainerEngineFailed:
    return ContainerEngineFailed(
        "No Docker engine answers.",
        "start Docker, or use the embedded engines: gatebook up --engine embedded",
    )
