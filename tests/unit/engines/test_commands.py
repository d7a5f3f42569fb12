"""`gatebook up`, `down`, `status`, `doctor` as a person or a script calls them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gatebook.engines import doctor, jars
from gatebook.engines.embedded import JAR_GROUPS
from gatebook.engines.settings import EngineSettings

Result = subprocess.CompletedProcess[str]


class Cli:
    """Runs `gatebook` with an environment of the test's own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, **more: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    home = {"GATEBOOK_HOME": str(tmp_path / "home"), "GATEBOOK_CACHE_DIR": str(tmp_path / "cache")}
    return Cli(home | {"GATEBOOK_ENGINE": "embedded", "PATH": ""})


def test_status_of_a_fresh_home_says_stopped_and_exits_1(cli: Cli) -> None:
    """Nothing was ever started: that is an answer, not an error."""
    done = cli("status", "--json")
    found = json.loads(done.stdout)
    assert [one["state"] for one in found["engines"]] == ["stopped", "stopped"]
    assert done.returncode == 1


def test_down_of_a_fresh_home_is_fine(cli: Cli) -> None:
    """Stopping what does not run is no error, twice neither."""
    assert cli("down").returncode == 0
    assert json.loads(cli("down", "--json").stdout)["stopped"] is True


def test_up_on_a_taken_port_exits_3_and_says_who_holds_it(cli: Cli) -> None:
    """Before anything is downloaded or started."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = cli("up", GATEBOOK_KAFKA_PORT=str(server.getsockname()[1]))
    assert done.returncode == 3
    assert "pid" in done.stderr
    assert "GATEBOOK_KAFKA_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_with_a_bad_setting_exits_2_without_a_traceback(cli: Cli) -> None:
    """A typing error is answered with the variable's name."""
    done = cli("up", GATEBOOK_KAFKA_HEAP_MIB="lots")
    assert done.returncode == 2
    assert "GATEBOOK_KAFKA_HEAP_MIB" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_reports_a_taken_port_and_exits_1(cli: Cli) -> None:
    """Each row has a verdict; a failing one says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = cli("doctor", "--json", GATEBOOK_KAFKA_PORT=str(port))
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows[f"port {port}"]["verdict"] == "fail"
    assert "GATEBOOK_KAFKA_PORT" in rows[f"port {port}"]["next_step"]
    assert rows["jars"]["verdict"] == "warn"
    assert rows["java"]["verdict"] == "ok"
    assert done.returncode == 1


def test_doctor_exits_1_where_the_engines_do_not_run(cli: Cli) -> None:
    """As its help says, and as `status` does: a script that waits for them is not misled. What
    `gatebook attach` printed for a service stands in no way."""
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = [str(server.getsockname()[1]) for server in (a, b)]
    free = {"GATEBOOK_KAFKA_PORT": ports[0], "GATEBOOK_ELASTICSEARCH_PORT": ports[1]}
    address = {"GATEBOOK_KAFKA_BOOTSTRAP": f"127.0.0.1:{ports[0]}"}
    done = cli("doctor", "--json", **free, **address)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {rows[name]["verdict"] for name in ("kafka", "elasticsearch")} == {"warn"}
    assert done.returncode == 1
    assert cli("status", **free, **address).returncode == 1


def test_doctor_warns_of_a_damaged_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the right size with other bytes is found before the engine trips over it."""
    jar = jars.Jar("g", "thing", "1", None, "g/thing-1.jar", "0" * 64, 4)
    group = jars.JarGroup("1", (jar,))
    lock = jars.JarLock(dict.fromkeys(JAR_GROUPS, group))
    monkeypatch.setattr(jars, "read_lock", lambda: lock)
    (tmp_path / "jars" / "g").mkdir(parents=True)
    (tmp_path / "jars" / jar.path).write_bytes(b"evil")
    row = doctor.check_jars(EngineSettings(cache_dir=tmp_path))
    assert row.verdict == "warn"
    assert "thing" in row.detail


def test_doctor_refuses_an_old_python() -> None:
    """Each check can go red."""
    assert doctor.check_python((3, 10, 9)).verdict == "fail"
    assert doctor.check_python().verdict == "ok"


def test_doctor_names_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(doctor.EXTRAS, "embedded", ("json", "no_such_module"))
    row = next(iter(doctor.check_extras()))
    assert row.verdict == "warn"
    assert row.next_step == "run: pip install 'gatebook[embedded]'"


@pytest.mark.parametrize("command", ["up", "down", "status", "doctor"])
def test_help_lists_the_exit_codes(cli: Cli, command: str) -> None:
    """They are part of the interface."""
    assert "Exit codes: 0 fine" in cli(command, "--help").stdout
