"""`gatebook keys`: what an operator does with the keys, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatebook.cli import privileged
from gatebook.cli.main import cli
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import KeyFiles, parse


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GATEBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("GATEBOOK_KAFKA_BOOTSTRAP", "127.0.0.1:1")  # nobody is there: a spool is
    monkeypatch.setattr(privileged, "FLUSH_SECONDS", 0.0)
    return tmp_path


def keys(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], input=said)


def as_json(*arguments: str) -> Any:
    done = keys(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def recorded(home: Path) -> bytes:
    """What the spools in a home hold."""
    return b"".join(path.read_bytes() for path in sorted((home / "spool").rglob("*.seg")))


WHY = ("--reason", "ticket 12")


def test_new_keys_stand_where_both_sides_look(home: Path) -> None:
    """In the home, and the command says where."""
    made = as_json("new")
    files = KeyFiles.in_folder(home / "keys")
    assert made["private"] == str(files.private)
    assert [key.id for key in files.read().keys] == [made["id"]]
    assert str(files.public) in keys("rotate").output


def test_the_list_says_what_each_key_is_for() -> None:
    """Oldest first; a private key is never shown."""
    first, second, third = as_json("new")["id"], as_json("rotate")["id"], as_json("rotate")["id"]
    as_json("destroy", first, "--yes", *WHY)
    rows = as_json("list")["keys"]
    assert [(row["id"], row["state"]) for row in rows] == [
        (first, "destroyed"),
        (second, "opens only"),
        (third, "in use"),
    ]
    shown = keys("list").output
    assert "in use" in shown
    private = KeyFiles.in_folder(Path(as_json("list")["file"]).parent).read().keys[1].private
    assert private not in shown + json.dumps(rows)


def test_a_model_server_lists_the_public_keys(home: Path) -> None:
    """Where the private file is not, as it should be there."""
    made = as_json("new")
    (home / "keys" / "sealing-private.json").unlink()
    assert as_json("list")["keys"][0]["id"] == made["id"]


def test_the_key_in_use_is_not_destroyed_by_the_way() -> None:
    """Another one has to be there first, or one insists; not to be asked is no insisting."""
    first = as_json("new")["id"]
    for given in ([], ["--yes"]):
        refused = keys("destroy", first, *WHY, *given)
        assert isinstance(refused.exception, Fatal)
        assert "and the last one" in str(refused.exception)
        assert "rotate" in refused.exception.next_step
        assert "--in-use" in refused.exception.next_step
    second = as_json("rotate")["id"]
    assert isinstance(keys("destroy", second, *WHY, "--yes").exception, Fatal)
    assert keys("destroy", first, *WHY, said="n\n").exit_code == 1
    assert as_json("list")["keys"][0]["state"] == "opens only"
    assert keys("destroy", first, *WHY, said="y\n").exit_code == 0
    assert as_json("destroy", second, *WHY, "--yes", "--in-use")["state"] == "destroyed"


def test_one_is_told_what_becomes_unreadable() -> None:
    """Before one is asked: frames still in the topic, and what producers do from then on."""
    first, second = as_json("new")["id"], as_json("rotate")["id"]
    old = keys("destroy", first, *WHY, said="n\n").output
    assert "access.v1" in old
    assert "Producers seal for it now" not in old
    assert f"They go back to {first}" in keys("destroy", second, *WHY, "--in-use").output
    as_json("destroy", first, *WHY, "--yes")
    assert "all content is dropped" in keys("destroy", second, *WHY, "--in-use").output


def test_a_key_that_is_not_there_is_not_asked_about(home: Path) -> None:
    """Nor one that is gone already; that it was to be destroyed is recorded, as a failure."""
    first = as_json("new")["id"]
    as_json("rotate")
    as_json("destroy", first, *WHY, "--yes")
    for gone in ("0123456789abcdef", first):
        refused = keys("destroy", gone, *WHY, said="y\n")
        assert isinstance(refused.exception, Fatal)
        assert "Destroy the private key" not in refused.output
    said = recorded(home)
    assert (said.count(b"keys.destroy"), said.count(b"not_found")) == (3, 2)
    keys("destroy", "gb_pasted-by-mistake", *WHY)
    assert b"pasted-by-mistake" not in recorded(home)


def test_what_is_done_to_keys_is_recorded(home: Path) -> None:
    """Without Kafka, in the spool, with the key and the reason."""
    first = as_json("new")["id"]
    as_json("rotate", "--reason", "yearly turn")
    as_json("destroy", first, "--yes", "--reason", "left the house")
    said = recorded(home)
    for words in ("keys.new", "keys.rotate", "yearly turn", "keys.destroy", "left the house"):
        assert said.count(words.encode()) == 1
    assert said.count(first.encode()) == 2
    assert keys("destroy", first, "--yes").exit_code == 2, "a reason has to be given"


def test_an_act_that_fails_is_told_of_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was recorded before it was done, and as a failure that names that event."""
    first = as_json("new")["id"]
    as_json("rotate")

    def full(self: KeyFiles, key_id: str) -> None:
        raise Fatal("the disk is full")

    monkeypatch.setattr(KeyFiles, "destroy", full)
    assert isinstance(keys("destroy", first, "--yes", *WHY).exception, Fatal)
    said = recorded(home)
    assert (said.count(b"keys.destroy"), said.count(b"server_error")) == (2, 1)
    assert said.count(b"recorded_as") == 1


def test_what_cannot_be_recorded_is_not_done(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stays as it was."""
    first = as_json("new")["id"]
    as_json("rotate")
    before = as_json("list")
    (home / "a-file").write_text("")
    monkeypatch.setenv("GATEBOOK_SPOOL_DIR", str(home / "a-file"))
    elsewhere = ["--private", str(home / "b" / "private.json")]
    for command in (["destroy", first, "--yes", *WHY], ["rotate"], ["new", *elsewhere]):
        assert isinstance(keys(*command).exception, privileged.NotRecorded)
    assert as_json("list") == before
    assert not (home / "b").exists()


@pytest.mark.parametrize("command", [["rotate"], ["list"], ["destroy", "00", "--yes", *WHY]])
def test_without_keys_one_is_told_how_to_make_them(command: list[str]) -> None:
    """No traceback, and nothing is made by the way."""
    refused = keys(*command)
    assert isinstance(refused.exception, Fatal)
    assert refused.exception.next_step == "make them: gatebook keys new"


def test_files_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, or by the settings of producer and worker."""
    private, public = tmp_path / "a" / "private.json", tmp_path / "b" / "public.json"
    as_json("new", "--private", str(private), "--public", str(public))
    monkeypatch.setenv("GATEBOOK_SEALING_KEYS", f"file:{private}")
    monkeypatch.setenv("GATEBOOK_SEALING_PUBLIC_KEYS", f"file:{public}")
    added = as_json("rotate")
    newest = parse(public.read_bytes()).newest
    assert newest is not None
    assert newest.id == added["id"]


def test_keys_that_are_in_no_file_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable or a KMS is changed where it is kept."""
    monkeypatch.setenv("GATEBOOK_SEALING_KEYS", "env:THE_KEYS")
    refused = keys("rotate")
    assert isinstance(refused.exception, Fatal)
    assert "--private" in refused.exception.next_step
