"""A schema registry for tests: Apicurio, which speaks the Confluent protocol. In memory only."""

from __future__ import annotations

import shutil
import tarfile
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from gatebook.engines import jars, java, processes
from gatebook.engines.errors import DidNotStart
from gatebook.engines.processes import ProcessRecord
from gatebook.engines.progress import Progress
from gatebook.engines.settings import LOOPBACK, EngineSettings

HEAP_MIB = 512
API_PATH = "/apis/ccompat/v7"


class SchemaRegistry:
    """One registry process; what it stores is gone when it stops."""

    def __init__(self, settings: EngineSettings, port: int) -> None:
        self.settings = settings
        self.port = port
        self._record: ProcessRecord | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}{API_PATH}"

    def start(self, progress: Progress) -> str:
        """Fetch, unpack and start it; returns its URL when it answers."""
        directory = self._unpack(progress)
        self._record = processes.spawn(
            self._command(directory),
            directory=directory,
            log=self.settings.logs_dir / "registry.out",
            environment=java.clean_environment(),
            port=self.port,
        )
        self._await(self._record)
        return self.url

    def stop(self) -> None:
        if self._record is not None:
            processes.stop(self._record, self.settings.stop_timeout_seconds)

    def _unpack(self, progress: Progress) -> Path:
        group = jars.read_lock().groups["apicurio"]
        jars.fetch([group], self.settings.cache_dir, self.settings.maven_repository, progress)
        directory = self.settings.engines_dir / "registry"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (archive,) = jars.jar_paths(group, self.settings.cache_dir)
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        return directory

    def _command(self, directory: Path) -> list[str]:
        temporary_dir = directory / "tmp"
        temporary_dir.mkdir()
        options = java.common_options(HEAP_MIB, temporary_dir, self.settings.logs_dir, "registry")
        (runner,) = directory.glob("**/*-runner.jar")
        return [
            str(java.java()),
            *options,
            f"-Dquarkus.http.host={LOOPBACK}",
            f"-Dquarkus.http.port={self.port}",
            "-jar",
            str(runner),
        ]

    def _await(self, record: ProcessRecord) -> None:
        def settled() -> bool:
            return self._answers() or not processes.alive(record)

        in_time = processes.wait_until(settled, self.settings.start_timeout_seconds)
        if not in_time or not processes.alive(record):
            raise DidNotStart("The schema registry did not start.", f"read {record.log}")

    def _answers(self) -> bool:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", f"{API_PATH}/subjects")
            with connection.getresponse() as response:
                return response.status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
