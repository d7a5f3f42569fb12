"""What the tests of archives share: documents as intake writes them, in the real index."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from tests.integration.privacy.subject_tools import Desk, said
from tests.pipeline import Pipeline

REASON = ("--reason", "a test")
QUERY = "organization.id:acme"
EVERYTHING = (QUERY, "--since", "all", "--until", "2200-01-01")
LEVELS = ("full", "redacted", "metadata", "redacted")


def fill(pipeline: Pipeline, users: int = 10) -> Desk:
    """Events of several days and people, at all levels, through the real pipeline."""
    desk = Desk(pipeline)
    for number in range(users):
        levels = enumerate(LEVELS)
        pipeline.publish([said(f"user-{number}", level, days_ago=n) for n, level in levels])
    pipeline.wait_indexed(users * len(LEVELS))
    return desk


def export(desk: Desk, folder: Path, *more: str, expect: int = 0) -> dict[str, Any]:
    """The manifest that `archive export --json` prints."""
    given = ("archive", "export", str(folder), *EVERYTHING, *REASON, *more)
    return desk.json(*given, expect=expect)


def verify(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`archive verify` where there is no server at all, by somebody with a home of their own."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", "archive", "verify", str(folder), *more],
            env={"PATH": "", "HOME": home, "GATEBOOK_ELASTICSEARCH_URL": "http://127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def searched(desk: Desk, *more: str) -> dict[str, bytes]:
    """Canonical JSON by id of the tenant's documents that a search finds: none of our own acts."""
    given = ("search", QUERY, "--since", "all", "--ndjson", "--all", *more)
    lines = desk.run(*given).stdout.splitlines()
    documents = [json.loads(line) for line in lines]
    found = {d["event"]["id"]: orjson.dumps(d, option=orjson.OPT_SORT_KEYS) for d in documents}
    assert len(found) == len(lines)
    return found
