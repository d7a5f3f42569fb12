"""What `gatebook doctor` says of files of private keys that others may read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatebook.engines.check import Check
from gatebook.schemas.key_files import ADVICE, exposure
from gatebook.schemas.keys import PRIVATE_NAME

# Settings that name such a file, and those that name sources of keys, separated by commas.
FILES = (
    "GATEBOOK_KEY_DIGEST_SECRET_FILE",
    "GATEBOOK_REDACTION_KEY_FILE",
    "GATEBOOK_SUBJECT_TAG_KEY_FILE",
    "GATEBOOK_SUBJECT_CERTIFICATE_KEY_FILE",
)
SOURCES = ("GATEBOOK_SEALING_KEYS", "GATEBOOK_SUBJECT_WRAPPING_KEYS")
KEY_SUFFIX = ".key"


def check_key_files() -> Iterator[Check]:
    """A row for each file of a private key that its group or others may read; else one for all,
    where there are any."""
    from gatebook.engines.settings import default_home

    files = private_files(default_home() / "keys", os.environ)
    exposed = [(path, mode) for path in files if (mode := exposure(path))]
    for path, mode in exposed:
        yield Check(
            name="key files",
            verdict="warn",
            detail=f"others may read a private key: {path} (mode {mode})",
            next_step=f"{ADVICE} {path}, and ask who could read it until now",
        )
    if files and not exposed:
        detail = f"{len(files)} files of private keys, each its owner's alone"
        yield Check(name="key files", verdict="ok", detail=detail)


def private_files(folder: Path, environ: Mapping[str, str]) -> list[Path]:
    """Files of private keys that are there: in a folder of keys, and those that settings name."""
    named = [environ.get(name, "") for name in FILES]
    sources = ",".join(environ.get(name, "") for name in SOURCES).split(",")
    named += [text.strip().removeprefix("file:") for text in sources if "file:" in text]
    found = {path for path in folder.glob("*") if _is_private(path)}
    found |= {path for text in named if text and (path := Path(text).expanduser()).is_file()}
    return sorted(found)


def _is_private(path: Path) -> bool:
    """By its name; what begins with a dot is a lock, or a draft of ours."""
    is_key = path.suffix == KEY_SUFFIX or path.name == PRIVATE_NAME
    return is_key and not path.name.startswith(".")
