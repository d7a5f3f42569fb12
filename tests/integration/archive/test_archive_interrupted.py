"""An export that is killed goes on where it was, and ends with the same archive."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.integration.archive.archive_tools import (
    EVERYTHING,
    QUERY,
    REASON,
    export,
    fill,
    verify,
)
from tests.integration.archive.export_child import POINTS
from tests.integration.privacy.subject_tools import Desk, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until

CHILD = Path(__file__).with_name("export_child.py")
SMALL = ("--file-mib", "0.003")
SAME = ("documents", "root", "files", "left_out")


def killed_export(desk: Desk, point: str, folder: Path, *more: str, **environment: str) -> None:
    """The command, in a process that dies at the point."""
    command = ("archive", "export", str(folder), *EVERYTHING, *REASON, *SMALL, *more)
    done = subprocess.run(
        [sys.executable, str(CHILD), point, *command],
        env=desk.pipeline.environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"{point}: {done.stderr}"


def stamps(folder: Path, names: list[str]) -> dict[str, tuple[int, int]]:
    """What changes when a file is written anew."""
    found = {name: (folder / name).stat() for name in names if (folder / name).exists()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def same(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in SAME}


def test_an_export_killed_anywhere_ends_as_an_undisturbed_one(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """SIGKILL at each kind of point: no manifest stands there before its time, the same command
    keeps the files that were noted and ends with the same files, byte for byte."""
    desk = fill(pipeline)
    # An end of before the first export: the same range and so the same name, whenever begun.
    end = ("--until", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    calm = same(export(desk, tmp_path / "calm", *SMALL, *end))
    assert len(calm["files"]) > 3, "too few files to be killed between"
    for point in POINTS:
        root = tmp_path / point
        killed_export(desk, point, root, *end)
        (folder,) = root.iterdir()
        assert (verify(folder).returncode == 0) == (point == "after-manifest"), point
        noted = ["access-00001.avro"] if point != "mid-file" else []
        before = stamps(folder, noted)
        assert len(before) == len(noted)
        assert same(export(desk, root, *SMALL, *end)) == calm, point
        assert stamps(folder, noted) == before, f"{point}: a file that was whole is written anew"
        names = {path.name for path in folder.iterdir()} - {".lock"}
        assert names == {"manifest.json", *(file["name"] for file in calm["files"])}, point
        assert verify(folder).returncode == 0, point


def test_what_came_in_while_it_was_dead_is_not_left_out(pipeline: Pipeline, tmp_path: Path) -> None:
    """An event of before the kill's place that comes in before the command is given again is in
    the archive: the files are written anew, for they do not hold what the index holds."""
    desk = fill(pipeline)
    killed_export(desk, "after-progress", tmp_path)
    pipeline.publish([said("latecomer", "metadata", days_ago=20)], producer="p2")
    wait_until(
        "the latecomer is indexed",
        lambda: any(d["user"].get("id") == "latecomer" for d in pipeline.documents()),
    )
    manifest = export(desk, tmp_path, *SMALL)
    assert manifest["documents"] == 41
    assert verify(tmp_path / manifest["name"]).returncode == 0


def test_the_name_alone_goes_on_with_an_export(pipeline: Pipeline, tmp_path: Path) -> None:
    """Whoever has only the name of what was interrupted needs no range: it goes on with the one it
    was begun with, and refuses what would contradict that."""
    desk = fill(pipeline)
    calm = same(export(desk, tmp_path / "calm", *SMALL, "--name", "case-7"))
    killed_export(desk, "after-progress", tmp_path / "dead", "--name", "case-7")
    before = stamps(tmp_path / "dead" / "case-7", ["access-00001.avro"])
    alone = ("archive", "export", str(tmp_path / "dead"), "--name", "case-7", *REASON)
    for more in (("--file-mib", "1"), ("user.id:ada",), ("--with-names",)):
        assert "as it was begun" in desk.run(*alone, *more, expect=2).stderr
    other = (*alone, "--since", "2026-01-01", "--until", "2026-01-02")
    assert "another export is under way" in desk.run(*other, expect=2).stderr
    assert same(desk.json(*alone)) == calm
    assert stamps(tmp_path / "dead" / "case-7", ["access-00001.avro"]) == before
    assert "no unfinished archive" in desk.run(*alone, expect=2).stderr


def test_a_relative_time_in_its_query_stays_what_it_was(pipeline: Pipeline, tmp_path: Path) -> None:
    """Begun two days ago, killed and gone on with now: `now` is then, so the files are kept and
    hold what was asked for; the signed manifest says which moment it was. Once it is whole, the
    same words mean something else."""
    desk = fill(pipeline)
    words = ("and @timestamp >= now-36h", "--name", "case-8", "--file-mib", "0.001")
    killed_export(desk, "after-progress", tmp_path, *words, DAYS_AGO="2")
    before = stamps(tmp_path / "case-8", ["access-00001.avro"])
    manifest = export(desk, tmp_path, *words)
    assert manifest["documents"] == 20, "those of two and three days ago"
    assert stamps(tmp_path / "case-8", ["access-00001.avro"]) == before
    assert (manifest["relative_to"][:19], manifest["query"][-7:]) == (
        manifest["until"][:19], "now-36h"
    )  # fmt: skip
    assert verify(tmp_path / "case-8").returncode == 0
    range_ = ("--since", "all", "--until", manifest["until"])
    refused = desk.run(
        "archive", "export", str(tmp_path), QUERY, *words, *REASON, *range_, expect=2
    )
    assert "another" in refused.stderr
