"""The key that subjects' keys are stored under, so that the store alone opens nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.processors.subjects.keys import SubjectKey
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import KeysUnavailable, open_source

NONCE_BYTES = 12
MIN_KEY_BYTES = 16


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


@dataclass(frozen=True, slots=True)
class WrappingKeys:
    """The newest first: it wraps; all of them unwrap."""

    keys: Sequence[WrappingKey]

    def wrap(self, key: SubjectKey) -> tuple[str, str]:
        """The id of the wrapping key, and the wrapped key in base64; bound to the key's id."""
        newest, nonce = self.keys[0], os.urandom(NONCE_BYTES)
        sealed = AESGCM(newest.secret).encrypt(nonce, key.secret, key.id.encode())
        return newest.id, base64.b64encode(nonce + sealed).decode()

    def unwrap(self, key_id: str, wrapping_id: str, wrapped: str) -> SubjectKey:
        """The subject's key. Raises Fatal where it was wrapped under a key we do not have."""
        known = next((key for key in self.keys if key.id == wrapping_id), None)
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


def wrapping_keys(setting: str) -> WrappingKeys:
    """From sources separated by commas. Raises Fatal naming the source that gives no key."""
    return WrappingKeys([_read(source.strip()) for source in setting.split(",") if source.strip()])


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
