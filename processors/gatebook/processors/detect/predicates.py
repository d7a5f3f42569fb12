"""Conditions of a rule.toml over the fields of an access, as quick functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from operator import attrgetter
from typing import Any

from gatebook.processors.detect.access import FIELDS, Access
from gatebook.processors.detect.base import Condition
from gatebook.schemas.errors import Fatal

Predicate = Callable[[Access], bool]
OPERATORS = frozenset({"min", "max", "has", "not"})
# Fields with few values and much said about them: what they rule out is found once for all accesses
# that are alike in them.
LIKENESS = (
    "outcome",
    "reason",
    "action",
    "operation",
    "category",
    "assurance",
    "identity_method",
    "address_class",
    "signals",
    "tools_called",
    "degraded_reason",
    "sealed_failed",
    "redaction_failed",
)
likeness = attrgetter(*LIKENESS)
Likeness = tuple[Any, ...]


def field(name: str) -> Callable[[Access], Any]:
    """A getter of one field. Fatal where an access has no such field."""
    if name not in FIELDS:
        raise Fatal(f"an access has no field {name!r}", "see Access in detect/access.py")
    return attrgetter(name)


def text_field(name: str) -> Callable[[Access], str]:
    """A getter of one field as text; several values are joined by commas."""
    get = field(name)

    def text(access: Access) -> str:
        value = get(access)
        if isinstance(value, str):
            return value
        return ",".join(value) if isinstance(value, tuple) else str(value)

    return text


def _compare(get: Callable[[Access], Any], operator: str, wanted: Any) -> Predicate:
    if operator not in OPERATORS:
        raise Fatal(f"{operator!r} is no condition", "use min, max, has or not")
    if operator == "min":
        return lambda access: bool(get(access) >= wanted)
    if operator == "max":
        return lambda access: bool(get(access) <= wanted)
    if operator == "not":
        return lambda access: bool(get(access) != wanted)
    return lambda access: wanted in get(access)


def _condition(name: str, condition: Condition) -> list[Predicate]:
    get = field(name)
    if isinstance(condition, Mapping):
        return [_compare(get, operator, wanted) for operator, wanted in condition.items()]
    if isinstance(condition, list):
        values = frozenset(condition)
        return [lambda access: get(access) in values]
    if condition is True:  # that a text, a number or a list is there
        return [lambda access: bool(get(access))]
    if condition is False:
        return [lambda access: not get(access)]
    return [lambda access: bool(get(access) == condition)]


def predicate(where: Mapping[str, Condition]) -> Predicate | None:
    """All conditions at once; None where there is none."""
    tests = [test for name, condition in where.items() for test in _condition(name, condition)]
    if len(tests) < 2:
        return tests[0] if tests else None
    first, second, *others = tests
    if not others:
        return lambda access: first(access) and second(access)
    return lambda access: all(test(access) for test in tests)


def divided(where: Mapping[str, Condition]) -> tuple[Predicate | None, Predicate | None]:
    """Conditions on LIKENESS, and the others."""
    alike = {name: condition for name, condition in where.items() if name in LIKENESS}
    return predicate(alike), predicate({n: c for n, c in where.items() if n not in alike})


def size_of(value: Sized | float) -> float:
    """A number as it is; of a text or a list how long it is."""
    return float(value) if isinstance(value, (int, float)) else float(len(value))
