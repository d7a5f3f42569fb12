"""Engines that somebody else runs, named by address: we look at them and never change them."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from gatebook.engines import kafka
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


class ExternalEngines:
    kind = "external"

    def __init__(self, settings: EngineSettings) -> None:
        if not settings.kafka_bootstrap or not settings.elasticsearch_url:
            raise BadSetting("No addresses of external engines are given.", BOTH_OR_NONE)
        self.bootstrap = settings.kafka_bootstrap
        self.url = settings.elasticsearch_url.rstrip("/")

    def start(self, progress: Progress) -> Endpoints:
        """Start nothing; NotRunning where an address gives no answer."""
        progress.step("looking for the engines at the addresses given")
        for one in self.status().engines:
            if one.state != "running":
                raise NotRunning(
                    f"{one.name} does not answer at {one.address}.",
                    "start it, or correct the GATEBOOK_* address, or unset both addresses to "
                    "let Gatebook start its own engines",
                )
        return Endpoints(
            engine=self.kind, kafka_bootstrap=self.bootstrap, elasticsearch_url=self.url
        )

    def stop(self) -> None:
        """Nothing to stop: they are not ours."""

    def remove(self) -> None:
        """Nothing to take away."""

    def status(self) -> Status:
        kafka_answers = kafka.metadata_topics(self.bootstrap) is not None
        answers: dict[EngineName, tuple[str, bool]] = {
            "kafka": (self.bootstrap, kafka_answers),
            "elasticsearch": (self.url, elasticsearch_answers(self.url)),
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


def elasticsearch_answers(url: str) -> bool:
    """Whether an Elasticsearch is there; one that asks for a password is there too."""
    return cluster_health(url) is not None


def cluster_health(url: str, timeout_seconds: float = 5.0) -> str | None:
    """green, yellow, red; `unreadable` where we lack the rights to ask; None for no answer."""
    if not url.startswith(("http://", "https://")):
        raise BadSetting("GATEBOOK_ELASTICSEARCH_URL is no http(s) URL.", "correct it")
    request = Request(f"{url}/_cluster/health")  # noqa: S310 - the scheme is checked above
    try:
        with urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310 - as above
            return str(json.loads(response.read())["status"])
    except HTTPError as error:
        return "unreadable" if error.code in {401, 403} else None
    except (OSError, HTTPException, ValueError, KeyError):
        return None
