"""Where keys come from, and the two bundles of key pairs that sealing uses.

A key source is written SCHEME:REST, in a setting:

    file:/etc/gatebook/sealing-private.json    a file; read again when it changes
    env:SEALING_KEYS_TEXT                      a variable: the bundle's JSON, or base64 of the bytes
    NAME:...                                   a plug-in: entry point NAME in group `gatebook.keys`,
                                               called with what stands behind the colon

A plug-in is how a KMS comes in: it gives a KeySource whose `read` fetches or decrypts the bytes.

The private bundle is intake's alone and may hold many keys: all of them open, so that a rotation
loses nothing. The public bundle is what producers get; they seal for its newest key. A key that
was destroyed leaves its id behind, to tell "destroyed" from "lost".
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import time
from calendar import timegm
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

import msgspec

from gatebook.schemas.errors import Fatal, GatebookError, WrongSetting
from gatebook.schemas.key_files import may_be_private, warn_if_exposed
from gatebook.schemas.sealing import KEY_BYTES, key_id_of, name_of

ENTRY_POINT_GROUP = "gatebook.keys"
FORMAT = "gatebook-keys/1"
PRIVATE_NAME = "sealing-private.json"
PUBLIC_NAME = "sealing-public.json"
MAX_BUNDLE_BYTES = 1024 * 1024
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SOURCES = "write it like file:/path, env:NAME, or the name of an installed plug-in and a colon"


class KeysUnavailable(GatebookError):
    """Keys cannot be read now, or what was read is no bundle. Its text holds no key."""


# --- sources -----------------------------------------------------------------------------------


class KeySource(Protocol):
    """A place that keys are read from. Safe to ask often: `version` is cheap."""

    def read(self) -> bytes:
        """The bytes as they are now. Raises KeysUnavailable."""

    def version(self) -> Hashable:
        """Something that differs once `read` may answer differently; None: there is nothing now."""


class FileSource:
    """Keys in a file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> bytes:
        try:
            found = self.path.read_bytes()
        except OSError as error:
            raise KeysUnavailable(f"{self.path}: {error.strerror}") from None
        if may_be_private(found):
            warn_if_exposed(self.path)
        return found

    def version(self) -> Hashable:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def __repr__(self) -> str:
        return f"file:{self.path}"


class VariableSource:
    """Keys in an environment variable of this process, so read once and for all."""

    def __init__(self, name: str, environ: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._environ = os.environ if environ is None else environ

    def read(self) -> bytes:
        value = self._environ.get(self._name, "").strip()
        if not value:
            raise KeysUnavailable(f"the variable {self._name} is not set")
        if value.startswith("{"):
            return value.encode()
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise KeysUnavailable(f"the variable {self._name} is neither JSON nor base64") from None

    def version(self) -> Hashable:
        return self._name if self._environ.get(self._name) else None

    def __repr__(self) -> str:
        return f"env:{self._name}"


class _Guarded:
    """A plug-in's source: whatever it raises, and whatever that says, becomes KeysUnavailable."""

    def __init__(self, name: str, source: KeySource) -> None:
        self._name = name
        self._source = source

    def read(self) -> bytes:
        try:
            return self._source.read()
        except GatebookError:
            raise
        except Exception as error:
            raise KeysUnavailable(f"{self._name}: {type(error).__name__}") from None

    def version(self) -> Hashable:
        try:
            return self._source.version()
        except Exception:
            return object()  # like none before: `read` then says what is wrong

    def __repr__(self) -> str:
        return f"{self._name}:..."


def open_source(setting: str, environ: Mapping[str, str] | None = None) -> KeySource:
    """The source a setting names; nothing is read yet. Raises WrongSetting."""
    scheme, colon, rest = setting.partition(":")
    if not colon or not rest:
        raise WrongSetting("a key source has no scheme", _SOURCES)
    if scheme == "file":
        return FileSource(rest)
    if scheme == "env":
        return VariableSource(rest, environ)
    return _plugged_in(scheme, rest)


def _plugged_in(name: str, rest: str) -> KeySource:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    found = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)
    if found is None:
        raise WrongSetting(f"no key source is called {name!r}", _SOURCES)
    try:
        make = cast("Callable[[str], KeySource]", found.load())
        return _Guarded(name, make(rest))
    except GatebookError:
        raise
    except Exception as error:  # what a plug-in raises may quote what it was given
        raise Fatal(
            f"the key source {name!r} cannot be used: {type(error).__name__}",
            "see that plug-in's own documentation",
        ) from None


# --- bundles -----------------------------------------------------------------------------------


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key pair, or what is left of it. Keys are base64."""

    id: str
    created: str
    public: str
    private: str = ""
    destroyed: str = ""

    @property
    def created_seconds(self) -> int:
        """When it was made, Unix time."""
        return timegm(time.strptime(self.created, _TIME))

    @property
    def public_bytes(self) -> bytes:
        """The X25519 public key."""
        return base64.b64decode(self.public)

    @property
    def private_bytes(self) -> bytes:
        """The X25519 private key; empty where this is not it."""
        return base64.b64decode(self.private)

    def without_private(self) -> Key:
        """What producers may have."""
        return msgspec.structs.replace(self, private="")

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Key pairs, oldest first."""

    format: str = FORMAT
    keys: tuple[Key, ...] = ()

    @property
    def newest(self) -> Key | None:
        """The key to seal for."""
        return next((key for key in reversed(self.keys) if not key.destroyed), None)

    @property
    def is_private(self) -> bool:
        """Whether there is a private key in it."""
        return any(key.private for key in self.keys)

    def get(self, key_id: str) -> Key | None:
        """The key with this id."""
        return next((key for key in self.keys if key.id == key_id), None)

    def live(self, key_id: str) -> Key:
        """The key with this id. Raises Fatal where there is none, or it was destroyed."""
        found = self.get(key_id)
        if found is None or found.destroyed:
            raise Fatal(f"no live key has the id {key_id!r}", "see `gatebook keys list`")
        return found

    def public(self) -> Bundle:
        """What producers get: live keys, public halves."""
        return Bundle(keys=tuple(k.without_private() for k in self.keys if not k.destroyed))


def parse(data: bytes) -> Bundle:
    """A bundle from its bytes. Raises KeysUnavailable, never with a key in its text."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise KeysUnavailable("too large for a bundle of keys")
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
        problem = _problem(bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise KeysUnavailable("is not a bundle of keys") from None
    if problem:
        raise KeysUnavailable(problem)
    return bundle


def _problem(bundle: Bundle) -> str:
    if bundle.format != FORMAT:
        return f"is not in the format {FORMAT}"
    if len({key.id for key in bundle.keys}) != len(bundle.keys):
        return "has a key id twice"
    for key in bundle.keys:
        if len(base64.b64decode(key.public, validate=True)) != KEY_BYTES:
            return "has a public key of the wrong size"
        if key.private and len(base64.b64decode(key.private, validate=True)) != KEY_BYTES:
            return "has a private key of the wrong size"
        time.strptime(key.created, _TIME)
        if key.id != name_of(key_id_of(key.public_bytes)):
            return "has a key whose id is not its own"
    return ""


def render(bundle: Bundle) -> bytes:
    """A bundle as it stands in a file. Private keys are in it, if they are in the bundle."""
    return msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n"


def make_key(created: str = "") -> Key:
    """A new key pair. Needs the extra `sealing`."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return Key(
        id=name_of(key_id_of(public)),
        created=created or _now(),
        public=base64.b64encode(public).decode(),
        private=base64.b64encode(private.private_bytes_raw()).decode(),
    )


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())


# --- the pair of files -------------------------------------------------------------------------


class KeyFiles:
    """A private bundle and the public one that goes with it. Every change writes the private file
    first: if we die in between, intake knows a key that nobody uses yet, and the next change (or
    `publish`) brings the public file up to it."""

    def __init__(self, private: Path, public: Path) -> None:
        self.private = private
        self.public = public

    @classmethod
    def in_folder(cls, folder: Path) -> KeyFiles:
        """The pair where producer and intake look by default: `keys` in their home."""
        return cls(folder / PRIVATE_NAME, folder / PUBLIC_NAME)

    def ensure(self) -> Bundle:
        """The pair, made where there is none. Safe for several processes at once."""
        with self._locked():
            bundle = self.read() if self.private.exists() else Bundle(keys=(make_key(),))
            if not self.private.exists():
                _replace(self.private, render(bundle), 0o600)
            if not self.public.exists():
                self._publish(bundle)
            return bundle

    def create(self, key: Key | None = None) -> Bundle:
        """A new pair, of `key` where one is given. Raises Fatal where there is a pair: content
        could be sealed for it."""
        with self._locked():
            if self.private.exists():
                raise Fatal(
                    f"{self.private} is there already",
                    "`gatebook keys rotate` adds a key to it; the old ones keep opening",
                )
            return self._write(Bundle(keys=(key or make_key(),)))

    def rotate(self, key: Key | None = None) -> Key:
        """Add a key (`key`, or a new one), which producers use as soon as they have the public
        file; the others stay."""
        with self._locked():
            added = key or make_key()
            self._write(Bundle(keys=(*self.read().keys, added)))
            return added

    def destroy(self, key_id: str) -> Key:
        """Forget a private key for good. What was sealed for it can never be opened again, which
        says nothing about other copies of this file."""
        with self._locked():
            bundle = self.read()
            keys = bundle.keys
            bundle.live(key_id)
            gone = msgspec.structs.replace
            changed = [
                gone(key, private="", destroyed=_now()) if key.id == key_id else key for key in keys
            ]
            bundle = self._write(Bundle(keys=tuple(changed)))
            return next(key for key in bundle.keys if key.id == key_id)

    def publish(self) -> Bundle:
        """Write the public file anew."""
        with self._locked():
            return self._publish(self.read())

    def read(self) -> Bundle:
        """The private bundle. Raises Fatal."""
        try:
            return parse(FileSource(self.private).read())
        except KeysUnavailable as error:
            raise Fatal(f"no private keys: {error}", "make them: gatebook keys new") from None

    def _write(self, bundle: Bundle) -> Bundle:
        _replace(self.private, render(bundle), 0o600)
        self._publish(bundle)
        return bundle

    def _publish(self, bundle: Bundle) -> Bundle:
        _replace(self.public, render(bundle.public()), 0o644)
        return bundle

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.private.with_name(f".{self.private.name}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with lock.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise Fatal(
                f"keys cannot be kept at {self.private.parent}: {error.strerror}",
                "name files in a folder that can be written",
            ) from None


def _replace(path: Path, data: bytes, mode: int) -> None:
    """The file has the old bytes or the new ones, whenever we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask, and an older draft's mode
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
