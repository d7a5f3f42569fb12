"""Who called: resolvers turn what a request carries into an identity, never into a secret."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from gatebook.schemas.errors import Fatal

KEY_ID_HEX_DIGITS = 24
_KEY_PURPOSE = b"gatebook api key v1"
_CONTENT_PURPOSE = b"gatebook content v1"
_UNPROVED_STATUS = frozenset({401, 403})


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a caller. Empty means: not known. `method` and `assurance` as the schema
    lists them."""

    user_id: str = ""
    user_name: str = ""
    user_email: str = ""
    user_roles: tuple[str, ...] = ()
    organization_id: str = ""
    method: str = "anonymous"
    assurance: str = ""
    issuer: str = ""
    key_id: str = ""


ANONYMOUS = Identity()


class IdentityResolver(Protocol):
    """One way to tell who calls, from an ASGI scope after the service has answered."""

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """None where the request carries nothing of this kind. `headers` has lower-case names.
        Runs on the event loop: no I/O. What it raises is logged by type and counts as None."""


def derive(secret: bytes, purpose: bytes) -> bytes:
    """A key for one purpose, so that digests for one tell nothing about another."""
    return hmac.digest(secret, purpose, "sha256")


def content_key(secret: bytes) -> bytes:
    """The key of content digests."""
    return derive(secret, _CONTENT_PURPOSE)


def key_id(secret: bytes, api_key: str) -> str:
    """The keyed digest by which an API key is known; `secret` as `digest_secret()` gives it."""
    digest = hmac.new(derive(secret, _KEY_PURPOSE), api_key.encode(), hashlib.sha256)
    return "key_" + digest.hexdigest()[:KEY_ID_HEX_DIGITS]


class KnownKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the identity keys file."""

    user_id: Annotated[str, Meta(min_length=1)]
    user_name: str = ""
    user_email: str = ""
    user_roles: tuple[str, ...] = ()
    organization_id: str = ""


def load_known_keys(path: str) -> dict[str, KnownKey]:
    """Key id to owner from a TOML file `[keys.<key id>]`; empty where no path is given.

    Raises Fatal where the file cannot be read or has a field that is not known.
    """
    if not path:
        return {}
    try:
        table = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        return msgspec.convert(table.get("keys", {}), dict[str, KnownKey])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Fatal(
            f"the identity keys file {path} cannot be used: {type(error).__name__}",
            'write tables like [keys.key_0123...] with user_id = "alice"',
        ) from None


def presented_key(headers: Mapping[str, str]) -> str:
    """The API key of a request: Authorization: Bearer, x-api-key or api-key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip() or headers.get("api-key", "").strip()


class ApiKeyResolver:
    """API keys by their keyed digest. A key in the file is verified: only its holder could make
    that digest match. Any other is asserted: whether the service checks keys is not known here."""

    def __init__(self, secret: bytes, known: Mapping[str, KnownKey]) -> None:
        self._secret = secret
        self._known = known

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """See IdentityResolver."""
        key = presented_key(headers)
        if not key:
            return None
        digest = key_id(self._secret, key)
        owner = self._known.get(digest)
        if owner is None:
            return Identity(method="api_key", assurance="asserted", key_id=digest)
        fields = msgspec.structs.asdict(owner)
        return Identity(method="api_key", assurance="verified", key_id=digest, **fields)


def judged(identity: Identity, status_code: int | None) -> Identity:
    """The identity in the light of the answer: a refused caller is not named after a key that
    proved nothing. An identity proved by other means stays when it was only forbidden (403)."""
    if status_code not in _UNPROVED_STATUS:
        return identity
    if status_code == 403 and identity.assurance == "verified" and identity.method != "api_key":
        return identity
    return Identity(
        method=identity.method, assurance="failed", issuer=identity.issuer, key_id=identity.key_id
    )
