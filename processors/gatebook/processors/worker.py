"""Put a worker role together and run it, alone or with the others under a supervisor."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from gatebook.processors import logs
from gatebook.processors.broker import Broker
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.ending import Ending, end_with_parent
from gatebook.processors.stages.base import Stage
from gatebook.processors.watchdog import Watchdog
from gatebook.schemas.confluent import wire_from_env
from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.topics import EVENT, topic_name
from gatebook.schemas.wire import WireFormat

if TYPE_CHECKING:
    from gatebook.processors.alerts.plan import Plan
    from gatebook.processors.enrich import Catalog
    from gatebook.processors.reconcile import Reconciler

log = logging.getLogger(__name__)

ROLES = ("intake", "index", "detect", "notify")
RECONCILE = "reconcile"  # no role: it reads the index, not a topic
LOOK_SECONDS = 1.0
FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a worker that lived so long is started anew at once
SUPERVISED = "supervised"


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

        return NotifyStage(settings, alert_plan(settings), wire)
    raise Fatal(f"there is no worker role {role!r}", "use one of " + ", ".join(ROLES))


def check_roles(roles: Sequence[str], settings: WorkerSettings) -> None:
    """Read what each role reads at its start. Raises WrongSetting naming the first role that would
    refuse: a supervisor would start it anew for ever. Asks no server."""
    for role in roles:
        try:
            _check_role(role, settings)
        except Fatal as error:
            raise WrongSetting(f"worker {role}: {error}", error.next_step) from None


def _check_role(role: str, settings: WorkerSettings) -> None:
    if role == "intake":
        from gatebook.processors.stages.intake import redactor_of

        load_catalog(settings)
        redactor_of(settings)
    elif role == "detect":
        from gatebook.processors.stages.detect import DetectStage

        DetectStage(settings)  # reads its rules; opens nothing before it is started
    elif role == "notify":
        alert_plan(settings)
    elif role in ("index", RECONCILE):
        from gatebook.processors.sinks.connection import Connection
        from gatebook.processors.sinks.settings import elasticsearch_settings, sink_settings

        sink_settings()
        Connection(elasticsearch_settings(url=settings.elasticsearch_url))


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


def alert_plan(settings: WorkerSettings) -> Plan:
    """Alert targets, routes and noise control; no target is allowed, findings are indexed all the
    same."""
    from gatebook.processors.alerts.plan import load_plan

    return load_plan(kafka=kafka_properties(settings.kafka_bootstrap))


def event_partitions(settings: WorkerSettings) -> int:
    """Number of partitions of the event topic, from the broker; waits for the broker."""
    topic = topic_name(settings.namespace, EVENT)
    found = Broker(settings.kafka_bootstrap).topic(topic)
    if found.error is not None or not found.partitions:
        raise Fatal(f"topic {topic} does not exist", "run `gatebook setup`")
    return len(found.partitions)


def run_role(role: str, settings: WorkerSettings, supervised: bool = False) -> int:
    """Run one role in this process until it is told to stop; the exit code. `supervised`: stop
    too when standard input ends."""
    from gatebook.processors.app import RoleWorker, run

    logs.configure(settings.log_level)
    ending = Ending(settings.stop_deadline_seconds)  # before any thread, and before any wait
    if supervised:
        end_with_parent()
    if role == RECONCILE:
        return run_reconciler(settings, ending)
    stage = build_stage(role, settings, wire_from_env(settings.namespace))
    # After the settings were read, which need no broker to be wrong; before Faust, which does.
    Broker(settings.kafka_bootstrap).topic(topic_name(settings.namespace, EVENT))
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
    return run(worker, ending)


def make_reconciler(settings: WorkerSettings) -> Reconciler:
    """A reconciler over the configured engines; waits for the broker. Raises Fatal."""
    from gatebook.processors.reconcile import Reconciler
    from gatebook.processors.sinks.connection import Connection
    from gatebook.processors.sinks.settings import elasticsearch_settings

    connection = Connection(elasticsearch_settings(url=settings.elasticsearch_url))
    wire = wire_from_env(settings.namespace)
    return Reconciler(settings, connection, event_partitions(settings), wire)


def run_reconciler(settings: WorkerSettings, ending: Ending) -> int:
    """Reconcile in this process until it is told to stop; the exit code."""
    from gatebook.processors.reconcile import run_until

    async def run() -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        reconciler = make_reconciler(settings)

        def stop() -> None:
            reconciler.stop()
            loop.call_soon_threadsafe(stopping.set)

        ending.ask(stop)
        await run_until(stopping, reconciler, settings.reconcile_interval_seconds)

    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr="127.0.0.1")
    asyncio.run(run())
    return 0


class RestartPause:
    """How long to wait before a dead worker is started anew: longer each time it dies young."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def after(self, lived_seconds: float) -> float:
        """The pause, in seconds, after a worker that lived so long."""
        longer = min(max(2 * self._seconds, FIRST_RESTART_SECONDS), LAST_RESTART_SECONDS)
        self._seconds = 0.0 if lived_seconds >= STEADY_SECONDS else longer
        return self._seconds


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    started_at: float
    start_again_at: float = math.inf


class Supervisor:
    """Runs roles as child processes and starts a dead one anew. Children that outlive it end by
    themselves: they hold the other end of a pipe. commands: how roles are started that are none
    of `run_role`."""

    def __init__(
        self,
        roles: Sequence[str],
        settings: WorkerSettings,
        commands: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._roles = roles
        self._commands = commands or {}
        self._settings = settings
        self._children: dict[str, _Child] = {}
        self._pauses = {role: RestartPause() for role in roles}
        self._stopping = threading.Event()

    def run(self) -> int:
        """Until SIGTERM or SIGINT; 0 where every child ended in good order and in time. A second
        signal kills the children."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._on_signal())
        while not self._stopping.is_set():
            for index, role in enumerate(self._roles):
                self._keep_alive(role, index)
            self._stopping.wait(LOOK_SECONDS)
        return self._stop()

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            for child in self._children.values():
                child.process.kill()
        self._stopping.set()

    def _keep_alive(self, role: str, index: int) -> None:
        child, now = self._children.get(role), time.monotonic()
        if child is not None and child.process.poll() is None:
            return
        if child is not None and child.start_again_at == math.inf:
            pause = self._pauses[role].after(now - child.started_at)
            child.start_again_at = now + pause
            code = child.process.returncode
            log.error("worker %s ended with %s; starting it anew in %.0f s", role, code, pause)
        if child is None or now >= child.start_again_at:
            self._children[role] = _Child(self._start(role, index), now)

    def _start(self, role: str, index: int) -> subprocess.Popen[bytes]:
        worker = (sys.executable, "-m", "gatebook.processors.worker", role, SUPERVISED)
        return subprocess.Popen(
            self._commands.get(role, worker),
            env={**os.environ, **self._metrics_environment(index)},
            stdin=subprocess.PIPE,  # closed when we die, however we die
            start_new_session=True,  # a Ctrl-C reaches the supervisor, which ends them in order
        )

    def _metrics_environment(self, index: int) -> dict[str, str]:
        port = self._settings.metrics_port
        return {"GATEBOOK_METRICS_PORT": str(port + index)} if port else {}

    def _stop(self) -> int:
        children = [child.process for child in self._children.values()]
        for child in children:
            child.terminate()
        deadline = time.monotonic() + self._settings.stop_deadline_seconds + 5
        codes = [_wait(child, deadline) for child in children]
        return 0 if all(code == 0 for code in codes) else 1


def _wait(child: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        return child.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(arguments: Sequence[str]) -> int:
    """`python -m gatebook.processors.worker ROLE supervised`: what the supervisor starts."""
    from gatebook.processors.app import EXIT_FAILED
    from gatebook.processors.config import from_env

    try:
        return run_role(arguments[0], from_env(), SUPERVISED in arguments)
    except Fatal as error:
        log.critical("%s; %s", error, error.next_step)
        return 1
    except Exception as error:
        log.critical("the worker failed: %s", type(error).__name__)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
