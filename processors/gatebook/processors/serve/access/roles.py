"""Roles and what each may do: one table, and the order in which roles are told."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Permission(StrEnum):
    """One thing a caller may do. A route asks for exactly one of them."""

    SESSION = "session"  # to know who one is; everybody who is known has it
    SEARCH = "search"  # search, view, histogram, facets, around, tail, findings: metadata
    OVERVIEW = "overview"  # figures of the pipeline and of storage
    IDENTITIES = "identities"  # who called, by any name, id or address: to see and to query
    CONTENT = "content"  # redacted content that stands in the index, and to search it
    EXPORT = "export"
    VERDICT = "verdict"
    SAVED_SEARCHES = "saved_searches"
    REVEAL_REDACTED = "reveal_redacted"
    REVEAL_FULL = "reveal_full"
    REIDENTIFY = "reidentify"
    HOLDS = "holds"
    RETENTION_READ = "retention_read"
    RETENTION = "retention"
    POLICY = "policy"
    TOKENS = "tokens"


VIEWER = frozenset(
    {Permission.SESSION, Permission.SEARCH, Permission.OVERVIEW, Permission.RETENTION_READ}
)
ANALYST = VIEWER | {
    Permission.IDENTITIES,
    Permission.CONTENT,
    Permission.EXPORT,
    Permission.VERDICT,
    Permission.SAVED_SEARCHES,
    Permission.REVEAL_REDACTED,
}
PRIVACY_OFFICER = ANALYST | {Permission.REVEAL_FULL, Permission.REIDENTIFY, Permission.HOLDS}
# An administrator sets things up. Whoever is to look into the log as well has another role, too.
ADMIN = frozenset(
    {
        Permission.SESSION,
        Permission.OVERVIEW,
        Permission.RETENTION_READ,
        Permission.RETENTION,
        Permission.POLICY,
        Permission.TOKENS,
    }
)

ROLES: dict[str, frozenset[Permission]] = {
    "viewer": VIEWER,
    "analyst": ANALYST,
    "privacy_officer": PRIVACY_OFFICER,
    "admin": ADMIN,
}


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """All that these roles may do together. A role that does not exist may do nothing."""
    granted: frozenset[Permission] = frozenset()
    for role in roles:
        granted |= ROLES.get(role, frozenset())
    return granted
