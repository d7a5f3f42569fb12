"""The redactor: views, triggers, linear-time matching, validators, masks."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import NamedTuple, TypeVar

import msgspec
import re2

from .ahead import UNREAD, Read, ReadAhead, Redacted
from .allow import AllowList
from .budget import Budget
from .errors import RedactionFailed, RuleInvalid
from .keyed import Chunk
from .masks import Pseudonyms, find_masks, render
from .national import check_of
from .ner import Entity, NerPool, merged
from .rules import Rule, default_rules
from .spans import Extent, Settled, Spans, spans_of
from .triggers import EDGE_BYTES, SEPARATOR, Hit, Sites, Triggers
from .validators import ANCHORED, NARROWING, VALIDATORS, Found, Probe, Validator, compile_pattern
from .version import policy_version
from .views import Edit, View, folded, reads_plain
from .walk import JSON, JsonWalk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RedactionLimits:
    """Bounds on one call. Beyond any of them redaction fails; it never returns part of a text."""

    text_bytes: int = 1024 * 1024
    """Largest text, in UTF-8 bytes."""
    work_units: int = 24_000
    """Work on one text, in about half a microsecond each: a time-out without a clock, so that a
    replay has the same outcome. A text has `bytes_per_unit` on top, and what its values earn."""
    bytes_per_unit: int = 32
    units_per_value: int = 28
    """What each value adds that a rule has found: what a text costs that asks for nothing else."""
    earned_units: int = 44_000
    """What all of them may add."""
    passes: int = 4
    """A masked text is read again until nothing is found; that many times at most."""
    json_depth: int = 32
    json_nodes: int = 20_000
    json_bytes: int = 1024 * 1024
    """Largest sum of all texts of one JSON value, in UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One value in a text, as it would be masked. It holds the value: never log or store it."""

    kind: str
    start: int
    """First character in the text."""
    end: int
    value: str = field(repr=False)
    pseudonym: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Matcher:
    rule: Rule
    spans: Spans
    validate: Validator
    barred: re2._Regexp | None
    narrows: bool
    """Whether all that the validator finds begins and, but for an IBAN, ends in its candidate."""
    settles: bool
    """Whether a weaker rule could add nothing within a finding of this one."""

    def is_barred(self, data: bytes, start: int) -> bool:
        """Tell whether what stands before the value says that it is none."""
        before = data[max(0, start - _BARRED_BYTES) : start] if self.barred else b""
        return self.barred is not None and self.barred.search(before) is not None


class _Span(NamedTuple):
    """A finding in raw bytes."""

    start: int
    end: int
    found: Found
    rule: Rule

    @property
    def rank(self) -> tuple[bool, int, int, int, str]:
        length = self.end - self.start
        return self.rule.priority > WEAK, length, self.rule.priority, -self.start, self.rule.id


WEAK = 3
"""A rule of this priority or less names a mask only where no other rule found anything."""
_Cluster = tuple[int, int, _Span, bool]
"""First and last byte of an extent to mask, the finding that names it, whether kinds mix in it."""


class Redactor:
    """Masks personal data and credentials. Pure: same text, key, epoch and rules, same result."""

    def __init__(
        self,
        rules: Sequence[Rule],
        pseudonym_key: bytes,
        epoch: str,
        limits: RedactionLimits | None = None,
        allow: AllowList | None = None,
        ner: NerPool | None = None,
    ) -> None:
        self.pseudonyms = Pseudonyms(pseudonym_key, epoch)
        self.limits = limits or RedactionLimits()
        self.allow = allow or AllowList()
        self.ner = ner
        self.rules = tuple(rules)
        # The strongest first: what lies within one of their findings need not be looked at.
        ordered = sorted(rules, key=lambda rule: -rule.priority)
        self._matchers = tuple(map(_matcher, ordered))
        anchored = {i: ANCHORED[r.validator](r) for i, r in enumerate(ordered) if _reads_on(r)}
        self._triggers = Triggers(ordered, anchored)
        self._reads_over = _reads_over(self.rules)
        self.quiet_words: set[str] = set()
        """Short lower-case words of those that were read ahead, and no trigger fires in them."""
        self.clean_words: set[tuple[str, str]] = set()
        """Tenant and short lower-case word of those that were read, and nothing found in them."""

    @classmethod
    def default(cls, pseudonym_key: bytes, epoch: str = "e1") -> Redactor:
        """Return a redactor with the packaged rules; the key has 16 bytes or more."""
        return cls(default_rules(), pseudonym_key, epoch)

    def at_epoch(self, epoch: str) -> Redactor:
        """The same redactor with the pseudonyms of another epoch. Raises ValueError for none."""
        other = copy(self)
        other.pseudonyms = replace(self.pseudonyms, epoch=epoch)
        return other

    @property
    def policy_version(self) -> str:
        """Digest of everything that decides what is masked: rules, allow lists, limits."""
        ner = f"{self.ner.module} {self.ner.version}" if self.ner else ""
        return policy_version(self.rules, self.allow, self.limits, ner)

    def redact_text(self, text: str, *, tenant: str = "", where: str = "") -> Redacted:
        """Mask every value found in `text`. Raises RedactionFailed, never with any of the text.

        `tenant` separates pseudonyms; `where` is a label for the failure, such as a field name.
        """
        return _guarded(lambda: self._redact(text, tenant), where)

    def read_ahead(self, values: Iterable[JSON], *, tenant: str = "") -> Read:
        """Read the texts of several values at once, for `read` of the calls that redact them. It
        redacts nothing itself."""
        return ReadAhead(self, tenant).read(values)

    def redact_json(
        self, value: JSON, path: str = "", *, tenant: str = "", read: Read = UNREAD
    ) -> tuple[JSON, dict[str, int]]:
        """Return a JSON value redacted, keys and numbers included, and the counts: a copy, or the
        value itself where nothing was found.

        An object is read with its keys, as its JSON text would be (see `keyed`); what stands
        under the name of a credential (`password`, `apiKey`) is masked whole. A value split over
        the parts of a list (the chunks of a stream) is masked in its first part and taken out of
        the others. `path` labels the failure. Raises RedactionFailed beyond the limits or on other
        types.
        """
        if not read and read is not None:
            read = self.read_ahead((value,), tenant=tenant)
        if read is None:
            return value, {}
        walk = JsonWalk(self, tenant, read)
        return _guarded(lambda: (walk.value(value, 0), dict(walk.counts)), path)

    def redact_values(
        self, values: dict[str, JSON], *, tenant: str = "", read: Read = UNREAD
    ) -> tuple[dict[str, JSON], dict[str, int]]:
        """`redact_json` of each value, whose names are our own; cheaper than one after the other.
        The counts are of all of them. Raises RedactionFailed."""
        if not read and read is not None:
            read = self.read_ahead(values.values(), tenant=tenant)
        if read is None:
            return values, {}
        counts: Counter[str] = Counter()
        redacted = {}
        for name, value in values.items():
            walk = JsonWalk(self, tenant, read)
            redacted[name] = _guarded(partial(walk.value, value, 0), "")
            counts.update(walk.counts)
        return redacted, dict(counts)

    def redact_parts(
        self, parts: Sequence[str], *, tenant: str = ""
    ) -> tuple[list[str], dict[str, int]]:
        """Redact texts that follow each other, such as the chunks of a stream, as one text.

        Returns as many parts as there were, and the counts: a value that runs over several is
        masked in the part where it begins and taken out of the others. Raises RedactionFailed.
        """
        return _guarded(lambda: self._parts(parts, tenant), "")

    def find(self, text: str, *, tenant: str = "") -> list[Finding]:
        """Return the values in `text` and their pseudonyms, for privileged re-identification.

        What it returns holds plaintext. Raises RedactionFailed.
        """
        return _guarded(lambda: self._find(text, tenant), "")

    def suspects(self, texts: Sequence[str]) -> Collection[int]:
        """Numbers of the texts in which a rule may have something to look at, each read alone.

        One pass over all of them. Of the others, `redact_text` says that nothing is found.
        """
        joined = _SEPARATOR.join(texts)
        if self.ner or joined.count(_SEPARATOR) >= len(texts):
            return range(len(texts))
        folding = (
            [] if reads_plain(joined) else [n for n, t in enumerate(texts) if not reads_plain(t)]
        )
        raw = joined.encode("utf-8", "surrogatepass")
        try:
            # The work of one text: together they spend what each does alone, and more.
            budget = Budget(self.limits.work_units)
            places, exact = self._triggers.places(raw, budget)
            places += self._read_on(raw, exact, budget)
        except Exception:  # reading each alone comes to it again, and fails in its own guard
            return range(len(texts))
        if len(places) > _MOST_PLACES:
            return range(len(texts))
        return {*folding, *(raw.count(SEPARATOR, 0, place) for place in places)}

    def _read_on(self, joined: bytes, exact: Sequence[Hit], budget: Budget) -> Iterator[int]:
        """Places of the keywords after which a value stands, or of all where there are many."""
        yield from (start for _, start, _ in exact[_MOST_READ_ON:])
        for index, start, end in exact[:_MOST_READ_ON]:
            matcher = self._matchers[index]
            left = joined.rfind(SEPARATOR, 0, start) + 1
            right = joined.find(SEPARATOR, end)
            alone = joined[left : right if right >= 0 else len(joined)]
            probe = Probe(alone, start - left, end - left, matcher.rule, budget)
            if next(iter(matcher.validate(probe)), None) is not None:
                yield start

    def _redact(self, text: str, tenant: str) -> Redacted:
        raw, budget = self._admit(text)
        counts: dict[str, int] = {}
        named = self._named(text)
        for _ in range(self.limits.passes):
            clusters = self._clusters(text, raw, budget, tenant, named)
            if not clusters:
                return Redacted(text, counts)
            named = []  # a model that reads masks would say more and more of them
            raw, settled = self._mask(raw, clusters, tenant, counts)
            text = raw.decode("utf-8", "surrogatepass")
            if settled:
                return Redacted(text, counts)
        if self._clusters(text, raw, budget, tenant):
            raise RedactionFailed(RedactionFailed.UNSTABLE)
        return Redacted(text, counts)

    def _admit(self, text: str) -> tuple[bytes, Budget]:
        if type(text) is not str:
            raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)
        raw = sized(text, self.limits.text_bytes)
        limits = self.limits
        units = limits.work_units + len(raw) // limits.bytes_per_unit
        return raw, Budget(units, limits.earned_units)

    def _find(self, text: str, tenant: str) -> list[Finding]:
        raw, budget = self._admit(text)
        return [
            Finding(
                span.rule.kind,
                len(raw[:start].decode("utf-8", "surrogatepass")),
                len(raw[:end].decode("utf-8", "surrogatepass")),
                raw[start:end].decode("utf-8", "surrogatepass"),
                self.pseudonyms.of(span.rule.kind, span.found.normalised, tenant),
                span.rule.id,
            )
            for start, end, span, _ in self._clusters(text, raw, budget, tenant, self._named(text))
        ]

    def _parts(self, parts: Sequence[str], tenant: str) -> tuple[list[str], dict[str, int]]:
        counts: Counter[str] = Counter()
        joined = self.join_parts(parts, tenant, counts)
        redacted = []
        for part in joined:
            result = self._redact(part, tenant)
            counts.update(result.counts)
            redacted.append(result.text)
        return redacted, dict(counts)

    def join_parts(self, parts: Sequence[str], tenant: str, counts: Counter[str]) -> list[str]:
        """Mask what is found in the parts read as one text; each part is still to be redacted."""
        pieces = [part.encode("utf-8", "surrogatepass") for part in parts]
        named = self._named("".join(parts))
        for _ in range(self.limits.passes):
            text = b"".join(pieces).decode("utf-8", "surrogatepass")
            raw, budget = self._admit(text)
            clusters = self._clusters(text, raw, budget, tenant, named)
            named = []
            if not clusters:
                return [piece.decode("utf-8", "surrogatepass") for piece in pieces]
            masks = [(s, e, self._mask_of(w, mixed, tenant)) for s, e, w, mixed in clusters]
            counts.update(winner.rule.kind for _, _, winner, _ in clusters)
            pieces = _spread(pieces, masks)
        raise RedactionFailed(RedactionFailed.UNSTABLE)

    def mask_values(self, chunk: Chunk, tenant: str, counts: Counter[str]) -> list[str]:
        """Mask what is found in the values of an object that is read with its keys, and return
        them; each is still to be redacted. What is found between them is none of them."""
        seams = [said.before.encode("utf-8", "surrogatepass") for said in chunk.values]
        values = [said.text.encode("utf-8", "surrogatepass") for said in chunk.values]
        after = chunk.after.encode("utf-8", "surrogatepass")
        for _ in range(self.limits.passes):
            whole = b"".join([*chain.from_iterable(zip(seams, values, strict=True)), after])
            text = whole.decode("utf-8", "surrogatepass")
            raw, budget = self._admit(text)
            clusters = self._clusters(text, raw, budget, tenant)
            masks = [(s, e, self._mask_of(w, mixed, tenant)) for s, e, w, mixed in clusters]
            values, touching = _spread_over(seams, values, masks)
            if not touching:
                return [value.decode("utf-8", "surrogatepass") for value in values]
            counts.update(clusters[number][2].rule.kind for number in touching)
        raise RedactionFailed(RedactionFailed.UNSTABLE)

    def _named(self, text: str) -> list[_Span]:
        """What the plug-in for names sees, as findings."""
        if self.ner is None or not _MAY_NAME.search(text):
            return []
        return [_named_span(text, entity) for entity in merged(self.ner.find(text))]

    def _clusters(
        self,
        text: str,
        raw: bytes,
        budget: Budget,
        tenant: str,
        named: Sequence[_Span] = (),
    ) -> list[_Cluster]:
        found = self._scan(text, raw, budget)
        if named:
            found = [*found, *_around_masks(raw, named)]
        if not found:
            return []
        clusters = _clusters(raw, found)
        if not self.allow:
            return list(clusters)
        return [c for c in clusters if not self._allowed(c[2], c[3], tenant)]

    def _allowed(self, span: _Span, mixed: bool, tenant: str) -> bool:
        return not mixed and self.allow.allows(tenant, span.rule.kind, span.found.normalised)

    def _scan(self, text: str, raw: bytes, budget: Budget) -> list[_Span]:
        found = self._scan_view(View(raw), budget)
        reading = folded(text, raw, budget)
        if reading:
            view, edits = reading
            plain = self._scan_view(view, budget)
            found = [*_outside_escapes(found, edits, plain), *plain]
        return list(_around_masks(raw, found)) if found and b"[" in raw else found

    def _scan_view(self, view: View, budget: Budget) -> list[_Span]:
        data = view.data
        sites = self._triggers.sites(data, budget)
        matchers, per_value = self._matchers, self.limits.units_per_value
        result: list[_Span] = []
        settled = Settled()
        for index in sorted(sites.extents.keys() | sites.exact.keys()):
            matcher = matchers[index]
            candidates = _candidates(matcher, index, data, sites, settled, budget)
            if not candidates:
                continue
            if matcher.rule.context:
                found = self._in_context(matcher, index, data, candidates, sites, settled, budget)
            else:
                found = _confirmed(matcher, data, candidates, settled, budget)
            if not found:
                continue
            budget.earn(len(found) * per_value)
            rule = matcher.rule
            extents = [(one[0], one[1]) for one in found]
            if matcher.settles:
                settled.add(extents)
            if view.view_starts:
                extents = [view.to_raw(*extent) for extent in extents]
            for (start, end), one in zip(extents, found, strict=True):
                result.append(_Span(start, end, one, rule))
        return result

    def _in_context(
        self,
        matcher: _Matcher,
        index: int,
        data: bytes,
        candidates: Sequence[Extent],
        sites: Sites,
        settled: Settled,
        budget: Budget,
    ) -> list[Found]:
        """`_confirmed` for a rule that asks for a word nearby."""
        rule, near = matcher.rule, self._triggers.near_context
        if matcher.narrows:
            candidates = [c for c in candidates if near(sites, index, *c)]
        return [
            found
            for start, end in candidates
            for found in matcher.validate(Probe(data, start, end, rule, budget, settled))
            if near(sites, index, found.start, found.end)
            and not (matcher.barred and matcher.is_barred(data, found.start))
        ]

    def _mask(
        self, raw: bytes, clusters: list[_Cluster], tenant: str, counts: dict[str, int]
    ) -> tuple[bytes, bool]:
        """The text with masks, and whether a second look could find nothing new."""
        pieces: list[bytes] = []
        placed: list[Extent] = []
        position = written = 0
        for start, end, winner, mixed in clusters:
            kind = winner.rule.kind
            counts[kind] = counts.get(kind, 0) + 1
            mask = self._mask_of(winner, mixed, tenant)
            pieces += (raw[position:start], mask)
            begin = written + start - position
            written = begin + len(mask)
            placed.append((begin, written))
            position = end
        pieces.append(raw[position:])
        text = b"".join(pieces)
        for start, end in placed:
            if not _is_settled(text, start, end, self._reads_over):
                return text, False
        return text, True

    def _mask_of(self, winner: _Span, mixed: bool, tenant: str) -> bytes:
        rule, found = winner.rule, winner.found
        pseudonym = self.pseudonyms.of(rule.kind, found.normalised, tenant)
        # What another kind overlaps may not be kept: `x@AKIA....com` holds a key.
        if mixed or not found.kept or rule.mask == "plain":
            return f"[{pseudonym}]".encode("ascii")
        return render(pseudonym, found.kept).encode("ascii")


def _spread(pieces: Sequence[bytes], masks: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    """Cut the masked extents out of the pieces; the mask goes where its extent begins."""
    result, position = [], 0
    for piece in pieces:
        end, kept, at = position + len(piece), [], position
        for start, stop, mask in masks:
            if stop <= position or start >= end:
                continue
            kept.append(piece[at - position : max(start, position) - position])
            kept.append(mask if start >= position else b"")
            at = min(stop, end)
        result.append(b"".join((*kept, piece[at - position :])))
        position = end
    return result


def _spread_over(
    seams: Sequence[bytes], values: Sequence[bytes], masks: Sequence[tuple[int, int, bytes]]
) -> tuple[list[bytes], list[int]]:
    """Cut the masked extents out of the values, each of which stands behind a seam; the mask goes
    into the first that its extent touches. Beside them, the numbers of the masks that touch one."""
    result: list[bytes] = []
    touching: list[int] = []
    position = first = 0
    for seam, value in zip(seams, values, strict=True):
        begin = at = position + len(seam)
        position = begin + len(value)
        while first < len(masks) and masks[first][1] <= begin:
            first += 1
        kept, number = [], first
        while number < len(masks) and masks[number][0] < position:
            start, stop, mask = masks[number]
            kept.append(value[at - begin : max(start, at) - begin])
            if not touching or touching[-1] < number:
                kept.append(mask)
                touching.append(number)
            at, number = min(stop, position), number + 1
        result.append(b"".join((*kept, value[at - begin :])) if kept else value)
    return result, touching


# One word is an identifier more often than a name; a model would be asked for each of them. Many
# scripts have no spaces between words: there, two letters in a row may be a name.
_MAY_NAME = re.compile(r"[^\W\d_]\s+\S|[^\W\d_a-zA-Z]{2}")
_NAMED = Rule(id="ner", kind="name", description="", pattern="", validator="any", priority=4)


def _named_span(text: str, entity: Entity) -> _Span:
    kind, first, last = entity
    value = " ".join(text[first:last].casefold().split())
    start = len(text[:first].encode("utf-8", "surrogatepass"))
    end = start + len(text[first:last].encode("utf-8", "surrogatepass"))
    rule = msgspec.structs.replace(_NAMED, kind=kind)
    return _Span(start, end, Found(start, end, value), rule)


_SEPARATOR = SEPARATOR.decode("ascii")
_HAS_VALUE = re.compile(rb"[A-Za-z0-9\x80-\xff]")
# A mask in the place of a value changes how its neighbours read: what was glued to it, or was one
# more group of its digits, stands apart now. Where neither was there, nothing new can be found:
# Chinese characters and stops are in no value, nor is the `@` after a password.
_GLUED_BEFORE = re.compile(
    rb"(?<!\\)[A-Za-z0-9_]\Z|[0-9][0-9 .\-/()+]{4,}[ .\-/:,()+]{1,2}\Z|:[0-9A-Fa-f]{0,4}:\Z"
)
_GLUED_AFTER = re.compile(
    rb"(?!\xe3\x80[\x81\x82\x8d]|\xef\xbc[\x81\x89\x8c\x9f](?![0-9\xef\xd9])|[\xe4-\xe9])"
    rb"[A-Za-z0-9_\x80-\xff]|@[^\s@]{0,100}@|[.!#$*+^~%\-'][\w.!#$*+^~%\-'\x80-\xff]*+@"
    rb"|[ .\-/:,()+]{1,3}[0-9][0-9 ()+.\-/]{4}|:[0-9A-Fa-f]{0,4}:"
)

# What was assigned reads on behind the mask: `password=[...]/0`.
_RUNS_ON = re.compile(rb"[^\s\"'`,;&<>|{}\]]{0,8}[\w\x80-\xff]")
_ASSIGNED = re.compile(rb"(?:[=:>]|\b(?:is|are|was|to))\s{0,3}\Z")


def _is_settled(raw: bytes, start: int, end: int, reads_over: _Announces) -> bool:
    before = max(0, start - 10)
    if _GLUED_BEFORE.search(raw, before, start) or _GLUED_AFTER.match(raw, end):
        return False
    if not (_RUNS_ON.match(raw, end) and _ASSIGNED.search(raw, before, start)):
        return True
    return reads_over is not None and not reads_over(raw[max(0, start - _ANNOUNCED_BYTES) : start])


_Announces = Callable[[bytes], object] | None
_ANNOUNCED_BYTES = 320
_OVER_MASKS = frozenset({"assigned_password", "option", "login"})
"""Validators whose value may hold a mask: the others' begins, ends or breaks off at its bracket."""


def _reads_over(rules: Sequence[Rule]) -> _Announces:
    """What finds a word after which a rule may read on over a mask; None: each may anywhere."""
    packaged = set(default_rules())
    if any(rule not in packaged for rule in rules):
        return None
    over = [rule for rule in rules if rule.validator in _OVER_MASKS]
    words = {form for rule in over for word in rule.keywords for form in (word, word.upper())}
    return re.compile("|".join(map(re.escape, sorted(words))).encode() or rb"(?!)", re.I).search


def _reads_on(rule: Rule) -> bool:
    return rule.validator in ANCHORED


def _matcher(rule: Rule) -> _Matcher:
    if rule.validator not in VALIDATORS:
        raise RuleInvalid(f"rule {rule.id}: its validator is unknown")
    for name in rule.checks:
        check_of(name)
    try:
        pattern = compile_pattern(rule.pattern)
        compile_pattern(rule.value)
        barred = compile_pattern(rule.not_after) if rule.not_after else None
    except (re2.error, UnicodeEncodeError) as error:
        raise RuleInvalid(f"rule {rule.id}: its pattern does not compile") from error
    narrows = rule.validator in NARROWING
    settles = rule.priority > WEAK and rule.mask != "domain"
    return _Matcher(rule, spans_of(pattern), VALIDATORS[rule.validator], barred, narrows, settles)


def _candidates(
    matcher: _Matcher, index: int, data: bytes, sites: Sites, settled: Settled, budget: Budget
) -> Sequence[Extent]:
    """Where one rule is to look, beyond what stronger ones have settled."""
    rule = matcher.rule
    candidates = sites.exact.get(index)
    if candidates is not None:
        budget.spend(len(candidates) * rule.cost)
        return candidates
    windows = sites.extents[index]
    if not settled or not matcher.narrows:
        return _searched(matcher, data, windows, budget)
    if rule.trigger:
        size = len(data)
        windows = [w for w in windows if not _is_read(settled, *w, size)]
        if not windows:
            return windows
    candidates = _searched(matcher, data, windows, budget)
    return [c for c in candidates if not settled.covers(*c)] if candidates else candidates


def _confirmed(
    matcher: _Matcher,
    data: bytes,
    candidates: Sequence[Extent],
    settled: Settled,
    budget: Budget,
) -> list[Found]:
    """What one rule finds in its candidates."""
    rule, validate = matcher.rule, matcher.validate
    result: list[Found] = []
    for start, end in candidates:
        result += validate(Probe(data, start, end, rule, budget, settled))
    if matcher.barred and result:
        return [found for found in result if not matcher.is_barred(data, found.start)]
    return result


def _is_read(settled: Settled, left: int, right: int, size: int) -> bool:
    """The cluster in a window is found, so that there are but its surroundings left."""
    first = left + EDGE_BYTES if left else 0  # where the text begins, the window is cut off
    last = right - EDGE_BYTES if right < size else size
    return settled.covers(first, last)


_BARRED_BYTES = 40
_MOST_PLACES = 64
"""In the texts that are read ahead: with so many to look at, each text may as well be read."""
_MOST_READ_ON = 8
"""Keywords in the texts that are read ahead; each of them costs a copy of its text."""
_GROWTH_BYTES = 1024


def _searched(
    matcher: _Matcher, data: bytes, extents: Sequence[Extent], budget: Budget
) -> list[Extent]:
    """What the pattern matches in the windows; all of it is paid for before any is looked at."""
    found: list[Extent] = []
    spans, size = matcher.spans, len(data)
    for start, end in extents:
        budget.spend(1 + (end - start) // 256)
        wholes, values = spans(data, start, end, budget)
        if wholes:
            if (start and wholes[0][0] == start) or (end < size and wholes[-1][1] == end):
                values = _grown(matcher, data, start, end, wholes, values, budget)
            found += values
    if found:
        budget.spend(len(found) * matcher.rule.cost)
    return found


def _grown(
    matcher: _Matcher,
    data: bytes,
    start: int,
    end: int,
    wholes: list[Extent],
    values: list[Extent],
    budget: Budget,
) -> list[Extent]:
    """What it matches in a window that grows while a match touches its edge."""
    growth = _GROWTH_BYTES
    while wholes:
        cut_left = start > 0 and wholes[0][0] == start
        cut_right = end < len(data) and wholes[-1][1] == end
        if not (cut_left or cut_right):
            break
        start = max(0, start - growth) if cut_left else start
        end = min(len(data), end + growth) if cut_right else end
        growth *= 4
        budget.spend((end - start) // 256)
        wholes, values = matcher.spans(data, start, end, budget)
    return values


def _around_masks(raw: bytes, spans: Sequence[_Span]) -> Iterator[_Span]:
    """Cut masks of earlier passes out of the findings; what is left over is a value still.

    This makes redaction settle: `password=[PASSWORD_...]` is found again and again, and holds
    nothing to mask. A finding inside a mail domain that a mask keeps stays whole.
    """
    masks = find_masks(raw) if spans else []
    if not masks:
        yield from spans
        return
    mask_starts = [mask.start for mask in masks]
    mask_ends = [mask.end for mask in masks]
    for span in spans:
        cuts = masks[bisect_right(mask_ends, span.start) : bisect_left(mask_starts, span.end)]
        if not cuts or span.start >= cuts[0].kept:
            yield span
            continue
        edges = [span.start, *(edge for cut in cuts for edge in (cut.start, cut.end)), span.end]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            if start < end and _HAS_VALUE.search(raw[start:end]):
                rest = Found(start, end, raw[start:end].decode("utf-8", "replace"))
                yield _Span(start, end, rest, span.rule)


def _outside_escapes(raw: list[_Span], edits: list[Edit], plain: list[_Span]) -> list[_Span]:
    """Drop raw findings that begin inside an escape (`\\nada@...`) and are found whole without."""
    ends = {position: end for start, end, _ in edits for position in range(start + 1, end)}
    reach: dict[int, int] = {}
    for span in plain:
        reach[span.start] = max(span.end, reach.get(span.start, 0))
    return [s for s in raw if reach.get(ends.get(s.start, -1), -1) < s.end]


def _clusters(raw: bytes, spans: list[_Span]) -> Iterator[tuple[int, int, _Span, bool]]:
    """Yield disjoint extents in order, the finding that names each, and whether kinds mix in it.

    Findings that overlap form one extent, so that no part of a losing one is left; the longest
    names it, then the one of higher priority.
    """
    spans.sort(key=_START)
    cluster, end = [spans[0]], spans[0].end
    for span in spans[1:]:
        if span.start >= end:
            yield _extent(raw, cluster, end)
            cluster, end = [span], span.end
        else:
            cluster.append(span)
            end = max(end, span.end)
    yield _extent(raw, cluster, end)


_START = itemgetter(0)


def _extent(raw: bytes, cluster: list[_Span], end: int) -> tuple[int, int, _Span, bool]:
    if len(cluster) == 1:
        return *_whole_characters(raw, cluster[0].start, end), cluster[0], False
    winner = max(cluster, key=lambda span: span.rank)
    mixed = any(span.rule.kind != winner.rule.kind for span in cluster)
    return *_whole_characters(raw, cluster[0].start, end), winner, mixed


def _whole_characters(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Widen a span that a rule began or ended within a UTF-8 character."""
    while start > 0 and raw[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(raw) and raw[end] & 0xC0 == 0x80:
        end += 1
    return start, end


def sized(text: str, limit_bytes: int) -> bytes:
    if len(text) > limit_bytes:
        raise RedactionFailed(RedactionFailed.OVERSIZE)
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > limit_bytes:
        raise RedactionFailed(RedactionFailed.OVERSIZE)
    return raw


def _guarded(run: Callable[[], T], where: str) -> T:
    try:
        return run()
    except RedactionFailed as failure:
        # `from None`: a traceback of the cause could show the text.
        raise RedactionFailed(failure.reason, where) from None
    except Exception:  # fail closed on anything: the caller keeps metadata only
        raise RedactionFailed(RedactionFailed.ERROR, where) from None
