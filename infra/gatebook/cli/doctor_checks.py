"""What `gatebook doctor` looks at beside the engines: settings of every part, and the spools."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatebook.cli.alert_checks import check_alert_targets
from gatebook.cli.key_file_checks import check_key_files
from gatebook.cli.sealing_checks import check_sealing
from gatebook.engines.check import Check
from gatebook.schemas.errors import Fatal

# A producer that works acknowledges within a second; a broker's restart takes some.
STUCK_SECONDS = 60.0


def check_surroundings(kafka_answers: bool = True) -> Iterator[Check]:
    """All rows, for the environment of this process. Changes nothing."""
    yield from check_settings()
    yield from check_variables()
    yield from check_alert_targets()
    yield from check_sealing()
    yield from check_key_files()
    yield from check_spools(kafka_answers)


def check_settings() -> Iterator[Check]:
    """Whether each part would take the settings that stand in this environment."""
    for part, load in (("producer", _producer), ("worker", _worker), ("alerts", _alerts)):
        try:
            load()
        except Fatal as error:
            yield Check(
                name=f"settings {part}",
                verdict="fail",
                detail=str(error),
                next_step=error.next_step,
            )
        except ModuleNotFoundError:
            continue  # that part is not on this machine; the row of its extra says so
        else:
            yield Check(name=f"settings {part}", verdict="ok", detail="valid")


def check_variables() -> Iterator[Check]:
    """Variables that look like ours and that nothing reads: a typing error changes nothing."""
    from gatebook.cli.settings_page import gather, unknown

    found = gather()
    # Where a part is missing, its variables cannot be told from typing errors.
    names = [] if found.missing else unknown(os.environ, found.settings)
    if names:
        yield Check(
            name="variables",
            verdict="warn",
            detail=f"set, but read by no part: {', '.join(names)}",
            next_step="look for a typing error: gatebook settings lists all names",
        )


def check_spools(kafka_answers: bool = True) -> Iterator[Check]:
    """Events on this machine's disk that Kafka has not acknowledged."""
    from gatebook.producers.config import ProducerSettings

    try:
        root = ProducerSettings.from_env().spool_path
    except Fatal:
        return  # said by the row of the settings
    yield judge_spools(root, time.time(), kafka_answers)


def judge_spools(root: Path, now_seconds: float, kafka_answers: bool = True) -> Check:
    """Something is always on its way while a service works; stuck is what does not move, what no
    process holds, and everything while Kafka does not answer."""
    from gatebook.producers.spool import abandoned_spools

    found = [(path, unsent) for path in abandoned_spools(root) if (unsent := _look(path))]
    if not found:
        return Check(name="spools", verdict="ok", detail=f"nothing unsent in {root}")
    events = sum(unsent.events for _, unsent in found)
    path, oldest = min(found, key=lambda one: one[1].acknowledged_at)
    waiting_seconds = now_seconds - oldest.acknowledged_at
    detail = f"{events} unsent events in {len(found)} spools below {root}"
    if not kafka_answers:
        return Check(
            name="spools",
            verdict="warn",
            detail=f"{detail}; they wait for Kafka, which does not answer",
            next_step="see above what Kafka wants; the events are safe on disk, and services "
            "that run send them once it answers",
        )
    if not any(_is_held(path) for path, _ in found):
        return Check(
            name="spools",
            verdict="warn",
            detail=f"{detail}; no process holds them, so nobody sends them",
            next_step="start a service with this GATEBOOK_HOME and namespace: it sends what "
            "others left",
        )
    if waiting_seconds < STUCK_SECONDS:
        return Check(name="spools", verdict="ok", detail=f"{detail}, on their way")
    return Check(
        name="spools",
        verdict="warn",
        detail=f"{detail}; {path.relative_to(root)} has not moved for {_span(waiting_seconds)}",
        next_step="see above whether Kafka and its topics are there. If they are and no service "
        "runs: start one with this GATEBOOK_HOME and namespace, it sends what others left",
    )


def _look(path: Path) -> Any:
    """What a spool holds unsent; None where nothing, or where it went away meanwhile."""
    from gatebook.producers.spool import look

    try:
        unsent = look(path)
    except OSError:
        return None
    return unsent if unsent.events else None


def _is_held(path: Path) -> bool:
    """Whether a process owns a spool. The lock is shared for an instant, never taken; where it
    cannot be read, nothing is claimed."""
    try:
        with (path / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _producer() -> None:
    from gatebook.producers.config import ProducerSettings

    ProducerSettings.from_env()


def _worker() -> None:
    from gatebook.processors.config import from_env
    from gatebook.processors.sinks.settings import elasticsearch_settings, sink_settings

    elasticsearch_settings(url=from_env().elasticsearch_url)
    sink_settings()


def _alerts() -> None:
    from gatebook.processors.alerts.plan import load_plan

    load_plan()
