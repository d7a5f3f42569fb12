"""Draws texts that a pattern matches: what tokens look like, without a token in a file."""

from __future__ import annotations

import random
import string
from re import _parser  # type: ignore[attr-defined]  # the only parser of patterns in the library
from typing import Any

MOST_REPEATS = 48


def sample(pattern: str, source: random.Random) -> str:
    """Return a text that the whole pattern matches, drawn evenly at each choice."""
    return _drawn(_parser.parse(pattern), source)


def _drawn(parts: Any, source: random.Random) -> str:
    return "".join(_one(str(kind), value, source) for kind, value in parts)


def _one(kind: str, value: Any, source: random.Random) -> str:
    if kind == "LITERAL":
        return chr(value)
    if kind == "NOT_LITERAL":
        return source.choice([c for c in string.ascii_letters if ord(c) != value])
    if kind == "IN":
        return source.choice(_members(value))
    if kind == "BRANCH":
        return _drawn(source.choice(value[1]), source)
    if kind == "SUBPATTERN":
        return _drawn(value[3], source)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        low, high, inner = value
        most = max(low, min(high, MOST_REPEATS))
        return "".join(_drawn(inner, source) for _ in range(source.randint(low, most)))
    raise NotImplementedError(kind)


def _members(items: Any) -> list[str]:
    wanted: set[str] = set()
    if str(items[0][0]) == "NEGATE":
        unwanted = set(_members(items[1:]))
        return sorted(set(string.ascii_letters + string.digits) - unwanted)
    for kind, value in items:
        if str(kind) == "LITERAL":
            wanted.add(chr(value))
        elif str(kind) == "RANGE":
            wanted.update(map(chr, range(value[0], value[1] + 1)))
        elif str(value) == "CATEGORY_SPACE":
            wanted.add(" ")
        else:
            wanted.update(string.ascii_letters + string.digits)
    return sorted(wanted)
