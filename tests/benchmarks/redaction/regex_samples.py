"""Texts that a regular expression matches, drawn from a seeded generator."""

from __future__ import annotations

import importlib
import random
import re
import string
from typing import Any

_parser: Any = importlib.import_module("re._parser")  # no public module gives the parsed tree
PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " "
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_WORD": r"\W",
    "CATEGORY_NOT_SPACE": r"\S",
}
UNBOUNDED_MORE = 1
"""`*`, `+` and `{n,}` repeat at most so many times more than they must."""


def sample(pattern: str, generator: random.Random) -> str:
    """A text of printable ASCII that `pattern` matches. Boundaries and anchors are taken for met;
    ValueError for a pattern that Python cannot parse, or a part that has no such text."""
    try:
        tree = _parser.parse(pattern)
    except re.error as error:
        raise ValueError(f"not a pattern of Python: {error}") from error
    return _sequence(tree, generator)


def _sequence(tree: Any, generator: random.Random) -> str:
    return "".join(_part(str(kind), what, generator) for kind, what in tree)


def _part(kind: str, what: Any, generator: random.Random) -> str:
    match kind:
        case "LITERAL":
            return chr(what)
        case "IN" | "ANY" | "NOT_LITERAL":
            return generator.choice(_characters(kind, what))
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, tree = what
            return _repeated(least, most, tree, generator)
        case "SUBPATTERN":
            return _sequence(what[-1], generator)
        case "BRANCH":
            return _sequence(generator.choice(what[1]), generator)
        case "AT":
            return ""
    raise ValueError(f"{kind} has no sample")


def _repeated(least: int, most: Any, tree: Any, generator: random.Random) -> str:
    if most is _parser.MAXREPEAT:
        most = least + UNBOUNDED_MORE
    return "".join(_sequence(tree, generator) for _ in range(generator.randint(least, int(most))))


def _characters(kind: str, what: Any) -> str:
    if kind == "ANY":
        return PRINTABLE
    if kind == "NOT_LITERAL":
        return PRINTABLE.replace(chr(what), "")
    negated = bool(what) and str(what[0][0]) == "NEGATE"
    members = what[1:] if negated else what
    held = [c for c in PRINTABLE if any(_holds(str(k), v, c) for k, v in members) != negated]
    if not held:
        raise ValueError("a class without printable characters")
    return "".join(held)


def _holds(kind: str, what: Any, character: str) -> bool:
    if kind == "RANGE":
        return bool(what[0] <= ord(character) <= what[1])
    if kind == "CATEGORY":
        return re.match(_CATEGORIES[str(what)], character) is not None
    return kind == "LITERAL" and ord(character) == what
