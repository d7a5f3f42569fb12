"""Fields that a caller may not see, and so may neither query, sort by nor count by: a filter, an
order and a count each tell the value as well as showing it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.query import And, Comparison, Node, Not, Or, parse
from gatebook.processors.serve.access.caller import Caller, Refused
from gatebook.processors.serve.access.roles import Permission

MASK = "[masked]"
SEALED = "[sealed]"

# By the permission that shows them. Of a flattened field all keys are meant. Beside the fields
# themselves stand those that carry the same values: a principal may be an address, the search of
# a finding names one, and what an auditor asked for stands in the attributes of its event.
# Ids of sessions, conversations and traces name nobody; they stay, to tell what belongs together.
MASKED: Mapping[Permission, tuple[str, ...]] = {
    Permission.IDENTITIES: (
        "user.id",
        "user.name",
        "user.full_name",
        "user.email",
        "user.hash",
        "source.ip",
        "source.port",
        "user_agent.original",
        "gatebook.principal",
        "gatebook.subject",
        "gatebook.identity.key_id",
        "gatebook.identity.on_behalf_of",
        "gatebook.attributes",
        "gatebook.search",
        "gatebook.dedup_key",
        "gatebook.group",
        "labels",
    ),
    Permission.CONTENT: (
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.request.stop_sequences",
        "gatebook.content_digest",
        "error.message",
    ),
}
# Of findings and deliveries alone: their reason is a sentence that begins with whom it is about.
MASKED_REASONS = ("finding", "alert")
REASON = "event.reason"
EVENT_KIND = "event.kind"
ALERT = "alert"  # event.kind of both
# Ciphertext is of no use to anybody here; `reveal` opens it.
NEVER_SHOWN = ("gatebook.sealed.redacted", "gatebook.sealed.full")


@cache
def _masked_without(permissions: frozenset[Permission]) -> tuple[str, ...]:
    return tuple(
        name for needed, names in MASKED.items() if needed not in permissions for name in names
    )


def is_masked(caller: Caller, field: str, kind: str = "access") -> bool:
    """Whether a caller may not know what stands in a field of documents of a kind."""
    names = _masked_without(caller.permissions)
    if field == REASON and kind in MASKED_REASONS:
        return not caller.may(Permission.IDENTITIES)
    return any(field == name or field.startswith(f"{name}.") for name in names)


def visible_fields(caller: Caller, kind: str) -> FieldList:
    """The fields of a kind without those that are masked: what free text of this caller looks into,
    and all that a compiler of queries should know of for this caller."""
    fields = fields_of(kind)
    return fields.only([name for name in fields.types if not is_masked(caller, name, kind)])


def refuse_masked(caller: Caller, *fields: str, kind: str = "access") -> None:
    """For sort orders, facets, splits and pivots. Raises Refused (403)."""
    for name in fields:
        if is_masked(caller, name, kind):
            raise _refused(name, None)


def check_query(caller: Caller, query: str, kind: str = "access") -> None:
    """Refuse a query that names a masked field, with its position. Raises Refused (403), and
    QueryError where the query cannot be understood."""
    for comparison in _comparisons(parse(query)):
        if is_masked(caller, comparison.name, kind):
            raise _refused(comparison.name, comparison.at)


def _refused(field: str, position: int | None) -> Refused:
    return Refused(
        403,
        "masked_field",
        f"{field} is masked for your roles: it can be neither shown nor queried, sorted or counted",
        "leave it out, or ask an administrator for a role that shows it",
        position,
        field=field,
    )


def _comparisons(node: Node) -> Iterator[Comparison]:
    if isinstance(node, Comparison):
        yield node
    elif isinstance(node, Not):
        yield from _comparisons(node.part)
    elif isinstance(node, And | Or):
        for part in node.parts:
            yield from _comparisons(part)


def masked(caller: Caller, document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as this caller may see it: masked values are replaced by a mark that is the same
    for every value. The document itself stays as it is."""
    shown: dict[str, Any] = _copied(document)
    for name in _masked_without(caller.permissions):
        _replace(shown, name.split("."), MASK)
    if not caller.may(Permission.IDENTITIES) and _is_alert(document):
        _replace(shown, REASON.split("."), MASK)
    for name in NEVER_SHOWN:
        _replace(shown, name.split("."), SEALED)
    return shown


def _is_alert(document: Mapping[str, Any]) -> bool:
    """Whether it is a finding, a word on one or a delivery; also where nobody can tell."""
    event = document.get("event")
    return not isinstance(event, Mapping) or event.get("kind", ALERT) == ALERT


def _copied(value: Any) -> Any:
    """Mappings and lists anew, so that they can be changed; all else as it is."""
    if isinstance(value, Mapping):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _replace(document: dict[str, Any], path: list[str], mark: str) -> None:
    """Whether nested or with dots in its name, all that stands at or below a path."""
    for end in range(1, len(path) + 1):
        name, rest = ".".join(path[:end]), path[end:]
        found = document.get(name)
        if found is None:
            continue
        if not rest:
            document[name] = mark
        elif isinstance(found, dict):
            _replace(found, rest, mark)
        elif isinstance(found, list):
            for inner in found:
                if isinstance(inner, dict):
                    _replace(inner, rest, mark)
