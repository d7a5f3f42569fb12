"""Files of private keys that others may read are noticed where they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from gatebook.processors.config import read_or_make_key
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.wrapping import KeyFolder
from gatebook.producers.config import ProducerSettings
from gatebook.schemas.key_files import exposure
from gatebook.schemas.keys import FileSource, KeyFiles


def _digest(path: Path) -> None:
    ProducerSettings(key_digest_secret_file=str(path)).digest_secret()


LOADS: dict[str, Callable[[Path], object]] = {
    "pseudonyms": read_or_make_key,
    "digests": _digest,
    "certificates": Signer.from_file,
    "wrapping": lambda path: KeyFolder(path).read(),
}


@pytest.mark.parametrize("load", LOADS)
def test_each_load_of_an_exposed_key_warns_once(
    load: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the mode and what to do; a key that is its owner's alone is no matter."""
    path = tmp_path / "one.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING, "gatebook"):
        LOADS[load](path)
        assert caplog.messages == []
        path.chmod(0o644)
        LOADS[load](path)
        LOADS[load](path)
    wanted = f"a private key can be read by others (mode 0644): chmod 600 {path}"
    assert caplog.messages == [wanted]


def test_the_private_bundle_warns_and_the_public_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Producers read a file that is everybody's by design."""
    files = KeyFiles.in_folder(tmp_path)
    files.create()
    with caplog.at_level(logging.WARNING, "gatebook"):
        assert exposure(files.public) == "0644"
        FileSource(files.public).read()
        files.read()
        assert caplog.messages == []
        files.private.chmod(0o640)
        files.read()
    assert [str(files.private) in line for line in caplog.messages] == [True]
