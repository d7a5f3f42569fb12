"""Tokens as shares of a model's ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters

Tokens = Annotated[int, msgspec.Meta(ge=1)]


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    default_tokens: Tokens = 5_000_000
    """Ceiling of a model that has none of its own, in tokens a window."""
    ceilings: Mapping[str, Tokens] = {}
    """Model to tokens a window."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Accesses that used tokens."""
    return access.input_tokens + access.output_tokens > 0


def value(access: Access, parameters: Parameters) -> float:
    """The share of the model's ceiling that an access used."""
    ceiling = parameters.ceilings.get(access.model, parameters.default_tokens)
    return (access.input_tokens + access.output_tokens) / ceiling
