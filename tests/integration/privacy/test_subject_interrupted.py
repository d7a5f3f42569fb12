"""An erasure that is killed goes on where it was, and certifies the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.privacy.erase_child import INSIDE
from tests.integration.privacy.subject_tools import LEASE, TENANT, WORD, Desk, Snapshot, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until

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


def erase(desk: Desk, user: str, reason: str = "test") -> subprocess.Popen[str]:
    """The command as an operator gives it."""
    return start(
        desk,
        *(sys.executable, "-m", "gatebook.cli.main", "subject", "erase", user),
        *("--tenant", TENANT, "--reason", reason, "--yes", "--json"),
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


def test_a_snapshot_that_was_taken_while_the_erasure_went_on_is_said(pipeline: Pipeline) -> None:
    """One that began after the request, and before the index lost its text, holds that text: the
    certificate names it, and not the one that was taken once the text was gone."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada", "redacted")])
    pipeline.wait_indexed(1)
    child = start(desk, sys.executable, str(CHILD), "settle", "ada", TENANT)
    _, error = child.communicate(timeout=300)
    assert child.returncode == -signal.SIGKILL, error
    snapshot = Snapshot(pipeline)
    try:
        child = start(desk, sys.executable, str(CHILD), "summaries", "ada", TENANT)
        _, error = child.communicate(timeout=300)
        assert child.returncode == -signal.SIGKILL, error
        snapshot.take("after")
        certificate = desk.erase("ada", expect=1)
        assert any(WORD in json.dumps(found) for found in snapshot.restored())
    finally:
        snapshot.close("after")
    found = {left["where"]: left for left in certificate["remains"] if "snapshot" in left["where"]}
    (left,) = found.values()
    assert left["where"] == f"snapshot {pipeline.namespace}/before"
    assert "text that could be searched" in left["what"]
    assert certificate["complete"] is False


def test_two_erasures_at_once_are_one_that_names_both(pipeline: Pipeline) -> None:
    """Two operators ask for the same person at the same time: there is one certificate, it names
    both requests with their reasons, and each of them is an act in the log."""
    desk = Desk(pipeline)
    pipeline.publish([said("twice", "full")])
    pipeline.wait_indexed(1)
    reasons = {"request 17", "request 18"}
    certificates = []
    for child in [erase(desk, "twice", reason) for reason in sorted(reasons)]:
        output, error = child.communicate(timeout=300)
        assert child.returncode == 0, output + error
        certificates.append(json.loads(output))
    assert certificates[0] == certificates[1]
    (other,) = certificates[0]["also_requested"]
    assert {certificates[0]["reason"], other["reason"]} == reasons
    assert other["by"] == certificates[0]["requested_by"]

    def acts() -> set[str]:
        found = [d for d in pipeline.documents() if d["event"]["action"] == "subject.erase"]
        return {d["gatebook"]["attributes"]["reason"] for d in found}

    wait_until("both are in the log", lambda: acts() == reasons, 60)


def test_a_hold_that_comes_in_before_the_keys_go_stops_the_erasure(pipeline: Pipeline) -> None:
    """Retention's holds are looked at again right before keys are destroyed: the erasure waits
    until the hold ends, and then goes on. One that comes in after that stops nothing."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada"), said("bob")])
    pipeline.wait_indexed(2)
    for user, point in (("ada", "tombstone"), ("bob", "after-delete")):
        child = start(desk, sys.executable, str(CHILD), point, user, TENANT)
        _, error = child.communicate(timeout=300)
        assert child.returncode == -signal.SIGKILL, error
    hold = ("--hold-id", "case-1", "--tenant", TENANT, "--reason", "test")
    desk.run("retention", "hold", *hold)
    before, key = desk.of("ada"), f"/{pipeline.namespace}-subject-keys/_doc/{desk.tag('ada')}.0"
    assert "case-1" in desk.erase("ada", expect=4)["error"]
    assert desk.of("ada") == before
    assert pipeline.http.get(key).status_code == 200
    assert desk.erase("bob")["documents_with_content"] == 1
    desk.run("retention", "release", "case-1", "--reason", "test")
    assert desk.erase("ada")["keys_destroyed"] == [f"{desk.tag('ada')}.0"]
