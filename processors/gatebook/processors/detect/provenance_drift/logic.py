"""What a model is made of."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.first_seen import FirstSeenParameters


class Parameters(FirstSeenParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    announced: frozenset[str] = frozenset()
    """Weights digests or engine versions that are expected."""


def matches(access: Access, parameters: Parameters) -> bool:
    """Accesses whose server tells what it serves, and not something announced."""
    told = access.weights_hash or access.quantization or access.adapter or access.engine_version
    if not told or not access.model:
        return False
    return parameters.announced.isdisjoint((access.weights_hash, access.engine_version))


def item(access: Access, parameters: Parameters) -> str:
    """Weights, quantisation, adapter and engine in one text."""
    parts = (
        access.weights_hash[:16],
        access.quantization,
        access.adapter,
        access.engine,
        access.engine_version,
    )
    return " ".join(part for part in parts if part)
