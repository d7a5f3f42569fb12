"""What another policy would have done to accesses that are history. Pure.

The index knows accesses by the fields that a policy matches. What was recorded at level none is
not known, and stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gatebook.producers.policy.document import RANK
from gatebook.producers.policy.match import Decision, Facts, Policy

NOT_KNOWN = "?"
MAX_EXAMPLES = 3


class Group(msgspec.Struct, frozen=True):
    """Accesses that are alike in all a policy looks at. `level` is what was recorded, `bytes` the
    size of their requests and answers."""

    facts: Facts
    level: str
    count: int
    bytes: int
    example: str


class Change(msgspec.Struct):
    """Accesses that would go from one level to another (or, at the same level, lose or gain
    fields: `is_fields`). `content_bytes` is about how much content more would be kept, or less
    where it is negative."""

    before: str
    after: str
    rule: str
    is_fields: bool = False
    count: int = 0
    content_bytes: int = 0
    examples: list[str] = []


class Comparison(msgspec.Struct):
    """All of them. `unchanged` and `unknown` count accesses."""

    total: int = 0
    unchanged: int = 0
    unknown: int = 0
    changes: list[Change] = []


def compare(new: Policy, old: Policy | None, groups: Iterable[Group]) -> Comparison:
    """What would change under `new`: against `old`, or without it against what was recorded."""
    found = Comparison()
    changes: dict[tuple[str, str, str, bool], Change] = {}
    for group in groups:
        found.total += group.count
        if group.level == "none":
            found.unknown += group.count
            continue
        after = new.decide(group.facts)
        before = old.decide(group.facts) if old else None
        level = before.level if before else group.level
        is_fields = before is not None and level == after.level and _differs(before, after)
        if level == after.level and not is_fields:
            found.unchanged += group.count
            continue
        key = (level, after.level, after.rule, is_fields)
        _add(changes.setdefault(key, Change(*key)), group)
    found.changes = sorted(changes.values(), key=lambda change: -change.count)
    return found


def _differs(one: Decision, other: Decision) -> bool:
    def told(decision: Decision) -> Any:
        return decision.actions, decision.retention, decision.searchable

    return bool(told(one) != told(other))


def _add(change: Change, group: Group) -> None:
    change.count += group.count
    if len(change.examples) < MAX_EXAMPLES and group.example:
        change.examples = [*change.examples, group.example]
    gained = _keeps_content(change.after) - _keeps_content(change.before)
    change.content_bytes += gained * group.bytes


def _keeps_content(level: str) -> int:
    return int(RANK.get(level, 0) > RANK["metadata"])


# -- what the index says --------------------------------------------------------------------------

# What a group is made of: a name here, and a field of the index.
SOURCES: Mapping[str, str] = {
    "tenant": "organization.id",
    "assurance": "gatebook.identity.assurance",
    "model": "gen_ai.request.model",
    "answered": "gen_ai.response.model",
    "resolved": "gatebook.model.resolved",
    "route": "url.path",
    "operation": "gen_ai.operation.name",
    "action": "event.action",
    "service": "service.name",
    "status": "http.response.status_code",
    "level": "gatebook.capture.level",
}


def group_of(key: Mapping[str, Any], count: int, size_bytes: int, example: str) -> Group:
    """A group from the values of SOURCES; None stands for a field that is not there."""
    text = {name: str(value) for name, value in key.items() if value is not None}
    facts = Facts(
        tenant=text.get("tenant", ""),
        model=text.get("model", ""),
        answered=text.get("answered", ""),
        resolved=text.get("resolved", ""),
        route=text.get("route", ""),
        operation=text.get("operation") or text.get("action", ""),
        service=text.get("service", ""),
        is_tenant_claimed="tenant" in text and text.get("assurance") != "verified",
        is_route_claimed=text.get("status") in ("404", "405"),
    )
    return Group(facts, text.get("level") or "metadata", count, size_bytes, example)
