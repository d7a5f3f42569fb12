"""Archives beside erasures and legal holds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.archive.archive_tools import export, fill, searched, verify
from tests.integration.privacy.subject_tools import WORD, Desk
from tests.pipeline import Pipeline


def restored(desk: Desk, user: str) -> list[str]:
    """A user's restored documents, as text."""
    found = searched(desk, "--restored").values()
    return [body.decode() for body in found if f'"id":"{user}"' in body.decode()]


def test_an_erasure_reaches_what_is_archived_and_restored(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """What stands in an archive by default cannot be read once its subject is erased; it is left
    out of a restore afterwards, even from an archive that has text and names in the open; and an
    erasure strips what was restored before it. The archives still verify."""
    desk = fill(pipeline, users=3)
    shy, bold = tmp_path / "shy", tmp_path / "bold"
    shy /= str(export(desk, shy)["name"])
    bold /= str(export(desk, bold, "--with-text", "--with-names")["name"])
    desk.json("archive", "restore", str(bold), "--reason", "a test")
    assert WORD in "".join(restored(desk, "user-1"))

    certificate = desk.erase("user-1", "--names")
    assert certificate["documents_with_content_left"] == 0
    assert any("-restored-access-" in name for name in certificate["indices"])
    left = "".join(restored(desk, "user-1"))
    assert left
    assert WORD not in left
    assert '"full":' not in left
    assert "User-1" not in left
    assert WORD in "".join(restored(desk, "user-0")), "others keep theirs"

    for folder in (shy, bold):
        desk.run("archive", "drop", "--restored", "--yes", "--reason", "anew")
        done = desk.json("archive", "restore", str(folder), "--reason", "a test")
        assert (done["indexed"], done["erased"]) == (12, 3 if folder == shy else 4)
        again = "".join(restored(desk, "user-1"))
        assert again
        assert WORD not in again
        assert "User-1" not in again
        assert WORD in "".join(restored(desk, "user-2"))
        assert verify(folder).returncode == 0


def test_a_legal_hold_keeps_an_archive(pipeline: Pipeline, tmp_path: Path) -> None:
    """An archive with events of somebody under hold is not deleted until the hold ends."""
    desk = fill(pipeline, users=2)
    folder = tmp_path / str(export(desk, tmp_path)["name"])
    desk.subject("hold", "user-1", "--hold-id", "case-1")
    command = ("archive", "drop", str(folder), "--yes", "--reason", "a test")
    assert "legal hold" in desk.run(*command, expect=4).stderr
    assert verify(folder).returncode == 0
    desk.subject("release", "user-1", "--hold-id", "case-1")
    desk.run("retention", "hold", "--tenant", "acme", "--hold-id", "case-2", "--reason", "a test")
    assert "legal hold" in desk.run(*command, expect=4).stderr
    desk.run("retention", "release", "case-2", "--reason", "a test")
    assert list(json.loads(desk.run(*command, "--json").stdout)) == [folder.name]
    assert not folder.exists()
