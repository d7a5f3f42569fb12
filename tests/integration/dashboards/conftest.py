"""The real promtool: the one on PATH, or Debian's package of Prometheus unpacked into a cache.

Where neither can be had, the rules are only parsed, and the tests' ids say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "prometheus"
FETCH_TIMEOUT_SECONDS = 180


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gatebook" / "prometheus"


def _fetch() -> Path | None:
    """Download and unpack the package; nothing is installed. None where that fails."""
    folder = _cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            _download(work)
            (deb,) = Path(work).glob("*.deb")
            _run(["dpkg", "-x", str(deb), "out"], work)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        # Moved whole: a run that dies before this leaves no half of a package behind.
        (Path(work) / "out").rename(folder)
    return folder / "usr" / "bin" / "promtool"


def _download(folder: str) -> None:
    try:
        _run(["apt-get", "download", PACKAGE], folder)
    except subprocess.CalledProcessError:  # a new machine has no lists of packages yet
        _run(["apt-get", "update"], folder)
        _run(["apt-get", "download", PACKAGE], folder)


def _run(command: list[str], folder: str) -> None:
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, timeout=FETCH_TIMEOUT_SECONDS
    )


@cache
def promtool_binary() -> Path | None:
    """The program, or None where it cannot be had on this machine."""
    on_path = shutil.which("promtool")
    cached = _cache_folder() / "usr" / "bin" / "promtool"
    if on_path:
        return Path(on_path)
    return cached if cached.exists() else _fetch()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name in the id of each test what evaluates the rules."""
    if "promtool" in metafunc.fixturenames:
        kind = "promtool" if promtool_binary() else "parsed-only"
        metafunc.parametrize("promtool", [kind], indirect=True)


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Path | None:
    """The program; None where the rules are only parsed."""
    return promtool_binary()
