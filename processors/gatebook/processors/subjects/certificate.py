"""Certificates of erasure: JSON that an Ed25519 key signs."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gatebook.schemas.errors import Fatal, GatebookError
from gatebook.schemas.key_files import warn_if_exposed

FORMAT = "gatebook-erasure/1"
SEED_BYTES = 32
_NONE = {FORMAT: "this is no certificate of erasure"}


class NotVerified(GatebookError):
    """The certificate is not what the key signed, or is none."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs. Its public half stands in a file beside it, to be given away."""

    private: Ed25519PrivateKey

    @classmethod
    def from_file(cls, path: Path) -> Signer:
        """The key in a file; made there (mode 0600) by the first who asks. Raises Fatal."""
        try:
            seed = _read_or_make(path)
            signer = cls(Ed25519PrivateKey.from_private_bytes(seed))
            path.with_suffix(".pub").write_text(signer.public + "\n")
        except (OSError, ValueError):
            raise Fatal(
                f"the certificates' key {path} cannot be made or read",
                "set GATEBOOK_SUBJECT_CERTIFICATE_KEY_FILE to a file of 32 random bytes",
            ) from None
        return signer

    @property
    def public(self) -> str:
        """The public key in base64."""
        return base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    def sign(self, statement: Mapping[str, Any], format_: str = FORMAT) -> dict[str, Any]:
        """The statement with its signature and the public key. `format_` says what it states: a
        signature of one kind never holds for another."""
        signed = {**statement, "format": format_, "public_key": self.public}
        signature = self.private.sign(_covered(signed))
        return {**signed, "signature": base64.b64encode(signature).decode()}


def _read_or_make(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(SEED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # the first one wins
        draft.unlink()
    warn_if_exposed(path)
    return path.read_bytes()


def _covered(certificate: Mapping[str, Any]) -> bytes:
    body = {name: value for name, value in certificate.items() if name != "signature"}
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def verify_certificate(data: bytes, public_key: str = "", format_: str = FORMAT) -> dict[str, Any]:
    """The certificate, where its signature holds. Without `public_key` (base64) it is checked
    against the key that stands in it: that shows it was not changed, not who made it.
    Raises NotVerified."""
    try:
        certificate = orjson.loads(data)
        if certificate["format"] != format_:
            raise NotVerified(_NONE.get(format_, "this is none"))
        if public_key and certificate["public_key"] != public_key.strip():
            raise NotVerified("another key signed this certificate")
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(certificate["public_key"]))
        key.verify(base64.b64decode(certificate["signature"]), _covered(certificate))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise NotVerified(_NONE.get(format_, "this is none")) from None
    except InvalidSignature:
        raise NotVerified("the signature does not hold: the certificate was changed") from None
    return dict(certificate)
