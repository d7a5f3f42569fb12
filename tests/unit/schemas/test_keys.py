"""Where keys come from, and what their files promise."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatebook.schemas import keys
from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.keys import (
    Bundle,
    FileSource,
    KeyFiles,
    KeysUnavailable,
    VariableSource,
    make_key,
    open_source,
    parse,
    render,
)


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    found = KeyFiles.in_folder(tmp_path / "keys")
    found.create()
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- the pair of files -------------------------------------------------------------------------


def test_the_private_file_is_its_owners_alone(files: KeyFiles) -> None:
    """Whatever the umask; the public file has no private key in it."""
    assert (mode(files.private), mode(files.public)) == (0o600, 0o644)
    public = parse(files.public.read_bytes())
    assert not public.is_private
    assert files.read().is_private
    assert public.newest is not None
    assert public.newest.id == files.read().keys[0].id


def test_a_pair_is_never_overwritten(files: KeyFiles) -> None:
    """Content may be sealed for it."""
    before = files.private.read_bytes()
    with pytest.raises(Fatal, match="is there already") as caught:
        files.create()
    assert "rotate" in caught.value.next_step
    files.ensure()
    assert files.private.read_bytes() == before


def test_a_rotation_keeps_the_old_keys(files: KeyFiles) -> None:
    """Producers see the new one as newest, intake has both."""
    first = files.read().keys[0]
    second = files.rotate()
    assert files.read().keys == (first, second)
    newest = parse(files.public.read_bytes()).newest
    assert newest is not None
    assert newest.id == second.id


def test_a_destroyed_key_leaves_its_id(files: KeyFiles) -> None:
    """The private half is gone from the file; producers do not see it any more."""
    first = files.read().keys[0]
    second = files.rotate()
    files.destroy(first.id)
    left = files.read().get(first.id)
    assert left is not None
    assert left.destroyed
    assert first.private not in files.private.read_text()
    assert [key.id for key in parse(files.public.read_bytes()).keys] == [second.id]
    with pytest.raises(Fatal, match="no live key"):
        files.destroy(first.id)


def test_the_last_key_may_be_destroyed(files: KeyFiles) -> None:
    """Then there is no key to seal for."""
    files.destroy(files.read().keys[0].id)
    assert parse(files.public.read_bytes()).newest is None


def test_a_public_file_that_is_lost_is_made_again(files: KeyFiles) -> None:
    """From the private one."""
    before = files.public.read_bytes()
    files.public.unlink()
    files.ensure()
    assert files.public.read_bytes() == before


def test_two_processes_make_one_pair(tmp_path: Path) -> None:
    """Whoever is first: all of them end up with the same key."""
    code = (
        "import sys; from pathlib import Path; from gatebook.schemas.keys import KeyFiles;"
        "print(KeyFiles.in_folder(Path(sys.argv[1])).ensure().keys[0].id)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({child.communicate()[0] for child in running}) == 1


def test_a_crash_while_writing_leaves_the_old_file(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private file is whole at every moment, and so is the public one."""
    before = files.private.read_bytes(), files.public.read_bytes()

    def die(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(Fatal, match="No space left"):
        files.rotate()
    assert (files.private.read_bytes(), files.public.read_bytes()) == before


def test_keys_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal, match="cannot be kept"):
        KeyFiles.in_folder(tmp_path / "file" / "keys").create()


# --- bundles -----------------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A good bundle with something done to it."""
    found = json.loads(render(Bundle(keys=(make_key(),))))
    change(found)
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{" * 100_000,
        b" " * (keys.MAX_BUNDLE_BYTES + 1),
        changed(lambda b: b.update(format="gatebook-keys/9")),
        changed(lambda b: b["keys"].append(b["keys"][0])),
        changed(lambda b: b["keys"][0].update(id="0011223344556677")),
        changed(lambda b: b["keys"][0].update(public="AAAA")),
        changed(lambda b: b["keys"][0].update(public="?")),
        changed(lambda b: b["keys"][0].update(private="AAAA")),
        changed(lambda b: b["keys"][0].update(created="yesterday")),
        changed(lambda b: b["keys"][0].pop("public")),
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    """By name of the trouble, with nothing of what was read in it."""
    with pytest.raises(KeysUnavailable) as caught:
        parse(data)
    assert len(str(caught.value)) < 80


def test_a_key_does_not_show_itself() -> None:
    """Not in a log line, not in a traceback."""
    key = make_key()
    assert key.private not in repr(key) + repr(Bundle(keys=(key,)))


def test_later_versions_may_add_fields() -> None:
    """A bundle with more in it is read."""
    assert parse(changed(lambda b: b["keys"][0].update(note="x"))).newest is not None


# --- sources -----------------------------------------------------------------------------------


def test_a_file_tells_when_it_changed(files: KeyFiles) -> None:
    """Also when it is replaced by one of the same size."""
    source = open_source(f"file:{files.private}")
    before = source.version()
    assert source.version() == before
    files.private.write_bytes(files.private.read_bytes())
    assert source.version() != before
    files.private.unlink()
    assert source.version() is None
    with pytest.raises(KeysUnavailable, match="No such file"):
        source.read()


def test_a_variable_holds_json_or_base64(files: KeyFiles) -> None:
    """As secret managers hand them over."""
    data = files.private.read_bytes()
    for text in (data.decode(), base64.b64encode(data).decode() + "\n"):
        source = open_source("env:THE_KEYS", {"THE_KEYS": text})
        assert parse(source.read()) == files.read()
        assert source.version() is not None
    for bad in ("", "not base64!"):
        with pytest.raises(KeysUnavailable, match="THE_KEYS"):
            VariableSource("THE_KEYS", {"THE_KEYS": bad}).read()
    assert VariableSource("THE_KEYS", {}).version() is None


@pytest.mark.parametrize("setting", ["", "file:", "/etc/keys", "nowhere:x", ":x"])
def test_a_source_nobody_knows_is_refused(setting: str) -> None:
    """With how to write one."""
    with pytest.raises(WrongSetting) as caught:
        open_source(setting)
    assert "file:/path" in caught.value.next_step


class FakeKms:
    """What a plug-in gives; its texts hold what it was told."""

    def __init__(self, rest: str) -> None:
        if rest == "unusable":
            raise RuntimeError(f"cannot use {rest}")
        self.rest = rest

    def read(self) -> bytes:
        if self.rest == "down":
            raise RuntimeError("token s3cr3t was refused")
        return self.rest.encode()

    def version(self) -> int:
        if self.rest == "down":
            raise RuntimeError("token s3cr3t was refused")
        return 1


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that names FakeKms as a key source."""
    info = tmp_path / "site" / "fake_kms-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-kms\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[gatebook.keys]\nfake = {__name__}:FakeKms\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[FakeKms.__module__])


@pytest.mark.usefixtures("plugged_in")
def test_a_plug_in_is_found_by_its_name() -> None:
    """It gets what stands behind the colon."""
    source = open_source("fake:projects/x:1")
    assert (source.read(), source.version()) == (b"projects/x:1", 1)
    assert "projects" not in repr(source)


@pytest.mark.usefixtures("plugged_in")
def test_a_plug_ins_trouble_is_told_without_its_words() -> None:
    """They could hold a credential."""
    source = open_source("fake:down")
    with pytest.raises(KeysUnavailable, match="fake: RuntimeError") as caught:
        source.read()
    assert "s3cr3t" not in str(caught.value)
    assert source.version() != source.version(), "so that it is read again"
    with pytest.raises(Fatal, match="RuntimeError"):
        open_source("fake:unusable")


def test_a_file_source_says_which_file() -> None:
    """In logs, where the path is what one needs."""
    assert repr(FileSource("/etc/x.json")) == "file:/etc/x.json"
    assert msgspec.json.decode(render(Bundle()))["format"] == keys.FORMAT
