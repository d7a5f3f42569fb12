"""Where in a text a rule can find anything at all: a few linear passes shared by all rules.

Reading every pattern over every byte would cost each text as many passes as there are rules.
Instead one Aho-Corasick pass finds the keywords of all rules with their places, and a handful of
patterns find what values are made of: clusters of digits, colons, codes and long tokens. A rule's
own pattern then runs only near its trigger, in a window that grows while a match touches its edge.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import ahocorasick_rs
import re2

from .budget import Budget
from .masks import MaskSpan, find_masks
from .rules import MAX_KEYWORD_BYTES, Rule
from .spans import Extent, set_match, wholes_of

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1

_FASTEST = ahocorasick_rs.Implementation.DFA
"""Half the time of the others; it takes a few megabytes for all the packaged rules."""

_Words = ahocorasick_rs.BytesAhoCorasick
Hit = tuple[int, int, int]
_END = itemgetter(2)
MIN_KEYWORD_BYTES = 3
"""A shorter keyword, such as `@`, has its rule read all of the text once it is in there."""
_PIECE_BYTES = 65_536
_BYTES_PER_UNIT = 128
"""What it costs to read a text, once more for each reading and pass."""
SEPARATOR = b"\x00"
"""Joins texts that are read at once: in no keyword (`may_fire` counts on it) and no cluster."""
_LONG_WORD_BYTES = 8
"""A context word so long is one at the beginning of a longer word, too: `birthdateOf`."""
EDGE_BYTES = 20
"""How far around a cluster its rules may look for an edge, a sign or a letter."""

_DIGITS = re2.compile(rb"[+(]{0,2}[0-9][0-9 ()+.\-/]{4,}[0-9]", _LATIN1)
_COLONS = re2.compile(
    rb"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*"
    rb"|(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}",
    _LATIN1,
)
_CODES = re2.compile(
    rb"[A-Za-z]{1,2}[0-9]{2}(?:[ .\-]{0,2}[A-Za-z0-9]){5,32}"
    rb"|[A-Za-z]{1,6}-?[0-9]{2,}[A-Za-z0-9\-]{3,}",
    _LATIN1,
)
_TOKENS = re2.compile(rb"[A-Za-z0-9+/_\-]{24,}={0,2}", _LATIN1)
_TRIGGERS = ("digits", "colons", "codes", "tokens")


@dataclass(slots=True)
class Sites:
    """Where the rules are to look in one text."""

    extents: dict[int, list[Extent]] = field(default_factory=dict)
    """By rule: windows to search, in order, disjoint."""
    context: dict[int, list[int]] = field(default_factory=dict)
    """By rule: where its context words begin, in order."""
    exact: dict[int, list[Extent]] = field(default_factory=dict)
    """By rule that reads from its keyword on: the keywords, in order."""


class Triggers:
    """Finds the sites of many rules at once. A rule it leaves out cannot match."""

    def __init__(self, rules: Sequence[Rule], anchored: dict[int, Sequence[str]]) -> None:
        """`anchored` names the keywords of rules that read from each of them on."""
        self._rules = rules
        self._always = [
            i
            for i, rule in enumerate(rules)
            if not (rule.trigger or rule.keywords or i in anchored)
        ]
        self._marks = [
            (word.encode("utf-8"), i)
            for i, rule in enumerate(rules)
            if i not in anchored
            for word in _short(rule)
        ]
        self._needs = {i: len(rule.context) > 0 for i, rule in enumerate(rules)}
        self._groups = {name: _Group(rules, name) for name in _TRIGGERS}
        self._targets: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []
        """By word: rules with a window around it, that read on from it, that it is context of."""
        self._words, self._wide, self._first_wide = self._automata(anchored)

    def _automata(self, anchored: dict[int, Sequence[str]]) -> tuple[_Words, _Words, int]:
        """One for words of ASCII and one for others, and the number of its first word in targets.

        The bytes of other scripts make an automaton several times as large, too large to be fast:
        it reads only texts that have such bytes.
        """
        targets: dict[bytes, tuple[list[int], list[int], list[int]]] = {}
        for index, rule in enumerate(self._rules):
            searched = () if index in anchored else rule.keywords
            long = tuple(word for word in searched if not _is_short(word))
            context = tuple({form for word in rule.context for form in _joined_up(word)})
            for place, words in enumerate((long, context, anchored.get(index, ()))):
                for written in {form for word in words for form in _written(word)}:
                    targets.setdefault(written, ([], [], []))[place].append(index)
        keys = sorted(targets, key=lambda key: not key.isascii())
        for windowed, contextual, exact in map(targets.__getitem__, keys):
            self._targets.append((tuple(windowed), tuple(exact), tuple(contextual)))
        plain = sum(map(bytes.isascii, keys))
        return _words(keys[:plain]), _words(keys[plain:]), plain

    def _find(self, lowered: bytes) -> list[Hit]:
        """Every keyword in order of its end."""
        hits: list[Hit] = self._words.find_matches_as_indexes(lowered, overlapping=True)
        if lowered.isascii():
            return hits
        wide = self._wide.find_matches_as_indexes(lowered, overlapping=True)
        hits += [(word + self._first_wide, start, end) for word, start, end in wide]
        return sorted(hits, key=_END) if wide else hits

    def sites(self, data: bytes, budget: Budget) -> Sites:
        """Return where each rule is to look in `data`. Raises RedactionFailed past the budget."""
        sites = Sites()
        budget.spend(len(data) // _BYTES_PER_UNIT)
        self._keywords(data, sites, budget)
        marked = [index for mark, index in self._marks if mark in data]
        for index in (*self._always, *marked):
            if self._wanted(index, sites):
                sites.extents[index] = [(0, len(data))]
        for number in _shapes_in(data):
            group = self._groups[_TRIGGERS[number]]
            if group.rules and _possible(group.name, data):
                self._near(group, data, sites, budget)
        return sites

    def _near(self, group: _Group, data: bytes, sites: Sites, budget: Budget) -> None:
        """Add the window around each cluster for the rules whose pattern matches in it."""
        needs, extents, context, size = self._needs, sites.extents, sites.context, len(data)
        match, rules = group.match, group.rules
        clusters = group.clusters(data, budget)
        budget.spend(sum([4 + (end - start + 2 * EDGE_BYTES) // 64 for start, end in clusters]))
        for start, end in clusters:
            left, right = max(0, start - EDGE_BYTES), min(size, end + EDGE_BYTES)
            matching = match(data[left:right])
            budget.spend(len(matching))
            for number in matching:
                index = rules[number]
                if needs[index] and (
                    index not in context or not self.near_context(sites, index, left, right)
                ):
                    continue
                if index in extents:
                    extents[index].append((left, right))
                else:
                    extents[index] = [(left, right)]

    def places(self, joined: bytes, budget: Budget) -> tuple[list[int], list[Hit]]:
        """Where any rule may have a site in any of the texts that SEPARATOR joins.

        For a text without a place in it, `sites` names none, read alone: no keyword and no cluster
        holds the separator, and what a rule's pattern reads around a cluster ends with its text.
        A place does not say that there is a site. Beside them, the keywords that rules read on
        from: (rule, start, end). Spends what it takes to read all the texts.
        """
        if self._always:
            return [0, *(match.end() for match in re.finditer(SEPARATOR, joined))], []
        hits = self._find(joined.lower())
        budget.spend(len(hits))
        found: list[int] = []
        exact: list[Hit] = []
        for word, start, end in hits:
            windowed, read_on, _ = self._targets[word]
            if windowed:
                found.append(start)
            for index in read_on:
                exact.append((index, start, end))
        for mark, _ in self._marks:
            if mark in joined:
                found += [match.start() for match in re.finditer(re.escape(mark), joined)]
        for number in _shapes_in(joined):
            group = self._groups[_TRIGGERS[number]]
            if group.rules:
                found += group.places(joined, budget)
        return found, exact

    def _wanted(self, index: int, sites: Sites) -> bool:
        return not self._needs[index] or index in sites.context

    def _keywords(self, data: bytes, sites: Sites, budget: Budget) -> None:
        lowered = data.lower()
        found: dict[int, list[Extent]] = {}
        masks = find_masks(data)
        hits = self._hits(lowered, budget)
        for word, start, end in _outside(masks, hits) if masks else hits:
            windowed, exact, contextual = self._targets[word]
            for index in windowed:
                found.setdefault(index, []).append((start, end))
            for index in exact:
                sites.exact.setdefault(index, []).append((start, end))
            if contextual and _is_word(lowered, start, end):
                for index in contextual:
                    sites.context.setdefault(index, []).append(start)
        for index, places in found.items():
            if self._wanted(index, sites):
                rule = self._rules[index]
                sites.extents[index] = list(
                    _windows(places, rule.before_bytes, rule.after_bytes, len(data))
                )

    def _hits(self, lowered: bytes, budget: Budget) -> Iterable[Hit]:
        """Every keyword in order; large texts in pieces, so that the budget ends a hostile one."""
        if len(lowered) > _PIECE_BYTES:
            return self._hits_in_pieces(lowered, budget)
        hits = self._find(lowered)
        budget.spend(len(hits))
        return hits

    def _hits_in_pieces(self, lowered: bytes, budget: Budget) -> Iterator[Hit]:
        for start in range(0, len(lowered), _PIECE_BYTES):
            shift = max(0, start - MAX_KEYWORD_BYTES)
            piece = lowered[shift : start + _PIECE_BYTES]
            hits = self._find(piece)
            budget.spend(len(hits))
            for word, left, right in hits:
                if right + shift > start:  # the others ended in the piece before
                    yield word, left + shift, right + shift

    def near_context(self, sites: Sites, index: int, start: int, end: int) -> bool:
        """Tell whether one of the rule's context words stands near a candidate."""
        if not self._needs[index]:
            return True
        rule = self._rules[index]
        places = sites.context.get(index, ())
        at = bisect_left(places, start - rule.context_before_bytes)
        return at < len(places) and places[at] <= end + rule.context_after_bytes


def _words(keys: Sequence[bytes]) -> _Words:
    return ahocorasick_rs.BytesAhoCorasick(keys or [b"\x00unused"], implementation=_FASTEST)


def _outside(masks: Sequence[MaskSpan], hits: Iterable[Hit]) -> Iterator[Hit]:
    """Leave out what is read in the name of a mask: `[PASSWORD_...]` announces no password."""
    starts = [mask.start for mask in masks]
    for hit in hits:
        at = bisect_right(starts, hit[1]) - 1
        if at < 0 or hit[1] >= masks[at].kept:
            yield hit


class _Group:
    """The rules of one trigger, told apart by one set of their patterns."""

    def __init__(self, rules: Sequence[Rule], name: str) -> None:
        self.name = name
        self.rules = [i for i, rule in enumerate(rules) if rule.trigger == name]
        self._find = wholes_of(_PATTERNS[name])
        self._set = re2.Set.SearchSet(_LATIN1)
        for index in self.rules:
            self._set.Add(rules[index].pattern.encode("ascii"))
        if self.rules:
            self._set.Compile()
        self.match = set_match(self._set)

    def clusters(self, data: bytes, budget: Budget) -> list[Extent]:
        """Where the rules have something to look at; all of it is paid for at once."""
        found = self._find(data, 0, len(data), budget)
        return _joined(found) if found else []

    def places(self, joined: bytes, budget: Budget) -> Iterator[int]:
        """Where `near` would name a rule, were each of the joined texts read alone."""
        found = self._find(joined, 0, len(joined), budget)
        if not found:
            return
        for start, end in _joined(found, joined):
            left = max(0, start - EDGE_BYTES)
            left = max(left, joined.rfind(SEPARATOR, left, start) + 1)
            right = joined.find(SEPARATOR, end, end + EDGE_BYTES)
            right = right if right >= 0 else min(len(joined), end + EDGE_BYTES)
            budget.spend(4 + (right - left) // 64)
            if self.match(joined[left:right]):
                yield start


_PATTERNS = {"digits": _DIGITS, "colons": _COLONS, "codes": _CODES, "tokens": _TOKENS}


def _shapes() -> re2.Set:
    shapes = re2.Set.SearchSet(_LATIN1)
    for name in _TRIGGERS:
        shapes.Add(_PATTERNS[name].pattern)
    shapes.Compile()
    return shapes


_shapes_in = set_match(_shapes())
"""Which groups have a cluster anywhere, in one pass: as long as that of one group alone."""


def _possible(name: str, data: bytes) -> bool:
    return name != "colons" or data.count(b":") > 1 or data.count(b"-") > 4 or data.count(b".") > 1


def _joined(extents: Sequence[Extent], texts: bytes = b"") -> list[Extent]:
    """Join clusters whose surroundings touch, so that no window is read twice; none over the
    separators of `texts`."""
    if len(extents) < 2:
        return list(extents)
    joined = []
    first, last = extents[0]
    for start, end in extents[1:]:
        near = start - last <= 2 * EDGE_BYTES
        if not near or (texts and SEPARATOR in texts[last:start]):
            joined.append((first, last))
            first = start
        last = end
    joined.append((first, last))
    return joined


def _windows(places: Sequence[Extent], before: int, after: int, size: int) -> Iterator[Extent]:
    left, right = -1, -1
    for start, end in places:
        start, end = max(0, start - before), min(size, end + after)
        if start <= right:
            right = max(right, end)
            continue
        if right >= 0:
            yield left, right
        left, right = start, end
    yield left, right


def _is_word(data: bytes, start: int, end: int) -> bool:
    """Context words count as words only: `tel` is not in `hotel`, and a plural is one, too."""
    if start and data[start - 1 : start].isalpha() and data[start : start + 1].isalpha():
        return False
    end += data[end : end + 1] == b"s"
    return not data[end : end + 1].isalpha() or end - start > _LONG_WORD_BYTES


def _short(rule: Rule) -> Iterator[str]:
    return filter(_is_short, rule.keywords)


def _is_short(word: str) -> bool:
    return len(word.encode("utf-8")) < MIN_KEYWORD_BYTES


def _written(word: str) -> set[bytes]:
    """A word as it reads once ASCII letters are in lower case: others keep their case."""
    return {form.encode("utf-8").lower() for form in (word, word.upper(), word.capitalize())}


def _joined_up(word: str) -> set[str]:
    """A context word of several parts as names of fields write it: `tax_id`, `taxId`."""
    return {word.replace(" ", joint) for joint in (" ", "_", "-", "")}
