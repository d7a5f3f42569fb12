"""Which failures count."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters
from gatebook.processors.detect.own import is_slip


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    ignored_reasons: tuple[str, ...] = ()
    """Values of event.reason that do not count, for example client_aborted."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Failures for a reason that counts."""
    return access.reason not in parameters.ignored_reasons and not is_slip(access)
