"""The sealed envelope: content that only intake can open. Pure; needs the extra `sealing`.

A producer makes a data key per process and period and encrypts it once for intake's public key;
every event then costs one AES-GCM call. An envelope stands alone: whatever happens to its frame,
it holds all that is needed beside the private key.

    offset  bytes  what
    0       1      01: this version of the format
    1       8      key id: the first 8 bytes of SHA-256("gatebook key" | public key)
    9       32     encapsulated key                                     } HPKE, single shot, of the
    41      48     the encrypted data key: 32 bytes and a 16-byte tag   } 32-byte data key
    89      12     nonce: event number under this data key (4 bytes, big endian) | 8 random bytes
    101     n      AES-256-GCM of the content, under the data key, with the associated data below
    101+n   16     its tag

HPKE is RFC 9180 in mode base: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; info is
"gatebook.sealed/1" | key id, its own associated data is empty.

Associated data binds an envelope to its event. It is the bytes "gatebook.sealed/1", then for each
of event.id, producer id, organization.id and gatebook.capture.level: the length of its UTF-8 form
as 4 bytes, big endian, and that form. So content cannot be moved to another event, producer or
tenant, and its level cannot be raised on the way.

No nonce comes twice under a data key: the number alone sees to that within a process, a data key
never outlives its process or a fork, and no clock has a part in it. The random bytes are for what
the number cannot see: a machine that is snapshotted and resumed twice.
"""

from __future__ import annotations

import itertools
import os
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gatebook.schemas.errors import Fatal, GatebookError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hpke import Suite

ENCODING = "sealed"  # content_encoding of an event whose content is an envelope
# Why content could not be opened; stands in gatebook.sealed.failed.
KEY_LOST = "key_lost"  # there is no private key with the envelope's key id
KEY_DESTROYED = "key_destroyed"  # there was one, and somebody destroyed it
UNDECODABLE = "undecodable"  # these bytes are no envelope
FORGED = "forged"  # the bytes, or the event around them, are not what the producer sealed

KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
MAX_EVENTS_PER_DATA_KEY = 1 << 20
VERSION = b"\x01"
LIBRARY = "cryptography.hazmat.primitives.hpke"
CONTEXT = b"gatebook.sealed/1"
_ID_END = 1 + KEY_ID_BYTES
HEAD_BYTES = _ID_END + 32 + KEY_BYTES + 16
_BODY_AT = HEAD_BYTES + NONCE_BYTES
OVERHEAD_BYTES = _BODY_AT + 16


class SealedFailed(GatebookError):
    """An envelope cannot be opened; `reason` is one of the codes above, `key_id` what it names."""

    def __init__(self, reason: str, key_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.key_id = key_id


def installed() -> bool:
    """Whether the library is there that sealing needs, in a version that has HPKE."""
    try:
        return find_spec(LIBRARY) is not None
    except ModuleNotFoundError:  # not even its first part
        return False


def require(what: str) -> None:
    """Raises Fatal, saying what to install, where the library is missing. `what` needs it."""
    if not installed():
        raise Fatal(
            f"{what} needs the package cryptography, 47 or later: content leaves a producer "
            "encrypted only",
            "pip install 'gatebook[sealing]', or capture no content (GATEBOOK_CAPTURE_LEVEL="
            "metadata)",
        )


def key_id_of(public: bytes) -> bytes:
    """The 8 bytes that name a public key."""
    import hashlib

    return hashlib.sha256(b"gatebook key" + public).digest()[:KEY_ID_BYTES]


def associated_data(event_id: str, producer_id: str, tenant: str, level: str) -> bytes:
    """What an envelope is bound to; see above."""
    return CONTEXT + _with_length(event_id) + _origin(producer_id, tenant, level)


@lru_cache(maxsize=4096)
def _origin(producer_id: str, tenant: str, level: str) -> bytes:
    """The part that many events share."""
    return b"".join(map(_with_length, (producer_id, tenant, level)))


def _with_length(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "big") + data


@cache
def _suite() -> Suite:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class DataKey:
    """A fresh data key, encrypted for one public key of intake. For one process only: see above."""

    def __init__(self, public: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        secret = AESGCM.generate_key(8 * KEY_BYTES)
        identity = key_id_of(public)
        key = X25519PublicKey.from_public_bytes(public)
        wrapped = _suite().encrypt(secret, key, CONTEXT + identity)
        self._head = VERSION + identity + wrapped
        self._cipher = AESGCM(secret)
        self._numbers = itertools.count()
        self.events = 0  # sealed under it so far

    @property
    def is_spent(self) -> bool:
        """Whether it has sealed its share."""
        return self.events >= MAX_EVENTS_PER_DATA_KEY

    def seal(self, content: bytes, associated: bytes) -> bytes:
        """The envelope. Raises OverflowError where the data key has sealed its share."""
        number = next(self._numbers)  # taken before anything can fail: it never comes again
        if number >= MAX_EVENTS_PER_DATA_KEY:
            raise OverflowError
        self.events = number + 1
        nonce = number.to_bytes(4, "big") + os.urandom(NONCE_BYTES - 4)
        return self._head + nonce + self._cipher.encrypt(nonce, content, associated)


def head_of(envelope: bytes) -> bytes:
    """Version, key id and encrypted data key: the same for all envelopes of a data key.

    Raises SealedFailed for what is no envelope of this version.
    """
    if len(envelope) < OVERHEAD_BYTES or not envelope.startswith(VERSION):
        raise SealedFailed(UNDECODABLE)
    return envelope[:HEAD_BYTES]


def key_id_in(head: bytes) -> bytes:
    """The id of the key a data key is encrypted for."""
    return head[1:_ID_END]


def unwrap(head: bytes, private: X25519PrivateKey) -> AESGCM:
    """The data key in a head. Costs some 50 us: remember it. Raises SealedFailed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    identity = key_id_in(head)
    try:
        secret = _suite().decrypt(head[_ID_END:], private, CONTEXT + identity)
        return AESGCM(secret)
    except Exception:  # hostile bytes raise whatever they raise; none of it says more
        raise SealedFailed(FORGED, name_of(identity)) from None


def open_body(envelope: bytes, data_key: AESGCM, associated: bytes) -> bytes:
    """The content of an envelope. Raises SealedFailed where it is not this event's."""
    try:
        nonce = envelope[HEAD_BYTES:_BODY_AT]
        return data_key.decrypt(nonce, envelope[_BODY_AT:], associated)
    except Exception:
        raise SealedFailed(FORGED, name_of(key_id_in(envelope))) from None


def name_of(key_id: bytes) -> str:
    """A key id as people see it."""
    return key_id.hex()
