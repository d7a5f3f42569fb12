"""Start a process that outlives us, find it again, stop it: by pid and start time."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gatebook.engines.errors import PortTaken, missing_extra
from gatebook.engines.settings import LOOPBACK

# psutil computes a start time from clock ticks; two readings may differ by a rounding.
START_TIME_TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.05
EPHEMERAL_FREE = range(20_000, 32_000)


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A process of ours. The start time tells it from a later one with the same pid."""

    pid: int
    created_at: float
    """Seconds since the epoch, as the operating system has it."""
    port: int
    log: str


def spawn(
    command: list[str], *, directory: Path, log: Path, environment: Mapping[str, str], port: int
) -> ProcessRecord:
    """Start `command` in a session of its own, its output appended to `log`.

    Returning says that the process exists, not that it answers.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created_at = _psutil().Process(process.pid).create_time()
    process.returncode = 0  # it is meant to outlive this object, so no warning about it
    return ProcessRecord(pid=process.pid, created_at=created_at, port=port, log=str(log))


def alive(record: ProcessRecord) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    return _find(record) is not None


def stop(record: ProcessRecord, timeout_seconds: float) -> bool:
    """SIGTERM, then SIGKILL after the timeout; True where SIGTERM was enough."""
    process = _find(record)
    if process is None:
        return True
    psutil = _psutil()
    try:
        process.terminate()
        process.wait(timeout_seconds)
    except psutil.TimeoutExpired:
        kill(record)
        return False
    except psutil.NoSuchProcess:
        pass
    return True


def kill(record: ProcessRecord) -> None:
    """SIGKILL; returns when the process is gone."""
    process = _find(record)
    if process is None:
        return
    try:
        process.kill()
        process.wait(30)
    except _psutil().NoSuchProcess:
        pass


def wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Poll `condition` until it holds; False when the time is over first."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def require_free_port(port: int, variable: str) -> None:
    """PortTaken, naming the process that holds it where the system tells."""
    if not _is_free(port):
        who = port_holder(port) or "another process"
        raise PortTaken(
            f"Port {port} on {LOOPBACK} is taken by {who}.",
            f"stop that process, or choose another port with {variable}",
        )


def port_holder(port: int) -> str | None:
    """`name (pid N)` of the process that listens on `port`; None if unknown or nobody."""
    psutil = _psutil()
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None  # without privileges some systems do not tell
    return None


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; somebody else may still take one.

    They lie below the range from which systems number outgoing connections: otherwise a client
    that retries while its engine is down could be given the engine's own port, and connect to
    itself.
    """
    candidates = random.sample(EPHEMERAL_FREE, k=len(EPHEMERAL_FREE))
    ports: list[int] = []
    while len(ports) < count:
        port = candidates.pop()
        if _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def available_memory_bytes() -> int:
    """Memory that new processes can have without swapping."""
    return int(_psutil().virtual_memory().available)


def _find(record: ProcessRecord) -> Any:
    psutil = _psutil()
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            _reap(process)
            return None
        age_difference = abs(process.create_time() - record.created_at)
    except psutil.NoSuchProcess:
        return None
    return process if age_difference < START_TIME_TOLERANCE_SECONDS else None


def _reap(process: Any) -> None:
    try:
        process.wait(0)
    except _psutil().TimeoutExpired:
        pass  # another process's child: its parent reaps it


def _psutil() -> Any:
    try:
        import psutil
    except ImportError as error:
        raise missing_extra("psutil") from error
    return psutil
