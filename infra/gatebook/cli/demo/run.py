"""`gatebook demo`: the whole way on real input, from a model server to the index and the alerts.

model server (llama.cpp) <- gateway + middleware <- openai client
                               |
          Kafka -> intake -> Kafka -> index -> Elasticsearch
                                 `-> detect -> notify -> alert receiver
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gatebook import engines
from gatebook.cli.demo import picture as pictures
from gatebook.cli.demo.alert_receiver import AlertReceiver
from gatebook.cli.demo.model_file import write_model
from gatebook.cli.demo.model_server import ModelServer
from gatebook.cli.demo.scenario import API_KEYS, ScenarioReport, StepResult, run_scenario
from gatebook.engines.settings import EngineSettings
from gatebook.processors.config import WorkerSettings
from gatebook.processors.setup import setup
from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity import key_id
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import KeyFiles
from gatebook.schemas.topics import (
    ACCESS,
    ALERT,
    DEAD_LETTER,
    EVENT,
    FINDING,
    topic_name,
)

SETTLE_TIMEOUT_SECONDS = 90.0
START_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1
# Which topics each consumer group has to have read to the end before the demo counts.
GROUPS = {
    "intake": (ACCESS,),
    "detect": (EVENT,),
    "notify": (FINDING,),
    "index": (EVENT, FINDING, DEAD_LETTER, ALERT),
}


class Narrator(Protocol):
    """Tells a person what is happening; engines.progress.Progress and a little more."""

    def step(self, message: str) -> None:
        """A new step begins."""

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        """So much of a download is here."""

    def request(self, result: StepResult) -> None:
        """A step of the scenario is over."""


@dataclass
class DemoReport:
    """What the demo did and found. The first seven fields are what --json promises."""

    emitted: int = 0
    acknowledged: int = 0
    indexed: int = 0
    dead_lettered: int = 0
    findings: int = 0
    alerts: int = 0
    elapsed_seconds: float = 0.0
    dropped: int = 0
    requests_sent: int = 0
    producer_id: str = ""
    tenant: str = ""
    started_at: str = ""
    namespace: str = ""
    exports: dict[str, str] = field(default_factory=dict)
    secrets_found: dict[str, int] = field(default_factory=dict)
    unexpected_steps: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every access is accounted for, and no planted secret is in the index."""
        return not self.problems

    def judge(self) -> None:
        """Write down everything that is not as promised."""
        if self.emitted != self.indexed + self.dead_lettered:
            self.problems.append(
                f"emitted {self.emitted} is not indexed {self.indexed} + "
                f"dead-lettered {self.dead_lettered}"
            )
        if self.emitted != self.requests_sent:
            self.problems.append(
                f"{self.requests_sent} requests were sent but {self.emitted} events emitted"
            )
        if self.dropped:
            self.problems.append(f"{self.dropped} events were dropped")
        if self.secrets_found:
            kinds = ", ".join(sorted(self.secrets_found))
            self.problems.append(f"planted secrets stand in the index: {kinds}")
        if self.unexpected_steps:
            self.problems.append("unexpected answers: " + "; ".join(self.unexpected_steps))
        if not self.findings or not self.alerts:
            self.problems.append("the planted incidents raised no finding or no alert")

    def as_json(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {**asdict(self), "ok": self.ok}


def run_demo(narrator: Narrator, scale: int = 1) -> tuple[DemoReport, pictures.Picture]:
    """Run the demo once; engines stay up afterwards, so that one can look around."""
    started = time.monotonic()
    settings = EngineSettings.from_environment()
    narrator.step("starting Kafka and Elasticsearch")
    endpoints = engines.start(settings, narrator)
    namespace = _free_namespace(endpoints.kafka_bootstrap, narrator)
    narrator.step("creating topics and index templates")
    setup(endpoints.kafka_bootstrap, endpoints.elasticsearch_url, namespace)
    now = time.time_ns()
    # A tenant of its own: what earlier runs taught the detectors is about other people.
    report = DemoReport(
        namespace=namespace,
        exports=_exports(endpoints, namespace),
        producer_id=f"demo-{now:x}",
        tenant=f"demo-{now // 10**9:x}",
        started_at=timestamp_text(now),
    )
    KeyFiles.in_folder(settings.home / "keys").ensure()  # what the service seals, intake opens
    environment = _environment(endpoints, settings, report)
    with ExitStack() as stack:
        workdir = settings.home / "demo"
        workdir.mkdir(parents=True, exist_ok=True)
        receiver = stack.enter_context(AlertReceiver())
        environment["GATEBOOK_ALERTMANAGER_URL"] = receiver.url
        narrator.step("starting the workers: intake, index, detect, notify")
        # Named, so that a retention policy that happens to be in the home deletes nothing here.
        worker = ["worker", "--roles", ",".join(GROUPS)]
        stack.enter_context(_process(worker, environment, workdir / "worker.log"))
        scenario = _drive(narrator, environment, workdir, scale, report)
        narrator.step("waiting until all of it is indexed")
        _wait_until_read(endpoints.kafka_bootstrap, namespace)
        report.alerts = len(receiver.alerts)
        picture = pictures.look(
            endpoints.elasticsearch_url, namespace, report.producer_id, report.started_at
        )
    _fill(report, picture, scenario)
    report.elapsed_seconds = round(time.monotonic() - started, 1)
    report.judge()
    return report, picture


def _exports(endpoints: Any, namespace: str) -> dict[str, str]:
    """What other commands must be told to look at the same place: nothing, with the defaults."""
    usual = WorkerSettings()
    given = {**endpoints.as_environment(), "GATEBOOK_NAMESPACE": namespace}
    default = {
        "GATEBOOK_KAFKA_BOOTSTRAP": usual.kafka_bootstrap,
        "GATEBOOK_ELASTICSEARCH_URL": usual.elasticsearch_url,
        "GATEBOOK_NAMESPACE": usual.namespace,
    }
    changed = any(os.environ.get(k, default[k]) != v for k, v in given.items())
    return given if changed else {}


def _free_namespace(bootstrap: str, narrator: Narrator) -> str:
    """The configured namespace; one of its own where workers run in that one already, since they
    would take part of the demo's work and send its alerts elsewhere."""
    wanted = os.environ.get("GATEBOOK_NAMESPACE") or "gatebook"
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    groups = [f"{wanted}-{role}" for role in GROUPS]
    try:
        found = admin.describe_consumer_groups(groups, request_timeout=10)
        busy = any(future.result(10).members for future in found.values())
    except KafkaException:
        busy = False  # a broker that never had a group
    if not busy:
        return wanted
    own = f"demo{time.time_ns() // 10**9:x}"
    narrator.step(f"workers run in namespace {wanted}: the demo takes {own}")
    return own


def _environment(endpoints: Any, settings: EngineSettings, report: DemoReport) -> dict[str, str]:
    """What the service and the workers are told."""
    return {
        **os.environ,
        **endpoints.as_environment(),
        "GATEBOOK_HOME": str(settings.home),
        "GATEBOOK_NAMESPACE": report.namespace,
        "GATEBOOK_PRODUCER_ID": report.producer_id,
        "GATEBOOK_SERVICE_NAME": "demo-slm",
        "GATEBOOK_PROVIDER_NAME": "llama_cpp",
        "GATEBOOK_CAPTURE_LEVEL": "redacted",
        "GATEBOOK_ALERT_ALLOW_PRIVATE": "true",
        "GATEBOOK_LOG_LEVEL": "WARNING",
    }


def _drive(
    narrator: Narrator,
    environment: dict[str, str],
    workdir: Path,
    scale: int,
    report: DemoReport,
) -> ScenarioReport:
    """Start model server and service, send the requests, stop both; counters into the report."""
    narrator.step("starting a llama.cpp model server")
    model = workdir / "demo.gguf"
    write_model(model)
    keys_file = workdir / "identities.toml"
    keys_file.write_text(identities(environment, report.tenant))
    environment = {**environment, "GATEBOOK_IDENTITY_KEYS_FILE": str(keys_file)}
    with (
        ModelServer(model, list(API_KEYS.values())) as server,
        _service(server.url, environment, workdir / "service.log") as (url, process),
    ):
        narrator.step("sending requests")
        scenario = run_scenario(url, scale, narrator.request)
        narrator.step("flushing the producer")
        counters = _stop_and_read(process)
    report.emitted = counters["emitted"]
    report.acknowledged = counters["acknowledged"]
    report.dropped = counters["dropped"]
    return scenario


def identities(environment: Mapping[str, str], tenant: str) -> str:
    """The identity keys file: who holds which of the demo's API keys, by keyed digest."""
    secret = ProducerSettings.from_env(environment).digest_secret()
    tables = [
        f'[keys.{key_id(secret, key)}]\nuser_id = "{user}"\norganization_id = "{tenant}"\n'
        for user, key in API_KEYS.items()
    ]
    return "\n".join(tables)


def _fill(report: DemoReport, picture: pictures.Picture, scenario: ScenarioReport) -> None:
    report.indexed = picture.indexed
    report.dead_lettered = picture.dead_lettered
    report.findings = len(picture.findings)
    report.secrets_found = picture.secrets_found
    report.requests_sent = scenario.requests_sent
    report.unexpected_steps = [
        f"{step.name}: expected {step.expected}, observed {step.observed}"
        for step in scenario.steps
        if not step.ok
    ]


@contextmanager
def _process(
    arguments: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`gatebook ARGUMENTS` as a child, stopped on the way out; its log says what it did."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "gatebook.cli.main", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield child
            if child.poll() is not None:
                raise Fatal(f"`gatebook {' '.join(arguments)}` ended early", f"read {log}")
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes], timeout_seconds: float = 40.0) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def _service(
    upstream: str, environment: Mapping[str, str], log: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The demo's model service as a child; its URL, once it listens."""
    port = _free_port()
    command = [sys.executable, "-m", "gatebook.cli.demo.service"]
    command += ["--upstream", upstream, "--port", str(port)]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
        try:
            _await(f"the demo service (see {log})", lambda: _listens(port, child))
            yield f"http://127.0.0.1:{port}", child
        finally:
            _stop(child)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int, child: subprocess.Popen[bytes]) -> bool:
    if child.poll() is not None:
        raise Fatal("the demo service ended while starting", "read demo/service.log in the home")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop_and_read(child: subprocess.Popen[bytes]) -> dict[str, int]:
    """Stop the service; the counters it prints when it has flushed."""
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=START_TIMEOUT_SECONDS)
    lines = output.decode().splitlines()
    if not lines:
        raise Fatal("the demo service reported no counters", "read demo/service.log in the home")
    counters: dict[str, int] = json.loads(lines[-1])
    return counters


def _await(what: str, condition: Callable[[], bool], timeout_seconds: float | None = None) -> None:
    deadline = time.monotonic() + (timeout_seconds or START_TIMEOUT_SECONDS)
    while not condition():
        if time.monotonic() > deadline:
            raise Fatal(f"waited too long for {what}", "run `gatebook doctor`")
        time.sleep(POLL_SECONDS)


def _wait_until_read(bootstrap: str, namespace: str) -> None:
    """Until every group has committed the end of each of its topics: nothing is under way."""
    # One after the other, because each group writes what the next one reads.
    for role, keys in GROUPS.items():
        group = f"{namespace}-{role}"
        # A consumer that never subscribes: it asks for the group's offsets without joining it.
        asker = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        topics = [topic_name(namespace, key) for key in keys]
        try:
            _await(
                f"worker {role} to read {', '.join(topics)}",
                partial(_is_read, asker, topics),
                SETTLE_TIMEOUT_SECONDS,
            )
        finally:
            asker.close()


def _is_read(asker: Consumer, topics: list[str]) -> bool:
    try:
        return all(_is_topic_read(asker, topic) for topic in topics)
    except KafkaException:
        return False  # the group or the broker is not there yet


def _is_topic_read(asker: Consumer, topic: str) -> bool:
    numbers = asker.list_topics(topic, timeout=5).topics[topic].partitions
    parts = [TopicPartition(topic, number) for number in numbers]
    ends = [asker.get_watermark_offsets(part, timeout=5)[1] for part in parts]
    committed = [part.offset for part in asker.committed(parts, timeout=5)]
    return all(max(0, at) >= end for at, end in zip(committed, ends, strict=True))
