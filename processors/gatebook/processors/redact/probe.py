"""What a validator gets and gives, and the checks that several of them share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import re2

from .budget import Budget
from .rules import Rule
from .spans import Settled

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1
_LATIN1.log_errors = False


def compile_pattern(pattern: str) -> re2._Regexp:
    """Compile a rule's pattern to run over bytes in linear time."""
    return re2.compile(pattern.encode("ascii"), _LATIN1)


_NOTHING = Settled()


@dataclass(slots=True)
class Probe:
    """A candidate: bytes `start` to `end` of `data`, found by `rule`."""

    data: bytes
    start: int
    end: int
    rule: Rule
    budget: Budget
    settled: Settled = _NOTHING
    """What stronger rules have found."""

    @property
    def value(self) -> bytes:
        return self.data[self.start : self.end]


class Found(NamedTuple):
    """A confirmed value: its bytes in the view, its normal form, and what the mask may keep."""

    start: int
    end: int
    normalised: str
    kept: str = ""

    def of(self, data: bytes) -> bytes:
        """The value as it is written."""
        return data[self.start : self.end]


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


def is_drawn(value: bytes, least_bits: float) -> bool:
    """Tell whether a value has that entropy per byte; counted only where its bounds do not tell."""
    total, distinct = len(value), len(set(value))
    if not 0 < total < len(_N_LOG_N) or least_bits <= 0:
        return entropy_bits(value) >= least_bits if value else least_bits <= 0
    if _LOG[distinct] < least_bits - _ROUNDING:
        return False  # were all its characters equally frequent
    if _LOG[total] - _N_LOG_N[total - distinct + 1] / total > least_bits + _ROUNDING:
        return True  # were all but one of them there once
    return entropy_bits(value) >= least_bits


_LOG = [math.log2(n) if n else 0.0 for n in range(513)]
_ROUNDING = 1e-9


# Linear in `re`, too: it is read from its beginning only, and no repeat stands within another.
_PLACEHOLDER = re.compile(
    rb"(?i)(?:|\$[A-Z_][A-Z0-9_]*|\$[{(].*|\{\{.*|%[({s].*|\*+|\.+|x+|-+|_+|none|null|nil|true|false"
    rb"|undefined|changeme|redacted|hidden|masked|optional|required|string|str|your[_-]?[a-z_-]*"
    rb"|https?:.*|(?:os|env|self|config|settings|process|request|args)\.[a-z_.].*"
    rb"|[a-z_.]+\([^)]*\)?;?)"
)
_FILLERS = (b"abcdefgh", b"xxxxx", b"placeholder", b"your_", b"your-")
_SAMPLES = (b"example", b"changeme", b"redacted", b"dummy_", b"dummy-", b"sample_", b"sample-")
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
    return any(map(value.lower().__contains__, _SAMPLES)) or _is_counted(value)


def is_filled(value: bytes) -> bool:
    """Tell runs of one character, alphabets and words that say so: no value is in there."""
    lowered = value.lower()
    return any(map(lowered.__contains__, _FILLERS)) or _repeats(lowered)


def _repeats(value: bytes) -> bool:
    """Tell the same character in a row, eight times and an eighth of the value: each is its
    neighbour's double. Base64 of a few zero bytes, `AAAAAAAA`, fills no long value."""
    if len(value) < 8:
        return False
    doubles = max(8, len(value) // 8) - 1
    differs = int.from_bytes(value[1:], "big") ^ int.from_bytes(value[:-1], "big")
    return b"\x00" * doubles in differs.to_bytes(len(value) - 1, "big")


def _is_counted(value: bytes) -> bool:
    """Tell `abc123-def456-ghij789`: most characters follow the one before them in order."""
    if len(value) < _MIN_COUNTED_BYTES:
        return False
    bare = value.translate(_LOWER, _JOINTS)
    return 2 * sum(map(_SUCCESSORS.__contains__, pairwise(bare))) > len(bare)
