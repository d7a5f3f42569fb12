"""Which answers came from another model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    allowed: Mapping[str, frozenset[str]] = {}
    """Model asked for to models that may answer for it."""


@lru_cache(maxsize=4096)
def _same(asked: str, answered: str) -> bool:
    """Whether one name is the other without a path, a date, a tag or a suffix."""
    short, long = sorted((_plain(asked), _plain(answered)), key=len)
    return long.startswith(short)


def _plain(name: str) -> str:
    return name.lower().rstrip("/").rpartition("/")[2].removesuffix(".gguf").removesuffix(":latest")


def matches(access: Access, parameters: Parameters) -> bool:
    """Answers of a model that was neither asked for, nor resolved to, nor allowed."""
    answered = access.response_model
    if _same(access.model, answered):
        return False
    if access.resolved_model and _same(access.resolved_model, answered):
        return False
    return answered not in parameters.allowed.get(access.model, ())
