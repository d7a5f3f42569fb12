"""Who called: what is known of a caller, and the seam behind which each way to know it stands.

`GATEBOOK_IDENTITY_RESOLVERS` sets which ways are used and in which order:

    oidc       a signed token of one OpenID Connect issuer             identity_oidc.py
    api_key    an API key, known by its keyed digest                   identity_api_key.py
    mtls       a client certificate, of the connection or of a proxy   identity_mtls.py
    header     a name that a trusted proxy wrote into a header         identity_header.py
    anonymous  nobody; only as the last one, and always implied

identity_chain.py asks them. No resolver keeps, logs or records a secret, token or key.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from gatebook.producers.values import NAME_MAX_CHARS

KEY_ID_HEX_DIGITS = 24
# In the view of a scope that resolvers get: when the request began, seconds since 1970. A stream
# may outlive its token.
STARTED_AT = "gatebook.started_at_seconds"
_KEY_PURPOSE = b"gatebook api key v1"
_CONTENT_PURPOSE = b"gatebook content v1"
_UNPROVED_STATUS = frozenset({401, 403})


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a caller. Empty means: not known. `method` and `assurance` as the schema
    lists them.

    `reason` is a code that says why the assurance is not better. `claimed_subject` is whom a token
    names that could not be checked yet: it never counts as the user. `on_behalf_of` and
    `session_id` may be the caller's own words.
    """

    user_id: str = ""
    user_name: str = ""
    user_email: str = ""
    user_roles: tuple[str, ...] = ()
    organization_id: str = ""
    method: str = "anonymous"
    assurance: str = ""
    issuer: str = ""
    key_id: str = ""
    session_id: str = ""
    on_behalf_of: str = ""
    reason: str = ""
    claimed_subject: str = ""

    def attributes(self) -> dict[str, str]:
        """What has no field of its own in the event."""
        given = {
            "identity_reason": self.reason,
            "identity_claimed_subject": self.claimed_subject[:NAME_MAX_CHARS],
        }
        return {name: value for name, value in given.items() if value}


ANONYMOUS = Identity()


class IdentityResolver(Protocol):
    """One way to tell who calls, from an ASGI scope after the service has answered. Those of the
    settings are given the scope's `type`, `client` and `extensions` only, and may run in any
    thread; one that a service brings itself runs on the event loop, with the whole scope."""

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """None where the request carries nothing of this kind. `headers` has lower-case names; of
        a repeated one, all values joined by commas. `scope` has STARTED_AT in addition.
        No I/O. What it raises is logged by type and counts as None."""


def derive(secret: bytes, purpose: bytes) -> bytes:
    """A key for one purpose, so that digests for one tell nothing about another."""
    return hmac.digest(secret, purpose, "sha256")


def content_key(secret: bytes) -> bytes:
    """The key of content digests."""
    return derive(secret, _CONTENT_PURPOSE)


def key_id(secret: bytes, api_key: str) -> str:
    """The keyed digest by which an API key is known; `secret` as `digest_secret()` gives it."""
    return keyed_id(key_id_key(secret), api_key)


def key_id_key(secret: bytes) -> bytes:
    """The key of key ids, for `keyed_id`."""
    return derive(secret, _KEY_PURPOSE)


def keyed_id(key: bytes, api_key: str) -> str:
    """`key_id` with the key derived already, as it is done for every request."""
    digest = hmac.digest(key, api_key.encode("utf-8", "surrogateescape"), "sha256")
    return "key_" + digest.hex()[:KEY_ID_HEX_DIGITS]


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token of Authorization: Bearer; empty where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def failed(method: str, reason: str, issuer: str = "") -> Identity:
    """A proof that was shown and does not hold: nobody is named from it."""
    return Identity(method=method, assurance="failed", reason=reason, issuer=issuer)


def name_problem(user_id: str) -> str:
    """Why a name cannot be a user id; empty where it can.

    Cut to the event's limit two names could become one, and with marks that are not seen one name
    could look like another.
    """
    if not user_id:
        return "no_name"
    if len(user_id) > NAME_MAX_CHARS:
        return "name_too_long"
    return "" if user_id.isprintable() else "name_not_printable"


def judged(identity: Identity, status_code: int | None) -> Identity:
    """The identity in the light of the answer: a refused caller is not named after a key that
    proved nothing. An identity proved by other means stays when it was only forbidden (403)."""
    if status_code not in _UNPROVED_STATUS or identity.assurance == "failed":
        return identity
    if status_code == 403 and identity.assurance == "verified" and identity.method != "api_key":
        return identity
    return Identity(
        method=identity.method,
        assurance="failed",
        issuer=identity.issuer,
        key_id=identity.key_id,
        reason=identity.reason or _refusal(identity),
    )


def _refusal(identity: Identity) -> str:
    return "no_credentials" if identity.method == "anonymous" else "refused_by_service"
