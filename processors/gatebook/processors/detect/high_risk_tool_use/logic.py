"""Which tool calls count."""

from __future__ import annotations

import re
from functools import lru_cache

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Parameters(CountParameters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    risky: frozenset[str] = frozenset()
    """Words in a tool's name that mean harm, in lower case."""


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(name))


def matches(access: Access, parameters: Parameters) -> bool:
    """Answers that called such a tool."""
    return any(not parameters.risky.isdisjoint(_words(name)) for name in access.tools_called)
