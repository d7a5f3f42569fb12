"""Engines that somebody else runs, named by address: we look at them and never change them."""

from __future__ import annotations

from typing import NoReturn

from gatebook.engines import http, kafka
from gatebook.engines.errors import BadSetting, NotOurs, NotRunning
from gatebook.engines.progress import Progress
from gatebook.engines.settings import (
    BOTH_OR_NONE,
    Endpoints,
    EngineName,
    EngineSettings,
    EngineStatus,
    Status,
)

ADDRESS_OF: dict[EngineName, str] = {
    "kafka": "GATEBOOK_KAFKA_BOOTSTRAP",
    "elasticsearch": "GATEBOOK_ELASTICSEARCH_URL",
}


class ExternalEngines:
    kind = "external"

    def __init__(self, settings: EngineSettings) -> None:
        if not settings.kafka_bootstrap or not settings.elasticsearch_url:
            raise BadSetting("No addresses of external engines are given.", BOTH_OR_NONE)
        self.bootstrap = settings.kafka_bootstrap
        self.url = settings.elasticsearch_url.rstrip("/")
        self._settings = settings

    def start(self, progress: Progress) -> Endpoints:
        """Start nothing; NotRunning where an address gives no answer."""
        progress.step("looking for the engines at the addresses given")
        for one in self.status().engines:
            if one.state != "running":
                raise NotRunning(
                    f"{one.name} does not answer at {one.address}.",
                    f"start it, or correct {ADDRESS_OF[one.name]} and the login beside it, or "
                    "unset both addresses to let Gatebook start its own engines",
                )
        return Endpoints(
            engine=self.kind, kafka_bootstrap=self.bootstrap, elasticsearch_url=self.url
        )

    def stop(self) -> None:
        """Nothing to stop: they are not ours."""

    def remove(self) -> None:
        """Nothing to take away."""

    def status(self) -> Status:
        properties = self._settings.kafka_properties
        topics = kafka.metadata_topics(self.bootstrap, properties)
        health = cluster_health(self.url, self._settings)
        answers: dict[EngineName, tuple[str, bool]] = {
            "kafka": (self.bootstrap, topics is not None),
            # One that asks for a password is there too: the doctor tells that apart.
            "elasticsearch": (self.url, health is not None),
        }
        return Status(
            engine=self.kind,
            engines=tuple(
                EngineStatus(name=name, address=address, state="running" if up else "stopped")
                for name, (address, up) in answers.items()
            ),
        )

    def start_one(self, name: EngineName) -> None:
        self._refuse("start", name)

    def kill(self, name: EngineName) -> None:
        self._refuse("kill", name)

    def _refuse(self, verb: str, name: EngineName) -> NoReturn:
        raise NotOurs(
            f"Gatebook will not {verb} {name}: its address was given, somebody else runs it.",
            "unset GATEBOOK_KAFKA_BOOTSTRAP and GATEBOOK_ELASTICSEARCH_URL to have engines of "
            "your own",
        )


def cluster_health(url: str, login: EngineSettings | None = None) -> str | None:
    """green, yellow or red; `refused` where our credentials are not taken, `unreadable` where they
    do not reach so far; None for no answer."""
    answer = http.get(url, "/_cluster/health", login)
    if answer is None:
        return None
    if answer.status in (401, 403):
        return "refused" if answer.status == 401 else "unreadable"
    colour = answer.body.get("status") if isinstance(answer.body, dict) else None
    return str(colour) if colour else None
