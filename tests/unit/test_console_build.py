"""The committed build of the console: of these sources, complete, and fit for the strict policy."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "processors" / "console"
STATIC = ROOT / "processors" / "gatebook" / "processors" / "serve" / "static"
# As vite.config.ts lists them.
SOURCES = (
    "index.html",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
    "src",
)


def files_below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]


def digests(root: Path, paths: list[Path]) -> dict[str, str]:
    """Digest of each file by its path below `root`, in order of paths."""
    return {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest()
        for name in sorted(path.relative_to(root).as_posix() for path in paths)
    }


def digest_of_sources(console: Path) -> str:
    found = digests(console, [path for name in SOURCES for path in files_below(console / name)])
    lines = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.fixture
def build() -> Any:
    return json.loads((STATIC / "build.json").read_text())


def test_the_build_is_of_these_sources(build: Any) -> None:
    """Who changes a source builds anew: `make console`."""
    assert build["source_digest"] == digest_of_sources(CONSOLE), "run `make console`, and commit"


def test_the_built_files_are_those_that_were_built(build: Any) -> None:
    """Nothing was edited, added or left out behind the build's back."""
    built = [path for path in files_below(STATIC) if path.name != "build.json"]
    assert digests(STATIC, built) == build["files"]


def test_a_changed_source_is_noticed(tmp_path: Path, build: Any) -> None:
    """The check can fail: one more byte in one source is another digest."""
    for name in SOURCES:
        for path in files_below(CONSOLE / name):
            copy = tmp_path / path.relative_to(CONSOLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert digest_of_sources(tmp_path) == build["source_digest"]
    (tmp_path / "index.html").write_bytes((tmp_path / "index.html").read_bytes() + b"\n")
    assert digest_of_sources(tmp_path) != build["source_digest"]


def test_the_page_asks_nobody_else_and_runs_nothing_inline() -> None:
    """Only files of its own, by names that change with their content."""
    page = (STATIC / "index.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert all(re.fullmatch(r"/assets/[\w-]+-[\w-]{8}\.(?:js|css|svg)", link) for link in links)
    assert all((STATIC / link.removeprefix("/")).is_file() for link in links)
    assert re.findall(r"<script[^>]*>[^<]", page) == []
    assert "<style" not in page
    assert " style=" not in page


def test_the_lock_names_no_registry() -> None:
    """Versions and digests, not the machine somebody installed them on."""
    lock = json.loads((CONSOLE / "package-lock.json").read_text())
    packages = [facts for name, facts in lock["packages"].items() if name]
    assert packages
    assert all("resolved" not in facts for facts in packages)
    assert all(facts["integrity"].startswith("sha512-") for facts in packages)
