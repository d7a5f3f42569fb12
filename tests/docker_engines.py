"""Engines for a test run in Docker, through testcontainers, and the choice between all kinds.

Unlike `gatebook up`, a test run wants what testcontainers does on the side: its reaper removes the
containers when this process is gone, however it ended.

Not proven here: that the containers work. No test of this repository has run them against a real
Docker engine; `tests/unit/engines/test_docker_engines.py` shows, with a daemon that only takes
notes, which requests reach Docker. A Docker engine on another machine is not supported, because
ports are published on loopback only: give addresses or GATEBOOK_ENGINE=embedded there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatebook.engines import elasticsearch, kafka, selection
from gatebook.engines.containers import INSIDE_PORTS, container_environment, image, no_docker, port
from gatebook.engines.engines import Engines
from gatebook.engines.errors import DidNotStart
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

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer


def choose_for_tests(settings: EngineSettings) -> Engines:
    """Addresses given, else testcontainers where Docker answers, else embedded.

    The order of `selection.choose`; only the Docker kind is another one. GATEBOOK_ENGINE decides
    here too, and an engine asked for by name that cannot be had is an EngineError.
    """
    if settings.engine == "docker":
        if not docker_answers():
            raise no_docker()
        return TestcontainersEngines(settings)
    if settings.engine == "auto" and not settings.kafka_bootstrap and docker_answers():
        return TestcontainersEngines(settings)
    if settings.engine == "auto" and not settings.kafka_bootstrap:
        # Said by name: the `docker` command, which `choose` would ask, may see another engine.
        settings = selection.with_engine(settings, "embedded")
    return selection.choose(settings)


def docker_answers() -> bool:
    """Whether the Docker client finds an engine; says nothing about its images."""
    import docker  # type: ignore[import-untyped]  # the client ships no types
    from docker.errors import DockerException  # type: ignore[import-untyped]  # as above

    try:
        client = docker.from_env(timeout=10)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


class TestcontainersEngines:
    """One Kafka and one Elasticsearch that end with this process.

    Host ports are fixed, not assigned by Docker: a killed container that starts again must have
    its old address. Data is in the container and survives a kill, not `remove`.
    """

    __test__ = False  # the name begins with Test, and it is none
    kind = "docker"

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._containers: dict[EngineName, DockerContainer] = {}

    def start(self, progress: Progress) -> Endpoints:
        for name in ENGINE_NAMES:
            progress.step(f"starting {name} in Docker, by testcontainers")
            self._up(name)
        for name in ENGINE_NAMES:
            self._await(name)
        return Endpoints(
            engine=self.kind,
            kafka_bootstrap=self._address("kafka"),
            elasticsearch_url=self._address("elasticsearch"),
        )

    def start_one(self, name: EngineName) -> None:
        self._up(name)
        self._await(name)

    def stop(self) -> None:
        for name in reversed(ENGINE_NAMES):
            if name in self._containers:
                self._containers[name].get_wrapped_container().stop()

    def kill(self, name: EngineName) -> None:
        container = self._containers[name].get_wrapped_container()
        container.kill(signal="SIGKILL")
        container.wait()

    def remove(self) -> None:
        while self._containers:
            _, container = self._containers.popitem()
            container.stop()  # in testcontainers' words: force removal, with its volumes

    def status(self) -> Status:
        return Status(
            engine=self.kind, engines=tuple(self._status_of(name) for name in ENGINE_NAMES)
        )

    def _up(self, name: EngineName) -> None:
        """Create and start, or start again. If we die in between, the reaper removes it."""
        if name in self._containers:
            self._containers[name].get_wrapped_container().start()  # nothing where it runs
            return
        container = self._container(name)
        self._containers[name] = container
        container.start()

    def _container(self, name: EngineName) -> DockerContainer:
        container = _KINDS[name](image(name))
        for key, value in container_environment(name, self.settings).items():
            container.with_env(key, value)
        published: dict[str, Any] = container.ports  # typed for a bare port; Docker takes a pair
        published.clear()
        published[f"{INSIDE_PORTS[name]}/tcp"] = (LOOPBACK, port(name, self.settings))
        return container

    def _await(self, name: EngineName) -> None:
        if not wait_until(lambda: self._answers(name), self.settings.start_timeout_seconds):
            logs = self._containers[name].get_wrapped_container().logs(tail=5)
            last = logs.decode(errors="replace").strip() or "no output"
            raise DidNotStart(
                f"{name} gave no answer in its container at {self._address(name)}: {last}",
                "see that Docker runs on this machine, or set GATEBOOK_ENGINE=embedded",
            )

    def _answers(self, name: EngineName) -> bool:
        if name == "kafka":
            return kafka.answers(port(name, self.settings))
        return elasticsearch.answers(port(name, self.settings))

    def _status_of(self, name: EngineName) -> EngineStatus:
        address = self._address(name)
        if name not in self._containers:
            return EngineStatus(name=name, state="stopped", address=address)
        container = self._containers[name].get_wrapped_container()
        container.reload()
        if container.status != "running":
            return EngineStatus(name=name, state="stopped", address=address)
        answers = self._answers(name)
        return EngineStatus(name=name, state="running" if answers else "unhealthy", address=address)

    def _address(self, name: EngineName) -> str:
        scheme = "http://" if name == "elasticsearch" else ""
        return f"{scheme}{LOOPBACK}:{port(name, self.settings)}"


def _kafka(name: str) -> DockerContainer:
    # Not testcontainers' KafkaContainer: its start script is made of files that only Confluent's
    # images have. The official image needs no script, as its configuration is all variables.
    from testcontainers.core.container import DockerContainer

    return DockerContainer(name)


def _elasticsearch(name: str) -> DockerContainer:
    from testcontainers.community.elasticsearch import ElasticSearchContainer
    from testcontainers.core.wait_strategies import ContainerStatusWaitStrategy

    # Its own wait asks for `GET /` at a gateway's address where the tests run in a container;
    # `_await` asks for the cluster's health where clients will.
    return ElasticSearchContainer(name).waiting_for(ContainerStatusWaitStrategy())


_KINDS = {"kafka": _kafka, "elasticsearch": _elasticsearch}
