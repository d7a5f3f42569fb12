"""Which rules a text can concern at all: one linear pass for all keywords of all rules."""

from __future__ import annotations

from collections.abc import Sequence

import re2

from .rules import Rule

_DIGIT = "[0-9]"


class Prefilter:
    """Finds the keywords of many rules at once. A rule it leaves out cannot match."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._always = {i for i, rule in enumerate(rules) if not rule.keywords}
        self._need_digit = {i for i, rule in enumerate(rules) if rule.needs_digit}
        self._by_hit: list[set[int]] = []
        self._set = self._compile()

    def wanted(self, data: bytes) -> list[int]:
        """Return the indices of the rules whose keyword (and digit) is in `data`, in order."""
        hits: list[int] = self._set.Match(data) or []  # None where nothing is found
        wanted = self._always.union(*(self._by_hit[hit] for hit in hits))
        if 0 not in hits:
            wanted -= self._need_digit
        return sorted(wanted)

    def _compile(self) -> re2.Set:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.case_sensitive = False
        found = re2.Set.SearchSet(options)
        self._add(found, _DIGIT, set())
        for keyword in sorted({keyword for rule in self._rules for keyword in rule.keywords}):
            rules = {i for i, rule in enumerate(self._rules) if keyword in rule.keywords}
            self._add(found, re2.escape(keyword), rules)
        found.Compile()
        return found

    def _add(self, found: re2.Set, pattern: str, rules: set[int]) -> None:
        index = found.Add(pattern.encode("ascii"))
        assert index == len(self._by_hit), "re2 numbers the patterns as they come"
        self._by_hit.append(rules)
