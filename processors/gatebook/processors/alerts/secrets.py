"""Secrets by reference: settings say where a secret is, never what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gatebook.schemas.errors import Fatal

MAX_SECRET_BYTES = 64 * 1024


class SecretUnreadable(ValueError):
    """A secret is missing or malformed. Its text names the reference, and never what was read."""

    def __init__(self, reference: str, problem: str) -> None:
        super().__init__(f"{reference} {problem}")


def check_reference(setting: str, reference: str) -> None:
    """Fatal where a setting holds something else than `env:NAME` or `file:/path`. What it holds
    is not repeated: it may be the secret."""
    kind, _, rest = reference.partition(":")
    if kind not in ("env", "file") or not rest:
        raise Fatal(
            f"{setting} is not a reference to a secret",
            "write env:NAME for an environment variable or file:/path for a file",
        )


def read_secret(reference: str, environment: Mapping[str, str] | None = None) -> str:
    """The secret behind a reference, read anew each time so that a rotated one is picked up.

    Raises SecretUnreadable where it is missing, empty, too long or holds control characters,
    which would break out of a header.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env":
        value = (os.environ if environment is None else environment).get(rest, "")
    else:
        value = _read_file(reference, Path(rest))
    value = value.strip()
    if not value:
        raise SecretUnreadable(reference, "is missing or empty")
    if not value.isprintable():
        raise SecretUnreadable(reference, "is malformed: it is not one line of text")
    return value


def _read_file(reference: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        if len(data) > MAX_SECRET_BYTES:
            raise SecretUnreadable(reference, "is malformed: the file is too long")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise SecretUnreadable(reference, "is missing: there is no such file") from None
    except UnicodeDecodeError:
        raise SecretUnreadable(reference, "is malformed: it is not UTF-8") from None
    except OSError as error:
        raise SecretUnreadable(reference, f"cannot be read: {type(error).__name__}") from None
