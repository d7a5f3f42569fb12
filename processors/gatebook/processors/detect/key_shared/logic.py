"""Who used a key."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.distinct import DistinctParameters


class Parameters(DistinctParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    apps: frozenset[str] = frozenset()
    """Ids of keys that serve many people by right."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Uses of a key that is not an application's, by somebody."""
    if not access.key_id or access.key_id in parameters.apps:
        return False
    return bool(access.on_behalf_of or access.user_id)


def item(access: Access, parameters: Parameters) -> str:
    """The person behind the key, else its owner."""
    return access.on_behalf_of or access.user_id
