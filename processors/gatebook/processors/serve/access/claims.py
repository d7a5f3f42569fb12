"""What the claims of a token that holds make of its bearer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.roles import ROLES
from gatebook.processors.serve.access.settings import EVERYBODY, AccessSettings

MAX_VALUES = 256
MAX_CHARS = 256


class TokenRefused(Exception):
    """A token that does not hold; `reason` is a code, without anything the token said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenUncheckable(Exception):
    """There is no key to check with now. Nothing is said against the token, and nobody let in."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenVerifier(Protocol):
    """Checks tokens of one issuer for one audience."""

    async def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token whose signature, issuer, audience and times hold. Raises
        TokenRefused, TokenUncheckable."""


def caller_of_claims(
    claims: Mapping[str, Any], settings: AccessSettings, credential_id: str
) -> Caller:
    """The bearer, with the roles and tenants that the settings give to these claims: perhaps
    none. Raises TokenRefused for a token that names nobody."""
    values = _values(claim(claims, settings.oidc_roles_claim))
    user_id = claim(claims, settings.oidc_user_claim)
    if not isinstance(user_id, str) or not 0 < len(user_id) <= MAX_CHARS:
        raise TokenRefused("claims")
    name = claim(claims, settings.oidc_name_claim)
    return Caller(
        id=user_id,
        name=name[:MAX_CHARS] if isinstance(name, str) else "",
        method="oidc",
        roles=_roles(values, settings),
        tenants=_tenants(claims, values, settings),
        credential_id=credential_id,
    )


def _roles(values: frozenset[str], settings: AccessSettings) -> frozenset[str]:
    if not settings.oidc_roles:
        return values & frozenset(ROLES)
    pairs = (one.rpartition("=") for one in settings.oidc_roles)
    return frozenset(role for value, _, role in pairs if value in values)


def _tenants(
    claims: Mapping[str, Any], values: frozenset[str], settings: AccessSettings
) -> frozenset[str] | None:
    if settings.oidc_all_tenants == EVERYBODY or settings.oidc_all_tenants in values:
        return None
    return _values(claim(claims, settings.oidc_tenants_claim))


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name; with dots, also within objects. None where there is none."""
    if not name:
        return None
    if name in claims or "." not in name:
        return claims.get(name)
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _values(value: object) -> frozenset[str]:
    """A list of texts, or the words of one text; of anything else nothing."""
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list):
        return frozenset()
    texts = (item for item in items[:MAX_VALUES] if isinstance(item, str))
    return frozenset(text for text in texts if 0 < len(text) <= MAX_CHARS)
