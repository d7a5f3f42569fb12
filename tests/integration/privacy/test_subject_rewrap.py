"""Subjects' keys go under a new wrapping key while people write, and though it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from tests.integration.privacy.subject_tools import LEASE, Desk, holds_anywhere, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until

CHILD = Path(__file__).with_name("rewrap_child.py")
EARLY = [f"early{number}" for number in range(6)]
LATE = [f"late{number}" for number in range(6)]


def test_keys_are_rewrapped_while_people_write_though_it_is_killed(pipeline: Pipeline) -> None:
    """SIGKILL after some keys; meanwhile new people write. Given again, the same command makes no
    other key and goes on; then the old wrapping key is destroyed, and everything still opens:
    text of before and after by `subject export`, new text by the workers, which never stopped."""
    desk = Desk(pipeline)
    folder = pipeline.home / "keys"
    pipeline.publish([said(user) for user in EARLY])
    pipeline.wait_indexed(len(EARLY))
    assert desk.json("subject", "rewrap", "--reason", "test", "--dry-run")["left"] == 0

    child = subprocess.run(
        [sys.executable, str(CHILD)],
        env=pipeline.environment(**LEASE),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    halfway = desk.json("subject", "rewrap", "--reason", "test", "--dry-run")
    assert sorted(halfway["under"].values()) == [2, len(EARLY) - 2]
    assert halfway["left"] == len(EARLY) - 2

    writing = threading.Thread(target=lambda: [pipeline.publish([said(user)]) for user in LATE])
    writing.start()
    done = desk.json("subject", "rewrap", "--reason", "test", "--new-key", "--destroy-old")
    writing.join()
    assert done["left"] == 0
    assert len(done["destroyed"]) == 1
    assert [path.name for path in folder.glob("subject-wrapping*")] == ["subject-wrapping.2.key"]

    pipeline.publish([said("afterwards")])
    everybody = [*EARLY, *LATE, "afterwards"]
    wait_until("all that was written", lambda: all(map(desk.of, everybody)))
    last = desk.json("subject", "rewrap", "--reason", "test", "--dry-run")
    assert last["under"] == {done["wrapping_id"]: len(everybody)}
    for user in (EARLY[0], EARLY[-1], LATE[0], LATE[-1], "afterwards"):
        (document,) = desk.of(user)
        assert "failed" not in document["gatebook"]["sealed"]
        folder = pipeline.home / f"out-{user}"
        desk.subject("export", user, "--reveal", "full", "--output", str(folder))
        assert holds_anywhere(folder, f"sings for {user}@example.org".encode())
    expected = {"subject.rewrap": 2, "subject.destroy_wrapping_key": 1}
    wait_until("events of the acts", lambda: expected.items() <= acts(pipeline).items())


def acts(pipeline: Pipeline) -> dict[str, int]:
    """How often operators did what, by the events of it."""
    return Counter(
        document["event"]["action"]
        for document in pipeline.documents()
        if document["service"]["name"] == "gatebook-operator"
    )


def test_keys_named_in_a_setting_are_only_rewrapped(pipeline: Pipeline) -> None:
    """Theirs is another place: a new source is put first there, and the old one goes from there."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada")])
    pipeline.wait_indexed(1)
    new = pipeline.home / "new.key"
    new.write_bytes(b"a newer wrapping key, from elsewhere")
    old = pipeline.home / "keys" / "subject-wrapping.key"
    named: dict[str, Any] = {"GATEBOOK_SUBJECT_WRAPPING_KEYS": f"file:{new},file:{old}"}
    refused = desk.run("subject", "rewrap", "--reason", "x", "--new-key", expect=2, **named)
    assert "GATEBOOK_SUBJECT_WRAPPING_KEYS" in refused.stderr
    done = desk.json("subject", "rewrap", "--reason", "x", **named)
    assert (done["rewrapped"], done["left"]) == (1, 0)
    assert old.exists()
    text = desk.run("subject", "rewrap", "--reason", "x", **named).stdout
    assert f"under {done['wrapping_id']}: 1" in text
    assert done["destroyed"] == []
