"""The policy in force while its file changes, breaks or goes: the last good one holds."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from gatebook.producers.policy.match import Facts
from gatebook.producers.policy.notices import POLICY_BROKEN, POLICY_CHANGED
from gatebook.producers.policy.store import REMIND_SECONDS, PolicyStore, kept_path

GOOD = b'version = 1\nname = "acme"\n[[rule]]\nname = "r"\nlevel = "none"\n'
OTHER = GOOD.replace(b"none", b"redacted")
BROKEN = GOOD.replace(b"none", b"planted-level")


class Folder:
    """A policy file in a home, and a clock that stands still."""

    def __init__(self, home: Path) -> None:
        self.path = home / "capture.toml"
        self.kept = kept_path(home, self.path)
        self.now = 0.0
        self._version = 0

    def write(self, data: bytes) -> None:
        """As an editor does: a new file in its place, at another time."""
        draft = self.path.with_suffix(".new")
        draft.write_bytes(data)
        self._version += 1
        os.utime(draft, (self._version, self._version))
        draft.replace(self.path)

    def store(self) -> PolicyStore:
        return PolicyStore(self.path, self.kept, lambda: self.now)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def actions(store: PolicyStore) -> list[tuple[str, str]]:
    return [(notice.action, notice.reason) for notice in store.look()]


def test_a_change_is_taken_over_and_said(folder: Folder) -> None:
    """With the digests of before and after."""
    folder.write(GOOD)
    store = folder.store()
    first = store.policy.digest
    assert actions(store) == [(POLICY_CHANGED, "first")]
    assert actions(store) == []
    folder.write(OTHER)
    (notice,) = store.look()
    assert (notice.action, notice.reason) == (POLICY_CHANGED, "changed")
    assert notice.attributes["old_policy"] == first
    assert notice.attributes["new_policy"] == store.policy.digest != first
    assert store.changed == 2


def test_a_broken_file_leaves_the_last_good_one_in_force(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once in the log, by place and never by text, and again in events while it lasts."""
    folder.write(GOOD)
    store = folder.store()
    store.look()
    good = store.policy
    folder.write(BROKEN)
    assert actions(store) == [], "it may be half written: looked at once more"
    assert actions(store) == [(POLICY_BROKEN, "invalid")]
    assert (store.policy, store.problem, store.broken) == (good, "invalid, line 5", 1)
    assert actions(store) == []
    folder.now += REMIND_SECONDS
    (again,) = store.look()
    assert (again.action, again.attributes["in_force"]) == (POLICY_BROKEN, "last_good")
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "planted" not in line
    assert "line 5" in line
    folder.write(GOOD)
    assert actions(store) == [(POLICY_CHANGED, "restored")]
    assert store.problem == ""


def test_a_half_written_file_that_is_soon_whole_is_no_alarm(folder: Folder) -> None:
    """Editors write in parts."""
    folder.write(GOOD)
    store = folder.store()
    store.look()
    folder.write(OTHER[:-12])
    assert actions(store) == []
    folder.write(OTHER)
    assert actions(store) == [(POLICY_CHANGED, "changed")]
    assert store.broken == 0


def test_a_file_that_is_gone_is_broken(folder: Folder) -> None:
    """Deleting the file loosens nothing either."""
    folder.write(GOOD)
    store = folder.store()
    store.look()
    folder.path.unlink()
    assert actions(store) == []
    assert actions(store) == [(POLICY_BROKEN, "unreadable")]
    assert store.policy.name == "acme"


def test_over_a_restart_the_last_good_one_still_holds(folder: Folder) -> None:
    """A copy stands in the home, for nobody else to read."""
    folder.write(GOOD)
    folder.store()
    assert folder.kept.stat().st_mode & 0o777 == 0o600
    folder.write(BROKEN)
    again = folder.store()
    assert again.policy.rules[0][0].level == "none"
    assert actions(again) == [(POLICY_BROKEN, "invalid")]
    folder.write(GOOD)
    assert actions(again) == [(POLICY_CHANGED, "restored")]


def test_a_restart_under_the_same_policy_is_no_change(folder: Folder) -> None:
    """A change while nothing ran is one."""
    folder.write(GOOD)
    folder.store()
    assert actions(folder.store()) == []
    folder.write(OTHER)
    assert actions(folder.store()) == [(POLICY_CHANGED, "changed")]


@pytest.mark.parametrize("data", [BROKEN, b"\xff", b"", None])
def test_without_a_good_one_metadata_is_captured_and_it_is_said(
    folder: Folder, data: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start stops for nothing."""
    if data is not None:
        folder.write(data)
    store = folder.store()
    assert (store.policy.name, store.policy.highest_level) == ("fallback", "metadata")
    (notice,) = store.look()
    assert notice.action == POLICY_BROKEN
    assert notice.attributes["in_force"] == "fallback", "no older one is in force"
    assert "metadata is captured of everything" in caplog.text


@pytest.mark.parametrize("data", [BROKEN, None])
def test_without_a_good_one_nobody_is_named_where_so_set(
    folder: Folder, data: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With the fallback `none` a first start names nobody, until there is a good policy."""
    if data is not None:
        folder.write(data)
    store = PolicyStore(folder.path, folder.kept, lambda: folder.now, fallback="none")
    assert store.policy.decide(Facts(tenant="clinic", route="/v1/chat")).level == "none"
    (notice,) = store.look()
    assert (notice.attributes["in_force"], notice.attributes["level"]) == ("fallback", "none")
    assert "accesses are counted only" in caplog.text
    folder.write(OTHER)
    assert actions(store) == [(POLICY_CHANGED, "first")]
    assert store.policy.name == "acme"


def test_a_damaged_copy_is_as_good_as_none(folder: Folder) -> None:
    """It is not trusted more than the file."""
    folder.write(GOOD)
    folder.store()
    folder.kept.write_bytes(b"\x00damaged")
    folder.write(BROKEN)
    assert folder.store().policy.name == "fallback"


def test_a_home_that_cannot_be_written_costs_only_the_copy(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """The policy holds all the same."""
    folder.write(GOOD)
    folder.kept.parent.parent.joinpath("policy").write_text("a file where a folder belongs")
    store = folder.store()
    assert store.policy.name == "acme"
    assert "no copy" in caplog.text
