"""Remembers texts that need no redaction, so that they are not read again and again."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

Key = str | tuple[Any, ...]
MAX_CLEAN_TEXT_CHARS = 256


class CleanTexts:
    """Short texts in which one redactor found nothing: paths, clients and models come again with
    every event, and what a redactor says of a text depends on nothing but the text.

    A text in which something was found is never to be added. Bounded: two generations of `limit`
    texts, of which the older is forgotten when the younger is full. For one redactor only.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._younger: set[Key] = set()
        self._older: set[Key] = set()

    @property
    def recent(self) -> AbstractSet[Key]:
        """Most of them, for a quick look: a text in here is clean, one that is not may be."""
        return self._younger

    def __contains__(self, value: Any) -> bool:
        """Whether this text, or list of texts, was added and is not forgotten."""
        key = _key(value)
        return key is not None and self._has(key)

    def add(self, value: Any) -> None:
        """Remember a text, or a list of texts; long ones and other values are not kept."""
        key = _key(value)
        if key is not None:
            self._keep(key)

    def has_group(self, values: tuple[Any, ...]) -> bool:
        """Whether these values were added together and are not forgotten."""
        return self._has(values)

    def add_group(self, values: tuple[Any, ...]) -> None:
        """Remember values of fields, in the order of the fields, each of which is clean."""
        self._keep(values)

    def _has(self, key: Key) -> bool:
        if key in self._younger:
            return True
        if key not in self._older:
            return False
        self._keep(key)
        return True

    def _keep(self, key: Key) -> None:
        if len(self._younger) >= self._limit:
            self._older, self._younger = self._younger, set()
        self._younger.add(key)


def _key(value: Any) -> Key | None:
    if type(value) is str:
        return value if len(value) <= MAX_CLEAN_TEXT_CHARS else None
    if type(value) is list and all(type(item) is str for item in value):
        return tuple(value) if sum(map(len, value)) <= MAX_CLEAN_TEXT_CHARS else None
    return None
