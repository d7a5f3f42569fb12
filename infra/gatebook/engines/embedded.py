"""The embedded engines: Kafka and Elasticsearch as plain processes of this user.

    from gatebook.engines.embedded import EmbeddedEngines
    endpoints = EmbeddedEngines(settings).start(Quiet())

They run in sessions of their own and outlive the command that started them. What runs is in
`home/engines/state.json`; logs are in `home/engines/logs`.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

from gatebook.engines import elasticsearch, jars, kafka, preflight, processes, state
from gatebook.engines.errors import DidNotStart
from gatebook.engines.processes import ProcessRecord
from gatebook.engines.progress import Progress, Quiet
from gatebook.engines.settings import (
    ENGINE_NAMES,
    LOOPBACK,
    Endpoints,
    EngineName,
    EngineSettings,
    EngineStatus,
    Status,
    variable,
)

JAR_GROUPS = ("kafka", "elasticsearch", "elasticsearch-transport")
_MODULES: dict[EngineName, ModuleType] = {"kafka": kafka, "elasticsearch": elasticsearch}
_PORTS: dict[EngineName, tuple[str, str]] = {
    "kafka": ("kafka_port", "kafka_controller_port"),
    "elasticsearch": ("elasticsearch_port", "elasticsearch_transport_port"),
}


class EmbeddedEngines:
    """The engines of one home."""

    kind = "embedded"

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def start(self, progress: Progress) -> Endpoints:
        """Download what is missing, start what does not run, wait until both answer."""
        with state.exclusive(self.settings.engines_dir):
            down = [name for name in ENGINE_NAMES if not self._alive(name)]
            if down:
                self._prepare(down, progress)
            for name in reversed(down):  # Elasticsearch takes longest, so it goes first
                progress.step(f"starting {name}")
                self._spawn(name)
            for name in ENGINE_NAMES:
                self._await(name)
        return self.endpoints()

    def stop(self) -> None:
        """Stop both with SIGTERM; with SIGKILL what does not stop in time."""
        with state.exclusive(self.settings.engines_dir):
            for record in self._records().values():
                processes.stop(record, self.settings.stop_timeout_seconds)
            state.write(self.settings.engines_dir, state.State())

    def status(self) -> Status:
        return Status(
            engine=self.kind,
            engines=tuple(self._status_of(name) for name in ENGINE_NAMES),
            best_compression_available=elasticsearch.zstd_library() is not None,
        )

    def start_one(self, name: EngineName) -> None:
        with state.exclusive(self.settings.engines_dir):
            if not self._alive(name):
                self._prepare([name], Quiet())
                self._spawn(name)
            self._await(name)

    def kill(self, name: EngineName) -> None:
        """SIGKILL; the record stays, so `status` says `stale` and a start begins anew."""
        processes.kill(self._records()[name])

    def remove(self) -> None:
        """Stop; the data is the home directory's, for the caller to delete."""
        self.stop()

    def endpoints(self) -> Endpoints:
        """Addresses of the recorded processes; says nothing about their health."""
        return Endpoints(
            engine=self.kind,
            kafka_bootstrap=self._address("kafka"),
            elasticsearch_url=self._address("elasticsearch"),
            best_compression_available=elasticsearch.zstd_library() is not None,
        )

    def _prepare(self, names: list[EngineName], progress: Progress) -> None:
        settings = self.settings
        for name in names:
            for field in _PORTS[name]:
                processes.require_free_port(getattr(settings, field), variable(field))
        preflight.require_disk(settings.home)
        preflight.require_memory()
        lock = jars.read_lock()
        groups = [lock.groups[name] for name in JAR_GROUPS]
        if any(jars.missing(group, settings.cache_dir) for group in groups):
            preflight.require_disk(settings.cache_dir)
            progress.step("downloading Kafka and Elasticsearch")
        jars.fetch(groups, settings.cache_dir, settings.maven_repository, progress)

    def _spawn(self, name: EngineName) -> None:
        record = _MODULES[name].start(self.settings)
        # If we die here, the process runs unrecorded: the next start finds its port taken and
        # says by which pid.
        recorded = self._records() | {name: record}
        state.write(self.settings.engines_dir, state.State(engine=self.kind, processes=recorded))

    def _await(self, name: EngineName) -> None:
        record = self._records()[name]

        def settled() -> bool:
            return _MODULES[name].answers(record.port) or not processes.alive(record)

        in_time = processes.wait_until(settled, self.settings.start_timeout_seconds)
        if not in_time or not processes.alive(record):
            raise _did_not_start(name, record, self.settings, in_time)

    def _status_of(self, name: EngineName) -> EngineStatus:
        record = self._records().get(name)
        address = self._address(name)
        if record is None:
            return EngineStatus(name=name, state="stopped", address=address)
        if not processes.alive(record):
            return EngineStatus(name=name, state="stale", address=address, log=record.log)
        return EngineStatus(
            name=name,
            state="running" if _MODULES[name].answers(record.port) else "unhealthy",
            address=address,
            pid=record.pid,
            uptime_seconds=round(time.time() - record.created_at, 1),
            log=record.log,
        )

    def _records(self) -> dict[str, ProcessRecord]:
        return state.read(self.settings.engines_dir).processes

    def _alive(self, name: EngineName) -> bool:
        record = self._records().get(name)
        return record is not None and processes.alive(record)

    def _address(self, name: EngineName) -> str:
        record = self._records().get(name)
        port = record.port if record else getattr(self.settings, _PORTS[name][0])
        scheme = "http://" if name == "elasticsearch" else ""
        return f"{scheme}{LOOPBACK}:{port}"


def _did_not_start(
    name: EngineName, record: ProcessRecord, settings: EngineSettings, in_time: bool
) -> DidNotStart:
    log = settings.logs_dir / f"{name}.log"
    what = "ended while starting" if in_time else "gave no answer in time"
    last = _last_line(log) or _last_line(Path(record.log)) or "its log is empty"
    return DidNotStart(
        f"{name} {what}. Last line of its log: {last}",
        f"read {log} and {record.log}; `gatebook doctor` checks the surroundings",
    )


def _last_line(log: Path) -> str | None:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return lines[-1] if lines else None
