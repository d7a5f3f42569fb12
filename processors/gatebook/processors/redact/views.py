"""The ways a text is read when looking for values.

A value hides behind JSON escapes (`\\u0040`, `\\n` glued to its first letter), percent-encoding,
full-width or Arabic digits, exotic spaces and dashes, or zero-width characters. The folded view
undoes those; each view maps its byte offsets back to the raw text, which is what gets masked.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from .budget import Budget

# Linear in `re`: a run of backslashes is read from its beginning only, and only once.
_ESCAPE = re.compile(rb"""(?<!\\)\\++(?:["'/bfnrt]|u[0-9A-Fa-f]{4})|%[2-7][0-9A-Fa-f]|%0[AaDd]""")
_CONTROL = {b"b": b" ", b"f": b" ", b"n": b"\n", b"r": b"\n", b"t": b"\t"}

_COMMON = frozenset("\u2014\u2015\u2026")
"""Long dashes and the ellipsis: frequent in answers, never part of a value."""

Edit = tuple[int, int, bytes]
"""Start and end byte in the raw text, and what the view reads there."""


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text: its bytes, and where each segment starts in view and raw bytes."""

    data: bytes
    view_starts: tuple[int, ...] = ()
    raw_spans: tuple[tuple[int, int, bool], ...] = ()

    def to_raw(self, start: int, end: int) -> tuple[int, int]:
        """Map a non-empty span of the view to the raw bytes it was read from."""
        if not self.view_starts:
            return start, end
        return self._raw(start)[0], self._raw(end - 1)[1]

    def _raw(self, position: int) -> tuple[int, int]:
        index = bisect_right(self.view_starts, position) - 1
        raw_start, raw_end, edited = self.raw_spans[index]
        if edited:
            return raw_start, raw_end
        raw = raw_start + position - self.view_starts[index]
        return raw, raw + 1


def folded(text: str, raw: bytes, budget: Budget) -> tuple[View, list[Edit]] | None:
    """Return the folded view and its edits, or None where it would equal the raw text.

    Raises RedactionFailed where there is more to fold than the budget allows.
    """
    edits: list[Edit] = []
    if b"\\" in raw or b"%" in raw:
        budget.spend((raw.count(b"\\") + raw.count(b"%")) * _EDIT_COST)
        edits.extend(_escape_edits(raw))
    if not text.isascii():
        edits.extend(_character_edits(text, budget))
        edits.sort()
    return (_build(raw, edits), edits) if edits else None


def reads_plain(text: str) -> bool:
    """Whether there is nothing to fold in a text, so that it has one reading. No stands for
    maybe."""
    if "\\" in text or "%" in text:
        return False
    return text.isascii() or all(c <= "\x7f" or fold_character(c) == c for c in set(text))


_AROUND_EDIT_BYTES = 160
_SNAP_BYTES = 8192
_BREAK = b"\n\x00\n"
_SPACE = re.compile(rb"[\s\"]")


def _build(raw: bytes, edits: list[Edit]) -> View:
    """The view around the edits: what is further away reads the same in the raw text."""
    pieces: list[bytes] = []
    view_starts: list[int] = []
    raw_spans: list[tuple[int, int, bool]] = []
    view_position = 0
    number = 0
    for first, last in _surroundings(raw, edits):
        raw_position = first
        while number < len(edits) and edits[number][0] < last:
            start, end, replacement = edits[number]
            number += 1
            for span, piece in (
                ((raw_position, start, False), raw[raw_position:start]),
                ((start, end, True), replacement),
            ):
                view_starts.append(view_position)
                raw_spans.append(span)
                pieces.append(piece)
                view_position += len(piece)
            raw_position = end
        for span, piece in (
            ((raw_position, last, False), raw[raw_position:last]),
            ((last, last, True), _BREAK if last < len(raw) else b""),
        ):
            view_starts.append(view_position)
            raw_spans.append(span)
            pieces.append(piece)
            view_position += len(piece)
    return View(b"".join(pieces), tuple(view_starts), tuple(raw_spans))


def _surroundings(raw: bytes, edits: list[Edit]) -> Iterator[tuple[int, int]]:
    """Extents around the edits, disjoint and in order; no word is cut at their edges."""
    first, last = _word_start(raw, edits[0][0] - _AROUND_EDIT_BYTES), 0
    for start, end, _ in edits:
        if last and start - _AROUND_EDIT_BYTES > last:
            yield first, last
            first = max(_word_start(raw, start - _AROUND_EDIT_BYTES), last)
        if end + _AROUND_EDIT_BYTES > last:
            last = max(_word_end(raw, end + _AROUND_EDIT_BYTES), last)
    yield first, last


def _word_start(raw: bytes, at: int) -> int:
    if at <= 0:
        return 0
    least = max(0, at - _SNAP_BYTES)
    return max(raw.rfind(b" ", least, at), raw.rfind(b"\n", least, at), least)


def _word_end(raw: bytes, at: int) -> int:
    if at >= len(raw):
        return len(raw)
    match = _SPACE.search(raw, at, at + _SNAP_BYTES)
    return match.start() if match else min(len(raw), at + _SNAP_BYTES)


def _escape_edits(raw: bytes) -> Iterator[Edit]:
    for match in _ESCAPE.finditer(raw):
        start, end = match.span()
        yield start, end, _unescape(raw[start:end].lstrip(b"\\"))


def _unescape(body: bytes) -> bytes:
    if body[:1] == b"%":
        return bytes([int(body[1:], 16)])
    if len(body) == 5:
        return fold_character(chr(int(body[1:], 16))).encode("utf-8", "surrogatepass")
    return _CONTROL.get(body, body)


_EDIT_COST = 3


def _character_edits(text: str, budget: Budget) -> Iterator[Edit]:
    changed = [c for c in set(text) if c > "\x7f" and fold_character(c) != c]
    if not changed:
        return
    budget.spend(sum(map(text.count, changed)) * _EDIT_COST)
    byte_position = last = 0
    for match in re.finditer("[" + "".join(map(re.escape, changed)) + "]", text):
        byte_position += len(text[last : match.start()].encode("utf-8", "surrogatepass"))
        width = len(match[0].encode("utf-8", "surrogatepass"))
        replacement = fold_character(match[0]).encode("utf-8", "surrogatepass")
        yield byte_position, byte_position + width, replacement
        byte_position += width
        last = match.end()


@lru_cache(maxsize=8192)
def fold_character(character: str) -> str:
    """Return the plain form of one character: digits, spaces, dashes; format characters vanish."""
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if character in _COMMON:
        return character
    if category == "Pd":
        return "-"
    return unicodedata.normalize("NFKC", character)
