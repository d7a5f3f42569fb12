"""`gatebook import` as a process of its own, up to the index."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.pipeline import Pipeline
from tests.waiting import wait_until

IMPORT = (sys.executable, "-m", "gatebook.cli.main", "import")
LINES = 8000


def write_log(path: Path, count: int) -> None:
    """An nginx log of today."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    with path.open("w") as file:
        for number in range(count):
            status = 200 if number % 10 else 503
            file.write(
                f"10.1.{number % 200}.7 - user{number % 50} [{when}] "
                f'"POST /v1/chat/completions HTTP/1.1" {status} {number} "-" "curl/8"\n'
            )


def imported(pipeline: Pipeline, *arguments: str, stdin: bytes | None = None) -> dict[str, Any]:
    """Run an import to its end."""
    done = subprocess.run(
        [*IMPORT, "--json", *arguments],
        env=pipeline.environment(),
        input=stdin,
        capture_output=True,
        check=False,
        timeout=200,
    )
    assert done.stdout, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines_done(pipeline: Pipeline) -> int:
    """How far the resume point says that the import is."""
    for path in (pipeline.home / "import").glob("*.json"):
        return int(json.loads(path.read_text())["lines"])
    return 0


def test_an_import_killed_in_the_middle_is_complete_and_without_doubles(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """SIGKILL, then the same command again, then once more from the beginning: each line is in
    the index once, and no dead letter tells of the copies."""
    log = tmp_path / "access.log"
    write_log(log, LINES)
    pipeline.start("intake", "index")
    with (tmp_path / "killed.log").open("wb") as output:
        killed = subprocess.Popen([*IMPORT, str(log)], env=pipeline.environment(), stderr=output)
        wait_until("the first batch", lambda: lines_done(pipeline) > 0, poll_seconds=0.01)
        killed.kill()
        killed.wait(30)
    before = lines_done(pipeline)
    assert 0 < before < LINES

    (report,) = imported(pipeline, str(log))["files"]
    assert (report["resumed_at"], report["imported"]) == (before, LINES - before)
    (again,) = imported(pipeline, "--restart", str(log))["files"]
    assert again["imported"] == LINES

    pipeline.wait_indexed(LINES)
    marker = {"@timestamp": int(time.time_ns()), "user": {"id": "last"}}
    result = imported(pipeline, "-", stdin=json.dumps(marker).encode())
    assert (result["files"][0]["imported"], result["waiting"]) == (1, 0)
    pipeline.wait_indexed(LINES + 1)
    documents = [d for d in pipeline.documents() if d["user"]["id"] != "last"]
    sizes = [d["http"]["response"]["body"]["bytes"] for d in documents]
    assert sorted(sizes) == list(range(LINES))
    assert pipeline.indexed("deadletter") == 0
    assert {d["gatebook"]["attributes"]["door"] for d in documents} == {"import"}
    reasons = {d["event"].get("reason") for d in documents}
    assert reasons == {None, "unavailable"}


def test_a_dry_run_leaves_nothing_behind(pipeline: Pipeline, tmp_path: Path) -> None:
    """It counts, names reasons, and neither records nor remembers; the exit code tells."""
    log = tmp_path / "odd.log"
    write_log(log, 10)
    log.write_text(log.read_text() + "hunter2\n")
    done = subprocess.run(
        [*IMPORT, "--dry-run", str(log)],
        env=pipeline.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "10 would be imported, 1 refused" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert not (pipeline.home / "import").exists()
    assert pipeline.end("access.v1") == 0


def test_a_kafka_that_is_away_costs_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """The lines wait in the spool, the exit code says so, and the next import sends them."""
    log = tmp_path / "access.log"
    write_log(log, 100)
    away = {**pipeline.environment(), "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    done = subprocess.run(
        [*IMPORT, "--wait", "0.5", str(log)], env=away, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert b"100 events wait in the spool" in done.stderr
    pipeline.start("intake", "index")
    result = imported(pipeline, str(log))
    assert (result["files"][0]["resumed_at"], result["files"][0]["imported"]) == (100, 0)
    assert result["waiting"] == 0
    pipeline.wait_indexed(100)
