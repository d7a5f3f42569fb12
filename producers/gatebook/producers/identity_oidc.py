"""Tokens of one OpenID Connect issuer: signed JWTs in Authorization: Bearer.

    GATEBOOK_OIDC_ISSUER=https://login.example.com/realm   exactly as in the tokens' iss
    GATEBOOK_OIDC_AUDIENCE=model-service                   aud must be one of these

A token is verified when its signature is by one of the issuer's public keys (found by discovery on
the issuer's own origin, or at GATEBOOK_OIDC_JWKS_URL), with an accepted algorithm, and issuer,
audience, exp and nbf hold at the time the request began. Then GATEBOOK_OIDC_*_CLAIM say which
claims become user.id, user.name, user.email, user.roles, organization.id and session.id. user.id
is the subject by default: a refreshed token is the same principal.

A token that does not hold is `failed`, with a reason and without a name. While there is no key to
check with it is `asserted`: whom it names stands in the attributes only. Opaque bearer tokens are
left to the next resolver. A token is never kept; what was verified is remembered by the token's
digest until it expires, so that a repeated token costs a digest and not a signature check.
Needs `gatebook[oidc]` (PyJWT and cryptography).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from gatebook.producers.identity import (
    STARTED_AT,
    Identity,
    bearer_token,
    failed,
    name_problem,
)
from gatebook.producers.identity_fetch import fetch_json, find_jwks_url
from gatebook.producers.identity_jwks import Missing, SigningKeys
from gatebook.producers.values import text
from gatebook.schemas.errors import Fatal

if TYPE_CHECKING:
    from gatebook.producers.config import ProducerSettings

MAX_TOKEN_CHARS = 16 * 1024
_METHOD = "oidc"
_MAX_ROLES = 64
_MAX_REMEMBERED = 4096
_SIGNED_DOTS = 2
_ENCRYPTED_DOTS = 4
# Access and ID tokens; a logout token or a DPoP proof is signed by the same keys and is neither.
_TOKEN_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
# PyJWT checks times against now; they are checked against the request's own time here.
_OPTIONS: Any = {
    "require": ["exp", "iss", "aud"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class Refused(Exception):
    """A token that does not hold; `reason` is a code. `signed` says that the issuer made it."""

    def __init__(self, reason: str, signed: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.signed = signed


class OidcResolver:
    """Verified claims of bearer tokens. `settings.oidc_issuer` must be set. Raises Fatal where the
    libraries are not installed."""

    def __init__(self, settings: ProducerSettings) -> None:
        if importlib.util.find_spec("jwt") is None or not _has_cryptography():
            raise Fatal(
                "GATEBOOK_OIDC_ISSUER is set, but tokens cannot be checked: PyJWT is missing",
                "pip install 'gatebook[oidc]'",
            )
        self._settings = settings
        self._remembered = _Remembered()
        self.keys = SigningKeys(
            self._fetch_keys,
            settings.oidc_algorithms,
            settings.oidc_refresh_seconds,
            settings.oidc_refetch_seconds,
            settings.oidc_stale_seconds,
        )

    def start(self) -> None:
        """Begin to fetch keys, without waiting for them."""
        self.keys.start()

    def close(self) -> None:
        """Stop fetching keys."""
        self.keys.close()

    def _fetch_keys(self) -> Any:
        settings = self._settings
        timeout_seconds = settings.oidc_timeout_seconds
        url = settings.oidc_jwks_url or find_jwks_url(settings.oidc_issuer, timeout_seconds)
        return fetch_json(url, timeout_seconds)

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """See IdentityResolver."""
        token = bearer_token(headers)
        if token.count(".") not in (_SIGNED_DOTS, _ENCRYPTED_DOTS):
            return None
        if len(token) > MAX_TOKEN_CHARS:
            return failed(_METHOD, "too_large")
        at = scope.get(STARTED_AT) or time.time()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        return self._known(digest, at) or self._checked(token, digest, at)

    def claims_of(self, token: str, at: float) -> Mapping[str, Any]:
        """All claims of a token that holds at a time, in seconds since 1970. Raises Refused, and
        Missing while there is no key to check with. For whoever needs more than an Identity."""
        if len(token) > MAX_TOKEN_CHARS:
            raise Refused("too_large")
        header = _json_part(token.partition(".")[0])
        if "alg" not in header:
            raise Refused("malformed")
        claims = self._verified_claims(token, header)
        self._check_times(claims, at)
        return claims

    def _known(self, digest: bytes, at: float) -> Identity | None:
        if not self.keys.usable(time.monotonic()):
            return None
        return self._remembered.get(digest, self.keys.generation, at)

    def _checked(self, token: str, digest: bytes, at: float) -> Identity | None:
        header = _json_part(token.partition(".")[0])
        if "alg" not in header:
            return None  # an opaque key that has dots in it
        generation = self.keys.generation
        try:
            claims = self._verified_claims(token, header)
            until = self._check_times(claims, at)
            identity = self._named(claims)
        except Missing as missing:
            return self._unchecked(token, missing)
        except Refused as refused:
            issuer = self._settings.oidc_issuer if refused.signed else ""
            return failed(_METHOD, refused.reason, issuer)
        self._remembered.put(digest, generation, until, identity)
        return identity

    def _verified_claims(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        algorithm, key_id = header["alg"], header.get("kid")
        if token.count(".") != _SIGNED_DOTS:
            raise Refused("encrypted")
        if algorithm not in self._settings.oidc_algorithms:
            raise Refused("algorithm")
        if str(header.get("typ", "")).lower() not in _TOKEN_TYPES:
            raise Refused("type")
        if key_id is not None and not isinstance(key_id, str):
            raise Refused("malformed")
        if _json_part(token.split(".")[1]).get("iss") != self._settings.oidc_issuer:
            raise Refused("issuer")  # before its key is looked for: it is not one of ours
        keys = self.keys.find(key_id, algorithm, time.monotonic())
        for key in keys[:-1]:
            try:
                return self._decoded(token, key, algorithm)
            except Refused as refused:
                if refused.reason != "signature":
                    raise
        return self._decoded(token, keys[-1], algorithm)

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        import jwt
        from jwt import exceptions

        settings = self._settings
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=settings.oidc_audience,
                issuer=settings.oidc_issuer,
                options=_OPTIONS,
            )
        except exceptions.InvalidSignatureError:
            raise Refused("signature") from None
        except exceptions.InvalidAudienceError:
            raise Refused("audience", signed=True) from None
        except exceptions.InvalidIssuerError:
            raise Refused("issuer") from None
        except exceptions.MissingRequiredClaimError:
            raise Refused("claims") from None
        except (exceptions.PyJWTError, ValueError, TypeError, RecursionError):
            raise Refused("malformed") from None

    def _check_times(self, claims: Mapping[str, Any], at: float) -> float:
        """Until when the token holds, leeway included. Raises Refused."""
        leeway_seconds = self._settings.oidc_leeway_seconds
        expires, begins = claims["exp"], claims.get("nbf", 0)
        if not (_is_time(expires) and _is_time(begins)):
            raise Refused("claims", signed=True)
        if at >= expires + leeway_seconds:
            raise Refused("expired", signed=True)
        if at < begins - leeway_seconds:
            raise Refused("not_yet_valid", signed=True)
        return float(expires + leeway_seconds)

    def _named(self, claims: Mapping[str, Any]) -> Identity:
        settings = self._settings
        email_proved = claims.get("email_verified", True) is not False
        email = text(claim(claims, settings.oidc_email_claim)) if email_proved else ""
        if settings.oidc_user_claim == settings.oidc_email_claim:
            user_id = email
        else:
            user_id = _name(claim(claims, settings.oidc_user_claim))
        organization_id = _name(claim(claims, settings.oidc_organization_claim))
        problem = name_problem(user_id) or (organization_id and name_problem(organization_id))
        if problem:
            raise Refused(problem, signed=True)
        return Identity(
            method=_METHOD,
            assurance="verified",
            issuer=settings.oidc_issuer,
            user_id=user_id,
            user_name=text(claim(claims, settings.oidc_name_claim)),
            user_email=email,
            user_roles=_roles(claim(claims, settings.oidc_roles_claim)),
            organization_id=organization_id,
            session_id=text(claim(claims, settings.oidc_session_claim)),
        )

    def _unchecked(self, token: str, missing: Missing) -> Identity:
        if not missing.pending:
            return failed(_METHOD, missing.reason)
        claims = _json_part(token.split(".")[1])
        return Identity(
            method=_METHOD,
            assurance="asserted",
            reason=missing.reason,
            claimed_subject=text(claim(claims, self._settings.oidc_user_claim)),
        )


class _Remembered:
    """Who was verified by which token, by the token's digest; the oldest goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[int, float, Identity]] = OrderedDict()

    def get(self, digest: bytes, generation: int, at: float) -> Identity | None:
        """The identity, while the same keys are in use and the token has not expired."""
        entry = self._entries.get(digest)
        if entry is None or entry[0] != generation or at >= entry[1]:
            return None
        return entry[2]

    def put(self, digest: bytes, generation: int, until: float, identity: Identity) -> None:
        """Remember; only what was verified, so that forged tokens push nobody out."""
        with self._lock:
            self._entries[digest] = (generation, until, identity)
            while len(self._entries) > _MAX_REMEMBERED:
                self._entries.popitem(last=False)


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


def _name(value: object) -> str:
    """A name as it stands, uncut: two names must not become one."""
    return value if isinstance(value, str) else ""


def _roles(value: object) -> tuple[str, ...]:
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list):
        return ()
    return tuple(text(item) for item in items[:_MAX_ROLES] if isinstance(item, str))


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _json_part(part: str) -> Mapping[str, Any]:
    """A part of a token as a JSON object; empty where it is none. Not verified."""
    try:
        padded = part + "=" * (-len(part) % 4)
        found = msgspec.json.decode(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_cryptography() -> bool:
    return importlib.util.find_spec("cryptography") is not None
