"""Fixtures that many tests share: one set of engines per run, one namespace per test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from tests.docker_engines import choose_for_tests
from tests.pipeline import Pipeline

from gatebook.engines.apicurio import SchemaRegistry
from gatebook.engines.embedded import EmbeddedEngines
from gatebook.engines.engines import Engines
from gatebook.engines.processes import free_ports
from gatebook.engines.progress import Quiet
from gatebook.engines.settings import EngineSettings

# Properties are tried with the same examples in every run, however slow the machine is just now.
settings.register_profile(
    "gatebook", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gatebook")


# Who starts the tests in the background of a shell has them ignore Ctrl-C, and their children, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests in which processes, engines and a browser share the machine, each with clocks of its own.
REAL = tuple(Path(__file__).parent / name for name in ("contracts", "e2e", "faults", "integration"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What fails on real engines is run once more: one chance in ten thousand is a failed run
    of ten thousand tests. It is never silent, see below; what fails twice fails."""
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in REAL):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how tests failed that were run once more: each such failure is a fault to be found."""
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section("failed, and run once more")
    for report in again:
        terminalreporter.section(report.nodeid, "_")
        terminalreporter.line(report.longreprtext)


class RunningEngines:
    """Kafka and Elasticsearch that answer, and handles to take one away and bring it back.

    With engines that somebody else runs (addresses in the environment) the handles raise
    NotOurs: such a test fails, it is not skipped.
    """

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        endpoints = engines.start(Quiet())
        self.engine = endpoints.engine
        self.kafka_bootstrap = endpoints.kafka_bootstrap
        self.elasticsearch_url = endpoints.elasticsearch_url
        self.best_compression_available = endpoints.best_compression_available

    def kill_kafka(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._engines.kill("kafka")

    def start_kafka(self) -> None:
        """Same port, same data; returns when it answers."""
        self._engines.start_one("kafka")

    def kill_elasticsearch(self) -> None:
        self._engines.kill("elasticsearch")

    def start_elasticsearch(self) -> None:
        self._engines.start_one("elasticsearch")

    def heal(self) -> None:
        """Bring back what a failed test left dead."""
        self._engines.start(Quiet())


def settings_for_tests(home: Path) -> EngineSettings:
    """Settings of engines that only this run knows: own home, own ports.

    Downloads go to the user's cache. Addresses and GATEBOOK_ENGINE in the environment hold.
    """
    given = EngineSettings.from_environment()
    kafka, controller, elasticsearch, transport = free_ports(4)
    return EngineSettings(
        engine=given.engine,
        kafka_bootstrap=given.kafka_bootstrap,
        elasticsearch_url=given.elasticsearch_url,
        cache_dir=given.cache_dir,
        maven_repository=given.maven_repository,
        home=home,
        kafka_port=kafka,
        kafka_controller_port=controller,
        elasticsearch_port=elasticsearch,
        elasticsearch_transport_port=transport,
    )


HOME_PREFIX = "gatebook-tests-"


def sweep_dead_runs() -> None:
    """Stop embedded engines of runs that were killed before they could stop them."""
    for home in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*"):
        owner = int(home.name.removeprefix(HOME_PREFIX).split("-")[0])
        if not psutil.pid_exists(owner):
            EmbeddedEngines(EngineSettings(home=home)).stop()
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def engines_home() -> Iterator[Path]:
    """Where this run's engines keep data and logs; gone after the run."""
    sweep_dead_runs()
    with tempfile.TemporaryDirectory(prefix=f"{HOME_PREFIX}{os.getpid()}-") as home:
        yield Path(home)


@pytest.fixture(scope="session")
def engines(engines_home: Path) -> Iterator[RunningEngines]:
    """One Kafka and one Elasticsearch for the whole run: at the addresses in the environment,
    else by testcontainers where Docker answers, else embedded with data in a temporary home."""
    chosen = choose_for_tests(settings_for_tests(engines_home))
    try:
        yield RunningEngines(chosen)
    finally:
        chosen.remove()


@pytest.fixture(scope="session")
def schema_registry(engines_home: Path) -> Iterator[str]:
    """URL of a real schema registry that speaks Confluent's protocol."""
    registry = SchemaRegistry(settings_for_tests(engines_home), port=free_ports(1)[0])
    try:
        yield registry.start(Quiet())
    finally:
        registry.stop()


@pytest.fixture
def namespace() -> str:
    """A name for this test's topics, indices and groups, such as `t1a2b3c4`."""
    return f"t{uuid.uuid4().hex[:7]}"


@pytest.fixture
def pipeline(engines: RunningEngines, namespace: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A namespace with topics and templates, in which a test starts workers."""
    running = Pipeline(engines, namespace, tmp_path)
    try:
        yield running
    finally:
        running.close()
