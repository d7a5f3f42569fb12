"""Which requests count."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    policies: Annotated[int, msgspec.Meta(ge=2)] = 2
    """Guardrails that intervened in one request."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Requests that several guardrails blocked; a gateway names them with commas between."""
    names = {name.strip() for name in access.attributes["guardrail"].split(",")}
    return len(names - {""}) >= parameters.policies
