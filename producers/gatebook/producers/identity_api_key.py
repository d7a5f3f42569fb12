"""API keys, by their keyed digest; the key itself is never kept.

    GATEBOOK_IDENTITY_KEYS_FILE   TOML: [keys.<key id>] with user_id, user_name, ...
    GATEBOOK_API_KEY_HEADERS      x-api-key,api-key    besides Authorization: Bearer

To rotate a key, give the new one an entry with the same user_id beside the old one's: both are the
same principal, and the event's key_id tells which was used. `gatebook` stores no key, so an entry
is removed by its key id.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gatebook.producers.identity import Identity, bearer_token, key_id_key, keyed_id
from gatebook.schemas.errors import Fatal

DEFAULT_HEADERS = ("x-api-key", "api-key")


class KnownKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the identity keys file."""

    user_id: Annotated[str, Meta(min_length=1, max_length=256)]
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
            f"GATEBOOK_IDENTITY_KEYS_FILE: {path} cannot be used: {type(error).__name__}",
            'write tables like [keys.key_0123...] with user_id = "alice"',
        ) from None


def presented_key(headers: Mapping[str, str], names: Sequence[str] = DEFAULT_HEADERS) -> str:
    """The API key of a request: Authorization: Bearer, or the first of `names` (lower case)."""
    return bearer_token(headers) or next(
        (found for name in names if (found := headers.get(name, "").strip())), ""
    )


class ApiKeyResolver:
    """API keys by their keyed digest. A key in the file is verified: only its holder could make
    that digest match. Any other is asserted: whether the service checks keys is not known here."""

    def __init__(
        self,
        secret: bytes,
        known: Mapping[str, KnownKey],
        header_names: Sequence[str] = DEFAULT_HEADERS,
    ) -> None:
        self._key = key_id_key(secret)
        self._known = known
        self._names = tuple(name.lower() for name in header_names)

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """See IdentityResolver."""
        key = presented_key(headers, self._names)
        if not key:
            return None
        digest = keyed_id(self._key, key)
        owner = self._known.get(digest)
        if owner is None:
            return Identity(method="api_key", assurance="asserted", key_id=digest)
        fields = msgspec.structs.asdict(owner)
        return Identity(method="api_key", assurance="verified", key_id=digest, **fields)
