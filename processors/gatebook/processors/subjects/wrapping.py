"""The key that subjects' keys are stored under, so that the store alone opens nothing.

There may be several: the newest wraps, all of them unwrap. They are read again before a subject's
key is made and where one is named that is not known, so that a new one needs no restart.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.processors.config import read_or_make_key
from gatebook.processors.subjects.keys import SubjectKey
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import KeysUnavailable, open_source

NONCE_BYTES = 12
MIN_KEY_BYTES = 16
IN_FLIGHT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """One key; the id is a digest of it."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> WrappingKey:
        """From what a source gave, 16 bytes or more."""
        secret = hashlib.sha256(b"gatebook wrapping key" + data).digest()
        return cls(hashlib.sha256(b"id" + secret).hexdigest()[:16], secret)


class WrappingSources(Protocol):
    """Where wrapping keys come from."""

    def read(self) -> Sequence[WrappingKey]:
        """The keys as they are now, the newest first. Raises Fatal."""

    def version(self) -> Hashable:
        """Something that differs once `read` may answer differently; cheap."""


@dataclass(slots=True)
class WrappingKeys:
    """The newest first: it wraps; all of them unwrap."""

    keys: Sequence[WrappingKey]
    sources: WrappingSources | None = None
    _seen: Hashable = None

    @classmethod
    def of(cls, sources: WrappingSources) -> WrappingKeys:
        """Raises Fatal naming the source that gives no key."""
        seen = sources.version()
        keys = sources.read()
        if not keys:
            raise Fatal("there is no wrapping key", "see GATEBOOK_SUBJECT_WRAPPING_KEYS")
        return cls(keys, sources, seen)

    @property
    def newest(self) -> WrappingKey:
        """The one that wraps."""
        return self.keys[0]

    def refresh(self) -> None:
        """Read the keys again if they changed; what cannot be read changes nothing. A key that is
        gone still unwraps in this process: something may be under way that was wrapped by it."""
        if self.sources is None:
            return
        try:
            version = self.sources.version()
            if version == self._seen:
                return
            found = self.sources.read()
        except (Fatal, OSError):
            return  # whoever needs a key that is not among those of before will say so
        if found:
            self.keys = [*found, *(key for key in self.keys if key not in found)]
            self._seen = version

    def wrap(self, key: SubjectKey) -> tuple[str, str]:
        """The id of the wrapping key, and the wrapped key in base64; bound to the key's id."""
        newest, nonce = self.newest, os.urandom(NONCE_BYTES)
        sealed = AESGCM(newest.secret).encrypt(nonce, key.secret, key.id.encode())
        return newest.id, base64.b64encode(nonce + sealed).decode()

    def unwrap(self, key_id: str, wrapping_id: str, wrapped: str) -> SubjectKey:
        """The subject's key. Raises Fatal where it was wrapped under a key we do not have."""
        known = self._known(wrapping_id)
        if known is None:
            self.refresh()
            known = self._known(wrapping_id)
        if known is None:
            raise Fatal(
                f"a subject's key is stored under the wrapping key {wrapping_id}, which is not "
                "among ours",
                "name its source in GATEBOOK_SUBJECT_WRAPPING_KEYS, the same for all workers",
            )
        data = base64.b64decode(wrapped)
        try:
            secret = AESGCM(known.secret).decrypt(
                data[:NONCE_BYTES], data[NONCE_BYTES:], key_id.encode()
            )
        except InvalidTag:
            raise Fatal(
                f"the stored key {key_id} was changed: it does not unwrap",
                "find out who can write the index of subjects' keys",
            ) from None
        return SubjectKey(key_id, secret)

    def _known(self, wrapping_id: str) -> WrappingKey | None:
        return next((key for key in self.keys if key.id == wrapping_id), None)


@dataclass(frozen=True, slots=True)
class NamedSources:
    """Those an operator named in a setting, separated by commas."""

    settings: Sequence[str]

    @classmethod
    def of(cls, setting: str) -> NamedSources:
        """From the setting."""
        return cls([part.strip() for part in setting.split(",") if part.strip()])

    def read(self) -> list[WrappingKey]:
        """See WrappingSources."""
        return [_read(source) for source in self.settings]

    def version(self) -> Hashable:
        """See WrappingSources."""
        return tuple(open_source(source).version() for source in self.settings)


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """Files `NAME.key`, the first key, and `NAME.2.key`, `NAME.3.key` ..., each newer."""

    first: Path

    def files(self) -> list[Path]:
        """Those that are there, the newest first."""
        found = [(self._number(path), path) for path in self._numbered()]
        newest_first = [path for number, path in sorted(found, reverse=True) if number]
        return newest_first + ([self.first] if self.first.exists() else [])

    def read(self) -> list[WrappingKey]:
        """See WrappingSources."""
        return [_read(f"file:{path}") for path in self.files()]

    def version(self) -> Hashable:
        """See WrappingSources."""
        return tuple((path.name, path.stat().st_mtime_ns) for path in self.files())

    def make(self) -> Path:
        """Make a key, newer than those that are there. Raises Fatal."""
        highest = max([1, *map(self._number, self._numbered())])
        path = self.first.with_suffix(f".{highest + 1}.key")
        read_or_make_key(path)
        return path

    def id_of(self, path: Path) -> str:
        """The id of the key in a file. Raises Fatal."""
        return _read(f"file:{path}").id

    def settles_in_seconds(self, lease_seconds: float) -> float:
        """How long until every worker wraps with the newest key: what one is about to store, it
        began within this time."""
        age = time.time() - self.files()[0].stat().st_mtime
        return max(0.0, max(lease_seconds, IN_FLIGHT_SECONDS) - age)

    def _numbered(self) -> list[Path]:
        return list(self.first.parent.glob(f"{self.first.stem}.*.key"))

    def _number(self, path: Path) -> int:
        middle = path.name.removeprefix(f"{self.first.stem}.").removesuffix(".key")
        return int(middle) if middle.isdigit() else 0


def _read(setting: str) -> WrappingKey:
    source = open_source(setting)
    try:
        data = source.read()
    except KeysUnavailable as error:
        raise Fatal(
            f"there is no wrapping key: {error}", "see GATEBOOK_SUBJECT_WRAPPING_KEYS"
        ) from None
    if len(data) < MIN_KEY_BYTES:
        raise Fatal(
            f"{source!r} gives fewer than {MIN_KEY_BYTES} bytes", "give it a longer random key"
        )
    return WrappingKey.of(data)
