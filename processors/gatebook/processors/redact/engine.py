"""The redactor: views, prefilter, linear-time matching, validators, masks."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import re2

from .errors import RedactionFailed, RuleInvalid
from .masks import Pseudonyms, find_masks, is_mask, render
from .prefilter import Prefilter
from .rules import Rule, default_rules
from .validators import VALIDATORS, Budget, Found, Probe, Validator, compile_pattern
from .views import Edit, View, folded

T = TypeVar("T")
JSON = dict[str, Any] | list[Any] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class RedactionLimits:
    """Bounds on one call. Beyond any of them redaction fails; it never returns part of a text."""

    text_bytes: int = 256 * 1024
    """Largest text, in UTF-8 bytes."""
    work_units: int = 50_000
    """Work on one text, in a few microseconds each: a time-out without a clock."""
    passes: int = 4
    """A masked text is read again until nothing is found; that many times at most."""
    json_depth: int = 32
    json_nodes: int = 20_000
    json_bytes: int = 1024 * 1024
    """Largest sum of all texts of one JSON value, in UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without the values that were found, and how many of each kind were masked.

    It does not say that no other value is left: see each rule's blind spots.
    """

    text: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Matcher:
    rule: Rule
    pattern: re2._Regexp
    validate: Validator


@dataclass(frozen=True, slots=True)
class _Span:
    """A finding in raw bytes."""

    start: int
    end: int
    found: Found
    rule: Rule

    @property
    def rank(self) -> tuple[int, int, int, str]:
        return self.end - self.start, self.rule.priority, -self.start, self.rule.id


class Redactor:
    """Masks personal data and credentials. Pure: same text, key, epoch and rules, same result."""

    def __init__(
        self,
        rules: Sequence[Rule],
        pseudonym_key: bytes,
        epoch: str,
        limits: RedactionLimits | None = None,
    ) -> None:
        self.pseudonyms = Pseudonyms(pseudonym_key, epoch)
        self.limits = limits or RedactionLimits()
        self._matchers = tuple(map(_matcher, rules))
        self._prefilter = Prefilter(rules)

    @classmethod
    def default(cls, pseudonym_key: bytes, epoch: str = "e1") -> Redactor:
        """Return a redactor with the packaged rules; the key has 16 bytes or more."""
        return cls(default_rules(), pseudonym_key, epoch)

    def redact_text(self, text: str, *, tenant: str = "", where: str = "") -> Redacted:
        """Mask every value found in `text`. Raises RedactionFailed, never with any of the text.

        `tenant` separates pseudonyms; `where` is a label for the failure, such as a field name.
        """
        return _guarded(lambda: self._redact(text, tenant), where)

    def redact_json(
        self, value: JSON, path: str = "", *, tenant: str = ""
    ) -> tuple[JSON, dict[str, int]]:
        """Return a redacted copy of a JSON value, keys and numbers included, and the counts.

        Strings under a key that names a credential (`password`, `api_key`) are masked whole.
        `path` labels the failure. Raises RedactionFailed beyond the limits or on other types.
        """
        walk = _JsonWalk(self, tenant)
        return _guarded(lambda: (walk.value(value, 0), dict(walk.counts)), path)

    def _redact(self, text: str, tenant: str) -> Redacted:
        if type(text) is not str:
            raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)
        raw = _sized(text, self.limits.text_bytes)
        counts: Counter[str] = Counter()
        budget = Budget(self.limits.work_units)
        for _ in range(self.limits.passes):
            spans = self._scan(text, raw, budget)
            if not spans:
                return Redacted(text, dict(counts))
            raw = self._mask(raw, spans, tenant, counts)
            text = raw.decode("utf-8", "surrogatepass")
        if self._scan(text, raw, budget):
            raise RedactionFailed(RedactionFailed.UNSTABLE)
        return Redacted(text, dict(counts))

    def _scan(self, text: str, raw: bytes, budget: Budget) -> list[_Span]:
        spans = list(self._scan_view(View(raw), budget))
        reading = folded(text, raw)
        if reading:
            view, edits = reading
            budget.spend(len(edits) // 4)
            plain = list(self._scan_view(view, budget))
            spans = [*_outside_escapes(spans, edits, plain), *plain]
        return list(_around_masks(raw, spans))

    def _scan_view(self, view: View, budget: Budget) -> Iterator[_Span]:
        for index in self._prefilter.wanted(view.data):
            matcher = self._matchers[index]
            for found in _matches(matcher, view.data, budget):
                start, end = view.to_raw(found.start, found.end)
                yield _Span(start, end, found, matcher.rule)

    def _mask(self, raw: bytes, spans: list[_Span], tenant: str, counts: Counter[str]) -> bytes:
        pieces: list[bytes] = []
        position = 0
        for start, end, winner, mixed in _clusters(raw, spans):
            kind = winner.rule.kind
            counts[kind] += 1
            pseudonym = self.pseudonyms.of(kind, winner.found.normalised, tenant)
            # What another kind overlaps may not be kept: `x@AKIA....com` holds a key.
            kept = "" if mixed or winner.rule.mask == "plain" else winner.found.kept
            pieces += (raw[position:start], render(pseudonym, kept).encode("ascii"))
            position = end
        return b"".join((*pieces, raw[position:]))


_HAS_VALUE = re.compile(rb"[A-Za-z0-9\x80-\xff]")


def _matcher(rule: Rule) -> _Matcher:
    if rule.validator not in VALIDATORS:
        raise RuleInvalid(f"rule {rule.id}: its validator is unknown")
    try:
        pattern = compile_pattern(rule.pattern)
        compile_pattern(rule.value)
    except (re2.error, UnicodeEncodeError) as error:
        raise RuleInvalid(f"rule {rule.id}: its pattern does not compile") from error
    return _Matcher(rule, pattern, VALIDATORS[rule.validator])


def _matches(matcher: _Matcher, data: bytes, budget: Budget) -> Iterator[Found]:
    for match in matcher.pattern.finditer(data):
        start, end = match.span(match.lastindex or 0)
        budget.spend(matcher.rule.cost + (end - start) // 256)
        yield from matcher.validate(Probe(data, start, end, matcher.rule, budget))


def _around_masks(raw: bytes, spans: list[_Span]) -> Iterator[_Span]:
    """Cut masks of earlier passes out of the findings; what is left over is a value still.

    This makes redaction settle: `password=[PASSWORD_...]` is found again and again, and holds
    nothing to mask. A finding inside a mail domain that a mask keeps stays whole.
    """
    masks = find_masks(raw) if spans else []
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
    cluster: list[_Span] = []
    end = -1
    for span in sorted(spans, key=lambda span: span.start):
        if cluster and span.start >= end:
            yield _extent(raw, cluster, end)
            cluster = []
        cluster.append(span)
        end = max(end, span.end)
    yield _extent(raw, cluster, end)


def _extent(raw: bytes, cluster: list[_Span], end: int) -> tuple[int, int, _Span, bool]:
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


def _sized(text: str, limit_bytes: int) -> bytes:
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


_SECRET_KEYS = {
    "password": re.compile(r"(?:.*_)?(?:password|passwd|passphrase|pwd)"),
    "api_key": re.compile(
        r"(?:.*_)?(?:api_?key|secret|secret_?(?:access_)?key|client_?secret|access_?token"
        r"|refresh_?token|id_?token|auth_?token|authorization|bearer|private_?key|credentials?)"
    ),
}


def _secret_kind(key: str) -> str:
    """Return the kind of credential that a key names, or an empty string."""
    name = key.strip().lower().replace("-", "_")[:64]
    return next((kind for kind, names in _SECRET_KEYS.items() if names.fullmatch(name)), "")


class _JsonWalk:
    """One walk over one JSON value: its node and byte counts, and what it masked."""

    def __init__(self, redactor: Redactor, tenant: str) -> None:
        self.redactor = redactor
        self.tenant = tenant
        self.counts: Counter[str] = Counter()
        self.nodes = 0
        self.bytes = 0

    def value(self, value: Any, depth: int) -> JSON:
        self._enter(depth)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return self._object(value, depth)
        raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)

    def _enter(self, depth: int) -> None:
        self.nodes += 1
        if depth > self.redactor.limits.json_depth:
            raise RedactionFailed(RedactionFailed.TOO_DEEP)
        if self.nodes > self.redactor.limits.json_nodes:
            raise RedactionFailed(RedactionFailed.TOO_MANY_NODES)

    def _text(self, text: str) -> str:
        self.bytes += len(text)
        if self.bytes > self.redactor.limits.json_bytes:
            raise RedactionFailed(RedactionFailed.OVERSIZE)
        redacted = self.redactor._redact(text, self.tenant)
        self.counts.update(redacted.counts)
        return redacted.text

    def _number(self, number: int | float) -> JSON:
        """A card written as a JSON number becomes its mask, a string."""
        if abs(number) < 1e11 or number != number or abs(number) > 1e40:
            return number
        written = format(number, ".0f") if isinstance(number, float) else str(number)
        redacted = self._text(written)
        return number if redacted == written else redacted

    def _object(self, items: dict[Any, Any], depth: int) -> JSON:
        result: dict[str, Any] = {}
        for key, item in items.items():
            if not isinstance(key, str):
                raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)
            kind = _secret_kind(key) if isinstance(item, str) and item else ""
            name = _unused(self._text(key), result)
            result[name] = self._secret(kind, item) if kind else self.value(item, depth + 1)
        return result

    def _secret(self, kind: str, text: str) -> str:
        raw = _sized(text, self.redactor.limits.text_bytes)
        if is_mask(raw):
            return text
        self.counts[kind] += 1
        return render(self.redactor.pseudonyms.of(kind, text, self.tenant), "")


def _unused(name: str, taken: dict[str, Any]) -> str:
    """Two keys may read the same once masked; the later gets a number."""
    number, unused = 2, name
    while unused in taken:
        number, unused = number + 1, f"{name}#{number}"
    return unused
