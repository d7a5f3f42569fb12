"""Which acts count."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    ignored: frozenset[str] = frozenset()
    """Values of event.action that do not count."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Privileged acts that are not daily business."""
    return access.action not in parameters.ignored
