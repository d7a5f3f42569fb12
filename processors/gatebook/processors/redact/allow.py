"""What a tenant may see unmasked: values and patterns that are nobody's secret."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec
import re2

from .errors import RuleInvalid

ANY_TENANT = "*"


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values of one kind that stay as they are."""

    tenant: str
    """Whose texts; `*` for all."""
    kind: str
    """Of which kind of value, as in the mask, in lower case."""
    values: tuple[str, ...] = ()
    """In normal form: mail in lower case, numbers without separators, telephones as +E.164."""
    patterns: tuple[str, ...] = ()
    """RE2; all of the normal form must match."""
    reason: str = ""
    """Why, for who reads the file later."""


class AllowList:
    """Looked up after a value was found; where kinds overlap nothing is allowed."""

    def __init__(self, entries: Iterable[Allowed] = ()) -> None:
        """Raises RuleInvalid for a pattern that RE2 does not take."""
        self.entries = tuple(entries)
        self._values = {
            (entry.tenant, entry.kind, value) for entry in self.entries for value in entry.values
        }
        self._patterns = [
            (entry.tenant, entry.kind, _compiled(pattern, number))
            for number, entry in enumerate(self.entries, 1)
            for pattern in entry.patterns
        ]

    def __bool__(self) -> bool:
        return bool(self.entries)

    def allows(self, tenant: str, kind: str, normalised: str) -> bool:
        """Tell whether a value stays in the texts of this tenant."""
        if {(tenant, kind, normalised), (ANY_TENANT, kind, normalised)} & self._values:
            return True
        return any(
            whose in (tenant, ANY_TENANT) and of == kind and pattern.fullmatch(normalised)
            for whose, of, pattern in self._patterns
        )

    @cached_property
    def described(self) -> object:
        """Plain data that stands for the list in the policy version."""
        return [msgspec.to_builtins(entry) for entry in self.entries]


def _compiled(pattern: str, number: int) -> re2._Regexp:
    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise RuleInvalid(f"allow entry {number}: a pattern does not compile: {error}") from error
