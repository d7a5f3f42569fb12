"""How a start tells what it is doing. The command line draws it; tests stay quiet."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def step(self, message: str) -> None:
        """A new step begins, such as `starting Kafka`."""

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        """So much of what must be fetched is here; called often, from several threads."""


class Quiet:
    """Says nothing."""

    def step(self, message: str) -> None:
        pass

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        pass
