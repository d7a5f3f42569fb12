"""Who calls: what is known of the caller of a request, or of a command."""

from __future__ import annotations

from dataclasses import dataclass

from gatebook.processors.serve.access.roles import Permission, permissions_of


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, by `method`: oidc, api_token, login_link, os_account. `tenants` None means all
    of them; an empty set means none. `credential_id` is a digest, never the token or the session
    itself."""

    id: str
    name: str = ""
    method: str = ""
    roles: frozenset[str] = frozenset()
    tenants: frozenset[str] | None = frozenset()
    credential_id: str = ""

    @property
    def permissions(self) -> frozenset[Permission]:
        """All that the roles allow together."""
        return permissions_of(self.roles)

    def may(self, permission: Permission) -> bool:
        """Whether one of the roles allows it."""
        return permission in self.permissions
