"""Put a worker role together and run it, alone or with the others under a supervisor."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from prometheus_client import start_http_server

from gatebook.processors import logs
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.stages.base import Stage
from gatebook.processors.watchdog import Watchdog
from gatebook.schemas.confluent import wire_from_env
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import EVENT, topic_name
from gatebook.schemas.wire import WireFormat

if TYPE_CHECKING:
    from gatebook.processors.alerts.base import AlertTarget
    from gatebook.processors.enrich import Catalog

log = logging.getLogger(__name__)

ROLES = ("intake", "index", "detect", "notify")
RESTART_PAUSE_SECONDS = 1.0
METADATA_TIMEOUT_SECONDS = 30.0


def build_stage(role: str, settings: WorkerSettings, wire: WireFormat) -> Stage:
    """The stage of a role. Imports only what that role needs."""
    if role == "intake":
        from gatebook.processors.stages.intake import IntakeStage

        catalog = load_catalog(settings)
        return IntakeStage(settings, catalog, event_partitions(settings), wire)
    if role == "index":
        from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
        from gatebook.processors.sinks.settings import elasticsearch_settings, sink_settings
        from gatebook.processors.stages.index import IndexStage

        server = elasticsearch_settings(url=settings.elasticsearch_url)
        sink = ElasticsearchSink(settings.namespace, server, sink_settings())
        return IndexStage(settings, sink, wire)
    if role == "detect":
        from gatebook.processors.stages.detect import DetectStage

        return DetectStage(settings, wire)
    if role == "notify":
        from gatebook.processors.stages.notify import NotifyStage

        return NotifyStage(settings, alert_targets(), wire)
    raise Fatal(f"there is no worker role {role!r}", "use one of " + ", ".join(ROLES))


def load_catalog(settings: WorkerSettings) -> Catalog:
    """Directory and service catalogue from the configured files."""
    from gatebook.processors.enrich import Catalog, CatalogInvalid
    from gatebook.processors.redact import Pseudonyms

    pseudonyms = Pseudonyms(settings.redaction_key(), settings.redaction_epoch)
    directory = Path(settings.directory_file) if settings.directory_file else None
    services = Path(settings.services_file) if settings.services_file else None
    try:
        return Catalog.load(directory, services, lambda mail: pseudonyms.of("email", mail))
    except CatalogInvalid as error:
        raise Fatal(str(error), "correct the file, then start the worker again") from None


def alert_targets() -> Sequence[AlertTarget]:
    """The configured alert targets; none is allowed, findings are indexed all the same."""
    from gatebook.processors.alerts.alertmanager import AlertmanagerTarget
    from gatebook.processors.alerts.settings import load_alert_settings

    settings = load_alert_settings()
    return (AlertmanagerTarget(settings),) if settings.enabled else ()


def event_partitions(settings: WorkerSettings) -> int:
    """Number of partitions of the event topic, from the broker; waits for the broker."""
    topic = topic_name(settings.namespace, EVENT)
    admin = AdminClient(kafka_properties(settings.kafka_bootstrap))
    found = admin.list_topics(topic, timeout=METADATA_TIMEOUT_SECONDS).topics[topic]
    if found.error is not None or not found.partitions:
        raise Fatal(f"topic {topic} does not exist", "run `gatebook setup`")
    return len(found.partitions)


def run_role(role: str, settings: WorkerSettings) -> int:
    """Run one role in this process until it is told to stop; the exit code."""
    from gatebook.processors.app import RoleWorker, run

    logs.configure(settings.log_level)
    stage = build_stage(role, settings, wire_from_env(settings.namespace))
    worker = RoleWorker(role, stage, settings)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr="127.0.0.1")
    group = {"group.id": f"{settings.namespace}-{role}"}
    Watchdog(
        role,
        {**kafka_properties(settings.kafka_bootstrap), **group},
        worker.assigned,
        lambda: worker.busy,
        time.monotonic,
        settings.stall_seconds,
    ).start()
    return run(worker)


class Supervisor:
    """Runs roles as child processes and starts a dead one anew."""

    def __init__(self, roles: Sequence[str], settings: WorkerSettings) -> None:
        self._roles = roles
        self._settings = settings
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()

    def run(self) -> int:
        """Until SIGTERM or SIGINT; 0 where every child ended in time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        while not self._stopping.is_set():
            for index, role in enumerate(self._roles):
                self._keep_alive(role, index)
            self._stopping.wait(RESTART_PAUSE_SECONDS)
        return self._stop()

    def _keep_alive(self, role: str, index: int) -> None:
        child = self._children.get(role)
        if child is not None and child.poll() is None:
            return
        if child is not None:
            log.error("worker %s ended with %s; starting it anew", role, child.returncode)
        self._children[role] = subprocess.Popen(
            [sys.executable, "-m", "gatebook.processors.worker", role],
            env={**os.environ, **self._metrics_environment(index)},
            start_new_session=True,  # a Ctrl-C reaches the supervisor, which ends them in order
        )

    def _metrics_environment(self, index: int) -> dict[str, str]:
        port = self._settings.metrics_port
        return {"GATEBOOK_METRICS_PORT": str(port + index)} if port else {}

    def _stop(self) -> int:
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + self._settings.stop_deadline_seconds + 5
        codes = [_wait(child, deadline) for child in self._children.values()]
        return 0 if all(code == 0 for code in codes) else 1


def _wait(child: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        return child.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(arguments: Sequence[str]) -> int:
    """`python -m gatebook.processors.worker ROLE`: what the supervisor starts."""
    from gatebook.processors.config import from_env

    try:
        return run_role(arguments[0], from_env())
    except Fatal as error:
        log.critical("%s; %s", error, error.next_step)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
