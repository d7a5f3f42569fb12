"""Which engines to use: addresses given, else Docker, else embedded. Never none at all.

`gatebook up`, the other commands and the fixture of the tests all choose here.
"""

from __future__ import annotations

import msgspec

from gatebook.engines import state
from gatebook.engines.containers import DockerEngines, docker_answers, no_docker
from gatebook.engines.embedded import EmbeddedEngines
from gatebook.engines.engines import Engines
from gatebook.engines.external import ExternalEngines
from gatebook.engines.progress import Progress, Quiet
from gatebook.engines.settings import Endpoints, EngineSettings, Status


def choose(settings: EngineSettings) -> Engines:
    """The engines that `settings.engine` asks for; an EngineError where they cannot be had."""
    if settings.engine == "external":
        return ExternalEngines(settings)
    if settings.engine == "embedded":
        return EmbeddedEngines(settings)
    if settings.engine == "docker":
        if not docker_answers():
            raise no_docker()
        return DockerEngines(settings)
    if settings.kafka_bootstrap:
        return ExternalEngines(settings)
    return DockerEngines(settings) if docker_answers() else EmbeddedEngines(settings)


def current(settings: EngineSettings) -> Engines:
    """The engines that were started in this home; where none were, those `choose` names.

    Keeps `down` and `status` with what `up` started, even if Docker came or went since.
    """
    recorded = state.read(settings.engines_dir)
    if recorded.engine == "embedded":
        return EmbeddedEngines(settings)
    if recorded.engine == "docker":
        return DockerEngines(settings)
    return choose(settings)


def start(settings: EngineSettings, progress: Progress | None = None) -> Endpoints:
    """Start both engines, or find them running, and wait until they answer.

    Returns their addresses. That says nothing about topics and indices: the setup makes those.
    Raises an EngineError with what to do next.
    """
    return _to_start(settings).start(progress or Quiet())


def stop(settings: EngineSettings) -> None:
    """Stop what `start` started in this home; data stays. Nothing running is no error."""
    current(settings).stop()


def status(settings: EngineSettings) -> Status:
    """How the engines are now that the workers and producers of this environment would use.

    Addresses given go before what was started in this home: whoever looks at the engines of
    production must not be shown those of an `up` of last week.
    """
    own = current(settings)
    if settings.engine != "auto" or not settings.kafka_bootstrap or own.kind == "external":
        return own.status()
    found = own.status()
    given = {settings.kafka_bootstrap, (settings.elasticsearch_url or "").rstrip("/")}
    if given == {one.address for one in found.engines}:
        return found  # the same engines, and here we know their processes and logs too
    return ExternalEngines(settings).status()


def _to_start(settings: EngineSettings) -> Engines:
    if settings.engine == "auto" and not settings.kafka_bootstrap:
        return current(settings)
    return choose(settings)


def with_engine(settings: EngineSettings, engine: str | None) -> EngineSettings:
    """The same settings with another kind of engine, where one is named."""
    return msgspec.structs.replace(settings, engine=engine) if engine else settings
