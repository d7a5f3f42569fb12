"""What a validator gets and gives, and the checks that several of them share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import re2

from .budget import Budget
from .rules import Rule

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1
_LATIN1.log_errors = False


def compile_pattern(pattern: str) -> re2._Regexp:
    """Compile a rule's pattern to run over bytes in linear time."""
    return re2.compile(pattern.encode("ascii"), _LATIN1)


@dataclass(slots=True)
class Probe:
    """A candidate: bytes `start` to `end` of `data`, found by `rule`."""

    data: bytes
    start: int
    end: int
    rule: Rule
    budget: Budget
    settled: Sequence[tuple[int, int]] = ()
    """Extents that stronger rules have found: a weaker one could add nothing within them."""

    def is_settled(self, start: int, end: int) -> bool:
        """Tell whether all of an extent is found already."""
        return any(left <= start and end <= right for left, right in self.settled)

    @property
    def value(self) -> bytes:
        return self.data[self.start : self.end]


class Found(NamedTuple):
    """A confirmed value: its bytes in the view, its normal form, and what the mask may keep."""

    start: int
    end: int
    normalised: str
    kept: str = ""


Validator = Callable[[Probe], Iterable[Found]]


def plain(value: bytes) -> str:
    """The bytes as text, whatever they are."""
    return value.decode("utf-8", "replace")


_N_LOG_N = [n * math.log2(n) if n else 0.0 for n in range(513)]


def entropy_bits(value: bytes) -> float:
    """Return the Shannon entropy in bits per byte of the first 512 bytes (of at least one)."""
    total = len(value)
    if total >= len(_N_LOG_N):
        return entropy_bits(value[: len(_N_LOG_N) - 1])
    return math.log2(total) - sum(map(_N_LOG_N.__getitem__, Counter(value).values())) / total


# Linear in `re`, too: it is read from its beginning only, and no repeat stands within another.
_PLACEHOLDER = re.compile(
    rb"(?i)(?:|\$[A-Z_][A-Z0-9_]*|\$[{(].*|\{\{.*|%[({s].*|\*+|\.+|x+|-+|_+|none|null|nil|true|false"
    rb"|undefined|changeme|redacted|hidden|masked|optional|required|string|str|your[_-]?[a-z_-]*"
    rb"|https?:.*|(?:os|env|self|config|settings|process|request|args)\.[a-z_.].*"
    rb"|[a-z_.]+\([^)]*\)?;?)"
)
_FILLER = re.compile(rb"(?i)(.)\1{7}|abcdefgh|x{5}|placeholder|your[_-]")
_SAMPLE = re.compile(rb"(?i)example|changeme|redacted|(?:dummy|sample)[_-]")
_LOWER = bytes(range(256)).lower()
_JOINTS = b" -_.:/=+"
_MIN_COUNTED_BYTES = 16
_SUCCESSORS = frozenset(
    pair for run in (b"abcdefghijklmnopqrstuvwxyz", b"01234567890") for pair in pairwise(run)
)


def is_variable(value: bytes) -> bool:
    """Tell what takes a value's place in code and examples: `${TOKEN}`, `xxxx`, a call."""
    if b"%" in value:
        value = unquote_to_bytes(value)
    return bool(_PLACEHOLDER.fullmatch(value.strip(b" *`")))


def is_placeholder(value: bytes) -> bool:
    """Tell that, and what is filled up to a token's size, counted up or called an example.

    Not for tokens that announce themselves: those of a true form are masked, examples or not.
    """
    if is_variable(value) or is_filled(value):
        return True
    return _SAMPLE.search(value) is not None or _is_counted(value)


def is_filled(value: bytes) -> bool:
    """Tell runs of one character, alphabets and words that say so: no value is in there."""
    return bool(_FILLER.search(value))


def _is_counted(value: bytes) -> bool:
    """Tell `abc123-def456-ghij789`: most characters follow the one before them in order."""
    if len(value) < _MIN_COUNTED_BYTES:
        return False
    bare = value.translate(_LOWER, _JOINTS)
    return 2 * sum(map(_SUCCESSORS.__contains__, pairwise(bare))) > len(bare)
