"""Python's `re` over Gatebook's patterns, one after the other: no prefilter, no validators.

Where RE2's syntax differs from that of `re`, the pattern is written in the latter.
"""

from __future__ import annotations

import re

from serve import Spans, serve

from gatebook.processors.redact import default_rules


def compiled(pattern: str) -> re.Pattern[bytes]:
    """The pattern as `re` reads it: `\\z` is `\\Z`, and flags stand in groups of their own."""
    pattern = pattern.replace(r"\z", r"\Z")
    pattern = re.sub(r"\[\[:alnum:\]\]", "[A-Za-z0-9]", pattern)
    return re.compile(_scoped_flags(pattern).encode("latin-1"))


def _scoped_flags(pattern: str) -> str:
    """`a(?i)b|c` in RE2 is `a(?i:b|c)` up to the end of the group that it stands in."""
    flags = re.search(r"\(\?([ims]+)\)", pattern)
    if not flags:
        return pattern
    end = _group_end(pattern, flags.end())
    body, rest = _scoped_flags(pattern[flags.end() : end]), _scoped_flags(pattern[end:])
    return f"{pattern[: flags.start()]}(?{flags[1]}:{body}){rest}"


def _group_end(pattern: str, begin: int) -> int:
    """Where the group that `begin` is in closes; the pattern's end at its outermost level."""
    depth, at, in_class = 0, begin, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
            at += pattern[at + 1 : at + 2] == "]" or 2 * (pattern[at + 1 : at + 3] == "^]")
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                return at
        at += 1
    return at


PATTERNS = [(rule.kind, compiled(rule.pattern)) for rule in default_rules()]


def match_all(text: str) -> int:
    """What is timed: every match of every pattern."""
    raw = text.encode("utf-8", "surrogatepass")
    return sum(1 for _, pattern in PATTERNS for _ in pattern.finditer(raw))


def find(text: str) -> Spans:
    """Every match: its group that took part, else all of it."""
    raw = text.encode("utf-8", "surrogatepass")
    spans = [
        (kind, *match.span(match.lastindex or 0))
        for kind, pattern in PATTERNS
        for match in pattern.finditer(raw)
    ]
    return [(kind, _characters(raw, start), _characters(raw, end)) for kind, start, end in spans]


def _characters(raw: bytes, position: int) -> int:
    return position if raw.isascii() else len(raw[:position].decode("utf-8", "ignore"))


if __name__ == "__main__":
    serve(find, match_all)
