"""`gatebook keys`: what an operator does with the keys, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatebook.cli.main import cli
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import KeyFiles, parse


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    for name in ("GATEBOOK_SEALING_KEYS", "GATEBOOK_SEALING_PUBLIC_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def keys(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], input=said)


def as_json(*arguments: str) -> Any:
    done = keys(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


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
    as_json("destroy", first, "--yes")
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
    """Another one has to be there first, or one insists."""
    made = as_json("new")["id"]
    refused = keys("destroy", made)
    assert isinstance(refused.exception, Fatal)
    assert "rotate" in refused.exception.next_step
    second = as_json("rotate")["id"]
    assert keys("destroy", made, said="n\n").exit_code == 1
    assert as_json("list")["keys"][0]["state"] == "opens only"
    assert keys("destroy", made, said="y\n").exit_code == 0
    assert as_json("destroy", second, "--yes")["state"] == "destroyed"


@pytest.mark.parametrize("command", [["rotate"], ["list"], ["destroy", "00", "--yes"]])
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
