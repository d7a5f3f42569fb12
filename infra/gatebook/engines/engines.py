"""What every kind of engines can do; `selection` chooses one kind."""

from __future__ import annotations

from typing import Protocol

from gatebook.engines.progress import Progress
from gatebook.engines.settings import Endpoints, EngineName, Status


class Engines(Protocol):
    """One Kafka and one Elasticsearch, whoever runs them."""

    kind: str

    def start(self, progress: Progress) -> Endpoints:
        """Start what does not run yet and wait until it answers; an EngineError if it cannot."""

    def stop(self) -> None:
        """Stop in order; data stays. Returns when the engines are gone."""

    def status(self) -> Status:
        """How the engines are now. Asking changes nothing."""

    def start_one(self, name: EngineName) -> None:
        """Start one engine on its old port and data, and wait until it answers."""

    def kill(self, name: EngineName) -> None:
        """SIGKILL one engine: for tests of what survives."""

    def remove(self) -> None:
        """Stop and take away everything that was started, data too: for test runs.

        Embedded engines only stop: their data goes with the home directory.
        """
