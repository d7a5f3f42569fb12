"""Sealing keys encrypted by Vault's transit engine: the file on disk is of no use without Vault.

    gatebook keys new --private private.json --public public.json
    base64 -w0 private.json | vault write -field=ciphertext transit/encrypt/gatebook plaintext=- \\
      > /etc/gatebook/private.vault
    shred -u private.json
    export VAULT_ADDR=https://vault.example:8200 VAULT_TOKEN_FILE=/run/vault/token
    export GATEBOOK_SEALING_KEYS=vault:transit/gatebook@/etc/gatebook/private.vault

An example of a key source for a KMS: all of it is `read` and `version`. The keys are in the memory
of intake while it runs; what Vault adds is that they stand nowhere else in the open, and that each
start of intake is in Vault's own audit log.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Hashable
from pathlib import Path

from gatebook.schemas.errors import WrongSetting
from gatebook.schemas.keys import FileSource, KeysUnavailable

TIMEOUT_SECONDS = 10


class VaultKeys:
    """`MOUNT/KEY@FILE`: the file holds what Vault's transit engine at MOUNT encrypted with KEY."""

    def __init__(self, setting: str) -> None:
        place, _, path = setting.partition("@")
        mount, _, name = place.rpartition("/")
        if not (mount and name and path):
            raise WrongSetting("a key source in Vault is incomplete", "write vault:MOUNT/KEY@FILE")
        self._file = FileSource(path)
        self._path = f"/v1/{mount}/decrypt/{name}"

    def version(self) -> Hashable:
        """Vault is asked again only when the encrypted file changes."""
        return self._file.version()

    def read(self) -> bytes:
        """The bundle, decrypted by Vault. Raises KeysUnavailable."""
        body = json.dumps({"ciphertext": self._file.read().decode().strip()}).encode()
        request = urllib.request.Request(  # noqa: S310 the address is the operator's own setting
            os.environ.get("VAULT_ADDR", "https://127.0.0.1:8200").rstrip("/") + self._path,
            data=body,
            headers={"X-Vault-Token": _token(), "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 as above
                return base64.b64decode(json.load(answer)["data"]["plaintext"])
        except (OSError, ValueError, KeyError) as error:  # the error's own words may quote Vault's
            raise KeysUnavailable(f"Vault did not decrypt: {type(error).__name__}") from None


def _token() -> str:
    """Read each time: an agent beside us renews it."""
    path = os.environ.get("VAULT_TOKEN_FILE", "")
    return Path(path).read_text().strip() if path else os.environ.get("VAULT_TOKEN", "")
