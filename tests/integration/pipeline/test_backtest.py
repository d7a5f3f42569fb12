"""`gatebook backtest` over what real workers recorded: from the index and from Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunningEngines
from tests.pipeline import Pipeline, make_event


@pytest.fixture
def recorded(engines: RunningEngines, namespace: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A namespace in which eve failed fifteen times within seconds, and alice did not."""
    place = Pipeline(engines, namespace, tmp_path)
    try:
        place.start("intake", "index")
        place.publish([make_event("eve", "failure") for _ in range(15)])
        place.publish([make_event("alice") for _ in range(20)])
        place.wait_indexed(35)
        yield place
    finally:
        place.close()


def backtest(place: Pipeline, *arguments: str) -> tuple[int, Any]:
    """Exit code and the JSON that was printed."""
    command = [sys.executable, "-m", "gatebook.cli.main", "backtest", *arguments, "--json"]
    done = subprocess.run(
        command, env=place.environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


def test_both_sources_tell_the_same(recorded: Pipeline, tmp_path: Path) -> None:
    """The index and Kafka lead to the same incident with the same evidence; a threshold above
    what happened finds nothing; a label makes a precision of it; nothing to replay ends with 1."""
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"verdict": "true_positive", "principal": "user:eve"}\n')
    common = ("--rule", "failure_burst", "--since", "1h")
    found: dict[str, Any] = {}
    for source in ("index", "kafka"):
        code, found[source] = backtest(
            recorded, *common, "--source", source, "--set", "threshold=16", "--labels", str(labels)
        )
        assert code == 0
    now = found["index"]["now"]
    assert (now["accesses"], now["incidents"], now["precision"]) == (35, 1, 1.0)
    assert now["busiest"] == [["user:eve", 1]]
    assert found["index"]["against"]["incidents"] == 0
    assert [example["who"] for example in found["index"]["only_now"]] == ["user:eve"]
    events = {d["event"]["id"] for d in recorded.documents() if d["user"]["id"] == "eve"}
    for source in found:
        (example,) = found[source]["now"]["examples"]
        assert set(example["evidence"]) <= events
        assert example["evidence_count"] == 10
    assert found["kafka"]["now"]["incidents"] == 1
    code, _ = backtest(recorded, *common, "--until", "now-30m")
    assert code == 1
