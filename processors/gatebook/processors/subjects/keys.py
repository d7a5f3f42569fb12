"""The key of one subject: seals the layers of content, and salts their commitment.

Sealing is deterministic (AES-SIV): the same event gives the same bytes however often it is
replayed, and another text under the same event id breaks nothing, unlike with a repeated nonce.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gatebook.schemas.errors import GatebookError
from gatebook.schemas.intents import terminal_id

KEY_BYTES = 32
REDACTED = "redacted"
FULL = "full"
LAYERS = (REDACTED, FULL)
VERSION = b"\x01"
COMMITMENT_VERSION = "v1"


class CannotOpen(GatebookError):
    """A sealed layer cannot be opened: another key, another event, or bytes that were changed."""


class Salted:
    """HMAC-SHA-256 under one key of up to 64 bytes, which is read once and not for each digest."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, data: bytes) -> bytes:
        """What `hmac.digest` gives."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key and what is derived from it. `id` stands on the events; the key never shows."""

    id: str
    secret: bytes = field(repr=False)
    _cipher: AESSIV = field(init=False, repr=False, compare=False)
    _salted: Salted = field(init=False, repr=False, compare=False)
    _bound: dict[str, bytes] = field(init=False, repr=False, compare=False)
    """What a layer is bound to beside its event. Neither its name nor our id holds a zero byte."""

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a subject key has {KEY_BYTES} bytes")
        expanded = self._derived("seal 1") + self._derived("seal 2")
        object.__setattr__(self, "_cipher", AESSIV(expanded))
        object.__setattr__(self, "_salted", Salted(self._derived("commitment")))
        bound = {layer: f"{layer}\0{self.id}\0".encode() for layer in LAYERS}
        object.__setattr__(self, "_bound", bound)

    def _derived(self, purpose: str) -> bytes:
        return hmac.digest(self.secret, b"gatebook subject key " + purpose.encode(), "sha256")

    def seal(self, layer: str, event_id: str, data: bytes) -> str:
        """Base64 of a sealed layer; bound to the layer, the event and this key."""
        sealed = self._cipher.encrypt(data, [self._bound[layer] + bound_id(event_id)])
        return binascii.b2a_base64(VERSION + sealed, newline=False).decode("ascii")

    def open(self, layer: str, event_id: str, sealed: str) -> bytes:
        """What was sealed. Raises CannotOpen."""
        try:
            data = base64.b64decode(sealed, validate=True)
            if data[:1] != VERSION:
                raise CannotOpen("unknown version of a sealed layer")
            return self._cipher.decrypt(data[1:], [self._bound[layer] + bound_id(event_id)])
        except (InvalidTag, binascii.Error, ValueError):
            raise CannotOpen("a sealed layer does not open under its key") from None

    def commitment(self, event_id: str, fields: Mapping[str, bytes]) -> str:
        """See `commitment`, salted from this key: nobody can try guesses once it is destroyed."""
        return _commitment(self._salted.digest, bound_id(event_id), fields)


def bound_id(event_id: str) -> bytes:
    """What content is bound to: the id of the access, which its intent and what stands for an end
    that never came share."""
    return (terminal_id(event_id) or event_id).encode("utf-8", "surrogatepass")


def commitment(salt: bytes, bound_to: bytes, fields: Mapping[str, bytes]) -> str:
    """A salted digest of what may be erased from an event, by field name."""
    return _commitment(lambda data: hmac.digest(salt, data, "sha256"), bound_to, fields)


def _commitment(
    digest: Callable[[bytes], bytes], bound_to: bytes, fields: Mapping[str, bytes]
) -> str:
    data = b"gatebook commitment\0" + bound_to
    for name in sorted(fields):
        value = fields[name]
        data += b"\0%b\0%b%b" % (name.encode(), len(value).to_bytes(8, "big"), value)
    return f"{COMMITMENT_VERSION}:{digest(data).hex()}"


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(dict[str, Any])


def packed(content: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a layer's fields."""
    return _ENCODER.encode(content)


def unpacked(data: bytes) -> dict[str, Any]:
    """The fields of an opened layer."""
    return _DECODER.decode(data)
