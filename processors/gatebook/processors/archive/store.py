"""Where archives are kept: a folder here; other kinds of store are plug-ins.

A plug-in is an entry point of the group `gatebook.archive_stores`, named like the scheme of its
addresses (`s3` for `s3:bucket/path`): a callable that takes the rest and returns a Store.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from gatebook.processors.archive.errors import ArchiveAway, WrongArchive
from gatebook.schemas.errors import Fatal, GatebookError

ENTRY_POINT_GROUP = "gatebook.archive_stores"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
DRAFT_SUFFIX = ".part"
LOCK_NAME = ".lock"


class Draft(Protocol):
    """A file on its way in. Nobody sees it before `commit`."""

    def write(self, data: bytes) -> int:
        """Take more bytes. A return does NOT mean that they are durable."""

    def commit(self) -> None:
        """Returns when the file is there, whole and durable, under its name."""

    def abort(self) -> None:
        """Drop it. Nothing happens after commit."""


class Store(Protocol):
    """One folder of files, written whole or not at all. Every call may raise ArchiveAway."""

    def draft(self, name: str) -> Draft:
        """Begin a file; one of the same name that was begun and not committed is dropped."""

    def put(self, name: str, data: bytes) -> None:
        """Write a small file; returns when it is durable. Replaces one of the same name."""

    def open(self, name: str) -> IO[bytes]:
        """A file to read, seekable. Raises FileNotFoundError."""

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens where there is none."""

    def names(self) -> list[str]:
        """Names of the files that are there, drafts left out."""

    def folders(self) -> list[str]:
        """Names of the folders below, which `sub` opens."""

    def sub(self, name: str) -> Store:
        """A folder below; it comes to be with its first file."""

    def drop(self) -> None:
        """Delete this folder with all that is in it, drafts included."""

    def alone(self) -> AbstractContextManager[None]:
        """Held while writing, so that two processes do not. Raises WrongArchive where another
        has it."""


class FolderStore:
    """A Store in a folder of a file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def draft(self, name: str) -> FileDraft:
        """See Store."""
        with _told():
            self._folder.mkdir(parents=True, exist_ok=True)
            return FileDraft(self._folder / _checked(name))

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        draft = self.draft(name)
        try:
            draft.write(data)
            draft.commit()
        finally:
            draft.abort()

    def open(self, name: str) -> IO[bytes]:
        """See Store."""
        with _told(passing=FileNotFoundError):
            return (self._folder / _checked(name)).open("rb")

    def delete(self, name: str) -> None:
        """See Store."""
        with _told():
            (self._folder / _checked(name)).unlink(missing_ok=True)
            _sync_folder(self._folder)

    def names(self) -> list[str]:
        """See Store."""
        return sorted(
            path.name
            for path in self._entries()
            if path.is_file() and path.name != LOCK_NAME and not path.name.endswith(DRAFT_SUFFIX)
        )

    def folders(self) -> list[str]:
        """See Store."""
        return sorted(path.name for path in self._entries() if path.is_dir())

    def _entries(self) -> list[Path]:
        with _told():
            return list(self._folder.iterdir()) if self._folder.exists() else []

    def sub(self, name: str) -> FolderStore:
        """See Store."""
        return FolderStore(self._folder / _checked(name))

    def drop(self) -> None:
        """See Store."""
        with _told():
            shutil.rmtree(self._folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See Store. The lock ends with the process that holds it, however that ends."""
        with _told():
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / LOCK_NAME).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise WrongArchive(
                    "another process is writing this archive", "wait until it has ended"
                ) from None
            yield


class FileDraft:
    """A Draft beside its place, moved there when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + DRAFT_SUFFIX)
        self._file = self._temporary.open("wb")

    def write(self, data: bytes) -> int:
        """See Draft."""
        with _told():
            return self._file.write(data)

    def commit(self) -> None:
        """See Draft."""
        with _told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            # If we die here, the draft stays behind: the next try begins it anew.
            self._temporary.rename(self._path)
            _sync_folder(self._path.parent)

    def abort(self) -> None:
        """See Draft."""
        self._file.close()
        with _told():
            self._temporary.unlink(missing_ok=True)


class Digested(io.RawIOBase):
    """A file to write that hashes and counts what goes through to a draft."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self._draft = draft
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Pass on."""
        found = bytes(cast("bytes", data))  # Parquet hands buffers of its own
        self._draft.write(found)
        self._sha256.update(found)
        self.bytes += len(found)
        return len(found)

    def tell(self) -> int:
        """Bytes so far."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._sha256.hexdigest()


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WrongArchive(
            f"{name[:80]!a} is no name of an archive or of its files",
            "use letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told(passing: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """What the file system refuses, as an error of ours."""
    try:
        yield
    except passing:
        raise
    except OSError as error:
        raise ArchiveAway(f"the archive's folder: {error.strerror or 'not usable'}") from None


def store_of(address: str) -> Store:
    """The store at an address: a folder's path, `file:PATH`, or what a plug-in serves.
    Raises WrongArchive, Fatal."""
    scheme, colon, rest = address.partition(":")
    if not colon or "/" in scheme:
        return FolderStore(Path(address).expanduser())
    if scheme == "file":
        return FolderStore(Path("/" + rest.lstrip("/") if rest.startswith("//") else rest))
    return _plugged_in(scheme, rest)


def _plugged_in(scheme: str, rest: str) -> Store:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    found = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=scheme)), None)
    if found is None:
        raise WrongArchive(
            f"no store is called {scheme[:40]!a}",
            "give a folder, file:PATH, or install the plug-in that serves it",
        )
    try:
        make = cast("Callable[[str], Store]", found.load())
        return make(rest)
    except GatebookError:
        raise
    except Exception as error:  # what a plug-in raises may quote credentials
        raise Fatal(
            f"the store {scheme!r} cannot be used: {type(error).__name__}",
            "see that plug-in's own documentation",
        ) from None
