"""The command a newcomer runs first, as they run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipeline import Pipeline

from gatebook.cli.demo.run import DemoReport

PROMISED = {
    "emitted",
    "acknowledged",
    "indexed",
    "dead_lettered",
    "findings",
    "alerts",
    "elapsed_seconds",
}


def gatebook(
    arguments: list[str], engines: Any, namespace: str, home: Path
) -> subprocess.CompletedProcess[str]:
    """Run the command line in an environment of its own."""
    environment = {
        **os.environ,
        "GATEBOOK_KAFKA_BOOTSTRAP": engines.kafka_bootstrap,
        "GATEBOOK_ELASTICSEARCH_URL": engines.elasticsearch_url,
        "GATEBOOK_NAMESPACE": namespace,
        "GATEBOOK_HOME": str(home),
        "COLUMNS": "120",
    }
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demo_accounts_for_every_access(engines: Any, namespace: str, tmp_path: Path) -> None:
    """`gatebook demo` twice: each run accounts for its own requests, finds its own incidents and
    leaves no planted secret; afterwards `gatebook search` finds what it recorded."""
    for _ in range(2):
        done = gatebook(["demo", "--json"], engines, namespace, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert set(report) >= PROMISED
        assert report["emitted"] == report["requests_sent"] == report["acknowledged"]
        assert report["emitted"] == report["indexed"] + report["dead_lettered"]
        assert report["secrets_found"] == {}
        assert report["findings"] >= 3
        assert report["alerts"] >= 3
    query = f"user.id:mallory and gatebook.producer_id:{report['producer_id']}"
    found = gatebook(["search", query, "--ndjson", "--size", "100"], engines, namespace, tmp_path)
    assert found.returncode == 0, found.stderr
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(lines) == 14
    assert {line["event"]["reason"] for line in lines} == {"invalid_request"}


def test_the_demo_leaves_no_prompt_in_kafka(pipeline: Pipeline, tmp_path: Path) -> None:
    """It captures content, which the index has; on the way there it is sealed. The spool of its
    service is empty, and its logs hold none, either."""
    done = gatebook(["demo", "--json"], pipeline.engines, pipeline.namespace, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    prompt = "Go on and on."
    assert prompt in json.dumps(pipeline.documents())
    messages = [message.value() or b"" for message in pipeline.messages("access.v1")]
    messages += [message.value() or b"" for message in pipeline.messages("event.v1")]
    assert b"llama_cpp" in b"".join(messages), "the search looks at the right topics"
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert prompt.encode() not in b"".join([*messages, *files])


def test_the_demo_is_readable(engines: Any, namespace: str, tmp_path: Path) -> None:
    """Without --json it prints a summary for a person and says where to look next."""
    done = gatebook(["demo"], engines, namespace, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accesses is accounted for" in done.stdout
    assert "gatebook search" in done.stdout
    assert "sending requests" in done.stderr


def test_the_demo_can_fail() -> None:
    """A lost event, a leaked secret, a drop or a silent detector each make it exit 1."""
    good = {"emitted": 5, "indexed": 4, "dead_lettered": 1, "requests_sent": 5}
    good |= {"findings": 1, "alerts": 1}
    bad: list[dict[str, Any]] = [
        {"indexed": 3},
        {"requests_sent": 6},
        {"dropped": 1},
        {"secrets_found": {"card": 1}},
        {"findings": 0},
        {"unexpected_steps": ["chat: 500"]},
    ]
    assert judged(good).ok
    for change in bad:
        assert not judged(good | change).ok, change


def judged(fields: dict[str, Any]) -> DemoReport:
    report = DemoReport(**fields)
    report.judge()
    return report
