"""Reads the texts of JSON values ahead, all in one pass: most hold nothing that a rule begins at.

A text of which no trigger fires, and which reads the same once folded, is clean by construction:
no rule would look at any byte of it. Joined, many short texts cost little more than one. What is
not clean here is only suspected: it goes the plain way, alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import RedactionFailed
from .keyed import is_keyed, written

if TYPE_CHECKING:
    from .engine import Redactor

MAX_JOINED_CHARS = 32_768
"""Of all texts together. Beyond, the fixed cost of a text counts for little: each is read alone."""
MAX_PARTS = 4096
LEAST_LONG_NUMBER = 1e11
"""Numbers from here on have as many digits as a card."""

# Keys and codes of messages come again with every event: `role`, `content`, `assistant`.
WORD = re.compile(r"[a-z_]{1,24}")
MAX_WORD_CHARS = 24
MAX_WORDS = 4096


def part_key(item: Any) -> str | None:
    """Where a part of a message holds its text: empty for a plain text, None for what is none."""
    if type(item) is str:
        return ""
    if type(item) is not dict:
        return None
    if type(item.get("text")) is str:
        return "text"
    return "content" if type(item.get("content")) is str and "type" in item else None


def part_keys(items: Sequence[Any]) -> list[str] | None:
    """Where each item holds its text; None where the items do not follow each other as parts."""
    if not 2 <= len(items) <= MAX_PARTS:
        return None
    keys = []
    for item in items:
        key = part_key(item)
        if key is None:
            return None
        keys.append(key)
    return keys


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without the values that were found, and how many of each kind were masked.

    It does not say that no other value is left: see each rule's blind spots.
    """

    text: str
    counts: dict[str, int] = field(default_factory=dict)


Read = Mapping[str, Redacted] | None
"""What was read, by text; None where nothing in any of the values asks for more."""
UNREAD: Read = MappingProxyType({})


class ReadAhead:
    """The texts of the values of one tenant's event, and which of them a walk may pass over."""

    __slots__ = ("_chars", "_depth", "_known", "_most", "_nodes", "_tenant", "_texts", "redactor")

    def __init__(self, redactor: Redactor, tenant: str) -> None:
        limits = redactor.limits
        self.redactor = redactor
        self._tenant = tenant
        self._known = redactor.quiet_words
        self._texts: list[str] = []
        self._most = min(MAX_JOINED_CHARS, limits.json_bytes, limits.text_bytes)
        self._depth = limits.json_depth
        self._chars = 0
        self._nodes = 0

    def read(self, values: Iterable[Any]) -> Read:
        """What was read of the texts in the values; None where a walk over any of the values would
        find nothing, mask nothing and refuse nothing. A text it leaves out is still to be read."""
        if self.redactor.ner is not None:
            return UNREAD  # names are read in their own texts, and each costs much
        plain = True
        for value in values:
            plain = self._gather(value, 0, keyed=False) and plain
        if self._chars > self._most or self._nodes > self.redactor.limits.json_nodes:
            return UNREAD
        texts = self._texts
        suspects = [texts[n] for n in self.redactor.suspects(texts)] if texts else []
        self._remember(suspects)
        found = self._alone(suspects)
        if plain and all(text in found and not found[text].counts for text in suspects):
            return None
        unread = set(suspects).difference(found)
        return {text: Redacted(text) for text in texts if text not in unread} | found

    def _remember(self, suspects: Sequence[str]) -> None:
        """The words that come with every message, and that no trigger fires in."""
        for text in self._texts:
            if len(text) <= MAX_WORD_CHARS and WORD.fullmatch(text) and text not in suspects:
                if len(self._known) >= MAX_WORDS:
                    self._known.clear()
                self._known.add(text)

    def _alone(self, texts: list[str]) -> dict[str, Redacted]:
        found = {}
        for text in texts:
            try:
                found[text] = self.redactor._redact(text, self._tenant)
            except Exception:  # the walk comes to the same text, and fails in its own guard
                return found
        return found

    def _gather(self, value: Any, depth: int, keyed: bool) -> bool:
        """Gather the texts of a value; False where it may ask for more than to read its texts.
        `keyed`: it is in an object that is read with its keys."""
        self._nodes += 1
        if depth > self._depth or self._chars > self._most:
            return False
        kind = type(value)
        if kind is str:
            self._text(value)
            return True
        if kind is dict:
            return self._object(value, depth, keyed)
        if kind is list:
            return self._list(value, depth + 1, keyed)
        if kind is int or kind is float:
            return bool(abs(value) < LEAST_LONG_NUMBER)
        return value is None or kind is bool

    def _text(self, text: str) -> None:
        self._chars += len(text)
        if text not in self._known:
            self._texts.append(text)

    def _object(self, items: dict[Any, Any], depth: int, keyed: bool) -> bool:
        plain = True
        if not keyed and is_keyed(items):
            plain, keyed = self._keyed(items, depth), True
        for key, item in items.items():
            if type(key) is not str:
                return False
            self._text(key)
            plain = self._gather(item, depth + 1, keyed) and plain
        return plain

    def _keyed(self, items: dict[Any, Any], depth: int) -> bool:
        """The same of an object that is read with its keys, and of all in it."""
        texts, plain = texts_with_keys(items, self._depth - depth)
        for text in texts:
            self._text(text)
        return plain

    def _list(self, items: list[Any], depth: int, keyed: bool) -> bool:
        keys = part_keys(items)
        if keys:
            parts = [item[key] if key else item for item, key in zip(items, keys, strict=True)]
            self._text("".join(parts))
        plain = True
        for item in items:
            plain = self._gather(item, depth, keyed) and plain
        return plain


def texts_with_keys(items: Mapping[Any, Any], most_depth: int) -> tuple[list[str], bool]:
    """The texts that an object is read as, with its keys; False where a key names a credential,
    or where it is no such value."""
    try:
        chunks = written(items, most_depth)
    except RedactionFailed:  # the walk comes to it again, and says so
        return [], False
    plain = not any(said.kind for chunk in chunks for said in chunk.values)
    return [chunk.text for chunk in chunks], plain
