"""What is written down about running engines, and what is made of it after a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gatebook.engines import processes, state
from gatebook.engines.embedded import EmbeddedEngines
from gatebook.engines.errors import BadSetting, HomeBusy
from gatebook.engines.processes import ProcessRecord
from gatebook.engines.settings import EngineSettings
from gatebook.engines.state import State

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)",
]


def spawn(command: list[str], directory: Path) -> ProcessRecord:
    log = directory / "process.log"
    return processes.spawn(command, directory=directory, log=log, environment={}, port=1)


def test_state_comes_back_as_written(tmp_path: Path) -> None:
    """Pids, ports and start times survive the command that wrote them."""
    record = ProcessRecord(pid=7, created_at=1.5, port=9, log="x.log")
    written = State(engine="embedded", processes={"kafka": record})
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written


@pytest.mark.parametrize("content", [None, b"", b'{"engine": 3}', b"\xff\x00"])
def test_an_unreadable_state_counts_as_none(tmp_path: Path, content: bytes | None) -> None:
    """A torn or foreign file must not lock the user out of `gatebook up`."""
    if content is not None:
        (tmp_path / "state.json").write_bytes(content)
    assert state.read(tmp_path) == State()


def test_a_killed_process_makes_the_state_stale(tmp_path: Path) -> None:
    """`status` says stale, not running, and keeps the address."""
    record = spawn(SLEEPER, tmp_path)
    settings = EngineSettings(home=tmp_path)
    settings.engines_dir.mkdir()
    state.write(settings.engines_dir, State(engine="embedded", processes={"kafka": record}))
    processes.kill(record)
    kafka, elasticsearch = EmbeddedEngines(settings).status().engines
    assert (kafka.name, kafka.state, kafka.pid) == ("kafka", "stale", None)
    assert elasticsearch.state == "stopped"


def test_a_pid_that_was_given_to_another_process_is_not_ours(tmp_path: Path) -> None:
    """After a restart of the machine our pid may be somebody else's: never stop that."""
    with subprocess.Popen(SLEEPER) as somebody:
        try:
            created_at = psutil.Process(somebody.pid).create_time()
            record = ProcessRecord(pid=somebody.pid, created_at=created_at - 3600, port=1, log="")
            assert not processes.alive(record)
            assert processes.stop(record, timeout_seconds=1)
            processes.kill(record)
            assert somebody.poll() is None
        finally:
            somebody.kill()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """`down` always ends; it says whether force was needed."""
    record = spawn(STUBBORN, tmp_path)
    log = Path(record.log)
    assert processes.wait_until(lambda: "ready" in log.read_text(), timeout_seconds=30)
    assert processes.stop(record, timeout_seconds=0.2) is False
    assert not processes.alive(record)


def test_a_process_that_heeds_sigterm_is_not_killed(tmp_path: Path) -> None:
    """The ordinary way down."""
    record = spawn(SLEEPER, tmp_path)
    assert processes.alive(record)
    assert processes.stop(record, timeout_seconds=30) is True
    assert not processes.alive(record)


def test_one_command_at_a_time_holds_a_home(tmp_path: Path) -> None:
    """A second `up` in the same home is told to wait; afterwards the home is free."""
    with state.exclusive(tmp_path), pytest.raises(HomeBusy), state.exclusive(tmp_path):
        pass
    with state.exclusive(tmp_path):
        pass


def test_a_home_that_cannot_be_made_is_a_bad_setting(tmp_path: Path) -> None:
    """A file where the directory should be: an error in words, not a traceback."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadSetting, match="cannot be made"),
        state.exclusive(tmp_path / "file" / "x"),
    ):
        pass
