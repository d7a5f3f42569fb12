"""Names that a trusted proxy wrote into headers, after it signed the caller in by itself.

    GATEBOOK_TRUSTED_PROXIES=10.0.0.0/24
    GATEBOOK_IDENTITY_USER_HEADER=x-forwarded-user       user.id
    GATEBOOK_IDENTITY_EMAIL_HEADER=x-auth-request-email  user.email, and user.id without the above
    GATEBOOK_IDENTITY_ROLES_HEADER=x-auth-request-groups user.roles, separated by commas

No header is read by default: a proxy that does not set *and* remove a header passes a caller's own
on. From any other peer the headers are as if they were not there. Behind uvicorn turn its own
`--proxy-headers` off, or the proxy is not seen any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatebook.producers.addresses import Network, is_trusted_peer
from gatebook.producers.identity import Identity, failed, name_problem

_METHOD = "header"
_MAX_ROLES = 64


def decoded(value: str) -> str:
    """A header's value as UTF-8 where it is that; ASGI and WSGI have it in Latin-1."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


class HeaderResolver:
    """Names by header from trusted proxies. Verified means: by the proxy. `issuer` is its address.

    A name with a comma is refused: it is two, where a proxy added its own to a caller's.
    """

    def __init__(self, user: str, email: str, roles: str, trusted: Sequence[Network]) -> None:
        self._user, self._email, self._roles = user.lower(), email.lower(), roles.lower()
        self._trusted = tuple(trusted)

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """See IdentityResolver."""
        email = decoded(headers.get(self._email, "").strip()) if self._email else ""
        user = decoded(headers.get(self._user, "").strip()) if self._user else ""
        if not (user or email) or not is_trusted_peer(scope.get("client"), self._trusted):
            return None
        problem = "header_repeated" if "," in user + email else name_problem(user or email)
        if problem:
            return failed(_METHOD, problem)
        return Identity(
            method=_METHOD,
            assurance="verified",
            user_id=user or email,
            user_email=email,
            user_roles=self._roles_of(headers),
            issuer=str(scope["client"][0]),
        )

    def _roles_of(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        given = decoded(headers.get(self._roles, "")) if self._roles else ""
        return tuple(role.strip() for role in given.split(",") if role.strip())[:_MAX_ROLES]
