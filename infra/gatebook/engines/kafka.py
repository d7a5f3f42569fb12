"""One Kafka broker on loopback: KRaft mode, broker and controller in one process."""

from __future__ import annotations

import logging
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatebook.engines import jars, java
from gatebook.engines.errors import BadSetting, DidNotStart
from gatebook.engines.processes import ProcessRecord, spawn
from gatebook.engines.settings import LOOPBACK, EngineSettings
from gatebook.schemas.kafka_trouble import Trouble, explain

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_POLL_SECONDS = 0.1

# The same in every kind of engine we start (compose.yaml carries them as KAFKA_* variables).
BROKER_SETTINGS: dict[str, str] = {
    # A topic exists because the setup made it with its owner's settings, never by a typo.
    "auto.create.topics.enable": "false",
    # One broker, so one replica of Kafka's own topics.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "5",
    # The first consumer of a group need not wait for others to join.
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker may register again only when its old session is over: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "message.max.bytes": "8388608",
    "replica.fetch.max.bytes": "8388608",
}
# What is appended survives SIGKILL of the broker (the pages are the kernel's by then), not a
# power loss: for that a production cluster has replicas.


def server_properties(settings: EngineSettings, data_dir: Path) -> dict[str, str]:
    """The broker's whole configuration."""
    client = f"{LOOPBACK}:{settings.kafka_port}"
    controller = f"{LOOPBACK}:{settings.kafka_controller_port}"
    return BROKER_SETTINGS | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{client}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def start(
    settings: EngineSettings,
    properties: Mapping[str, str] | None = None,
    format_arguments: Sequence[str] = (),
) -> ProcessRecord:
    """Start the broker's process on its data, made ready first; it does not answer yet.

    `properties` go over ours (listeners with TLS and the like); `format_arguments` to the tool
    that makes the data ready, once (users with --add-scram).
    """
    directory = settings.engines_dir / "kafka"
    data_dir, temporary_dir = directory / "data", directory / "tmp"
    for one in (data_dir, temporary_dir, settings.logs_dir):
        one.mkdir(parents=True, exist_ok=True)
    configuration = directory / "server.properties"
    configuration.write_text(
        _as_properties({**server_properties(settings, data_dir), **(properties or {})})
    )
    logging_configuration = directory / "log4j2.xml"
    logging_configuration.write_text(LOG4J.format(log=settings.logs_dir / "kafka.log"))
    base = _java_command(settings, temporary_dir, logging_configuration)
    _format_once(base, configuration, data_dir, format_arguments)
    return spawn(
        [*base, "kafka.Kafka", str(configuration)],
        directory=directory,
        log=settings.logs_dir / "kafka.out",
        environment=java.clean_environment(),
        port=settings.kafka_port,
    )


def answers(port: int) -> bool:
    """Whether the broker on `port` tells a client about itself."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False  # asking librdkafka only now keeps its retries out of the log
    return metadata_topics(f"{LOOPBACK}:{port}") is not None


def metadata_topics(
    bootstrap: str, properties: Mapping[str, str] | None = None, timeout_seconds: float = 5.0
) -> dict[str, int] | None:
    """Partition counts by topic, or None where no broker lets us in within the time.

    `properties` are librdkafka's, for brokers that ask for a login.
    """
    from confluent_kafka import KafkaException

    try:
        metadata = admin_client(bootstrap, properties).list_topics(timeout=timeout_seconds)
    except KafkaException:
        return None
    counts = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
    return counts if metadata.brokers else None


def trouble(
    bootstrap: str, properties: Mapping[str, str] | None = None, timeout_seconds: float = 5.0
) -> Trouble | None:
    """Why a broker that gives us no metadata does not; None where nothing was said in time."""
    from confluent_kafka import KafkaError

    told: list[KafkaError] = []
    client = admin_client(bootstrap, {**(properties or {}), "error_cb": told.append})
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        client.poll(_POLL_SECONDS)
        # That all brokers are down is no reason; the error beside it is.
        if reasons := [one for one in told if one.code() != KafkaError._ALL_BROKERS_DOWN]:
            return explain(reasons[0].name(), reasons[0].str(), properties or {})
    return None


def admin_client(bootstrap: str, properties: Mapping[str, Any] | None = None) -> AdminClient:
    """A client that keeps librdkafka's own lines out of the log; BadSetting for properties that
    librdkafka does not take."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    settings: dict[str, Any] = {**(properties or {}), "bootstrap.servers": bootstrap}
    try:
        return AdminClient(settings, logger=quiet_logger())
    except KafkaException as error:
        # Its text may quote a value, so it is not passed on.
        raise BadSetting(
            f"librdkafka refuses one of these properties: {', '.join(sorted(properties or {}))}.",
            "correct or unset the GATEBOOK_KAFKA_* variable of that name",
        ) from error


def quiet_logger() -> logging.Logger:
    """Where librdkafka's own lines are forgotten: what matters of them reaches us as errors."""
    quiet = logging.getLogger("gatebook.engines.kafka.client")
    quiet.disabled = True
    return quiet


def _java_command(settings: EngineSettings, temporary_dir: Path, log4j: Path) -> list[str]:
    class_path = jars.jar_paths(jars.read_lock().groups["kafka"], settings.cache_dir)
    options = java.common_options(
        settings.kafka_heap_mib, temporary_dir, settings.logs_dir, "kafka"
    )
    return [
        str(java.java()),
        *options,
        f"-Dlog4j2.configurationFile={log4j.as_uri()}",
        "--enable-native-access=ALL-UNNAMED",  # its compression libraries are native
        "-cp",
        ":".join(str(path) for path in class_path),
    ]


def _format_once(base: list[str], configuration: Path, data_dir: Path, more: Sequence[str]) -> None:
    """Give an empty data directory its identity.

    If we die here, the next start formats again: `--ignore-formatted` keeps what is there.
    """
    if (data_dir / "meta.properties").exists():
        return
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted"]
    # `=`: an id may begin with a dash
    command = [*base, *tool, f"--cluster-id={cluster_id}", "-c", str(configuration), *more]
    done = subprocess.run(
        command, env=java.clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise DidNotStart(
            f"Kafka could not prepare {data_dir}: {lines[-1]}",
            "check that the directory is writable, or start with an empty GATEBOOK_HOME",
        )


def _as_properties(settings: dict[str, str]) -> str:
    # Backslash is the format's escape character.
    lines = (f"{key}={value}".replace("\\", "\\\\") for key, value in sorted(settings.items()))
    return "\n".join(lines) + "\n"


LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="file" fileName="{log}" filePattern="{log}.%i">
      <PatternLayout pattern="[%d{{ISO8601}}] %p %m (%c)%n"/>
      <SizeBasedTriggeringPolicy size="10 MB"/>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="file"/></Root>
    <Logger name="org.apache.kafka" level="WARN"/>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
"""
