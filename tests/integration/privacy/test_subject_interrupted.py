"""An erasure that is killed goes on where it was, and certifies the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.privacy.erase_child import INSIDE
from tests.integration.privacy.subject_tools import LEASE, TENANT, WORD, Desk, said
from tests.pipeline import Pipeline

from gatebook.processors.subjects.erasure import STEPS

CHILD = Path(__file__).with_name("erase_child.py")
SAME = (
    "documents",
    "documents_with_content",
    "documents_with_names",
    "documents_searchable",
    "indices",
    "keys_left",
    "documents_with_content_left",
    "complete",
)


def start(desk: Desk, *command: str) -> subprocess.Popen[str]:
    environment = desk.pipeline.environment(**LEASE)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def erase(desk: Desk, user: str) -> subprocess.Popen[str]:
    """The command as an operator gives it."""
    return start(
        desk,
        *(sys.executable, "-m", "gatebook.cli.main", "subject", "erase", user),
        *("--tenant", TENANT, "--reason", "test", "--yes", "--json"),
    )


def counts(certificate: dict[str, Any]) -> dict[str, Any]:
    return {name: certificate[name] for name in SAME}


def test_an_erasure_killed_anywhere_ends_with_the_same_counts(pipeline: Pipeline) -> None:
    """SIGKILL after each step, and inside those that change things: given again, the same command
    goes on, and its certificate counts what an undisturbed one counts."""
    desk = Desk(pipeline)
    points = (*STEPS, *INSIDE)
    users = {f"user-{point}": point for point in points} | {"calm": ""}
    for user in users:
        levels = ("full", "redacted", "metadata", "redacted", "full")
        pipeline.publish([said(user, level, days_ago=n % 2) for n, level in enumerate(levels)])
    pipeline.wait_indexed(5 * len(users))

    killed = [
        start(desk, sys.executable, str(CHILD), point, user, TENANT)
        for user, point in users.items()
        if point
    ]
    for child, point in zip(killed, points, strict=True):
        _, error = child.communicate(timeout=300)
        assert child.returncode == -signal.SIGKILL, f"{point}: {error}"
    resumed = {user: erase(desk, user) for user in users}
    certificates = {}
    for user, child in resumed.items():
        output, error = child.communicate(timeout=300)
        assert child.returncode == 0, f"{user}: {output}{error}"
        certificates[user] = json.loads(output)

    undisturbed = counts(certificates["calm"])
    assert undisturbed["documents_with_content"] == 4
    for user, certificate in certificates.items():
        assert counts(certificate) == undisturbed, user
        assert certificate["keys_destroyed"] == [f"{desk.tag(user)}.0"], user
    assert WORD not in json.dumps(pipeline.documents())
    assert not any("full" in d["gatebook"].get("sealed", {}) for d in pipeline.documents())
    assert pipeline.indexed("deadletter") == 0
