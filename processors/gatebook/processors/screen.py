"""Reads the texts of many events in one pass, before each event goes its own way.

Most events hold nothing that a rule of the redactor or a signal begins at. Of those this says so,
and they are passed over; joined, many texts cost little more than one. It redacts nothing and it
decides nothing else: an event that it says nothing of is read alone, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from gatebook.processors import signals
from gatebook.processors.redact import Redacted, RedactionFailed, Redactor
from gatebook.processors.redact.ahead import (
    LEAST_LONG_NUMBER,
    MAX_WORD_CHARS,
    MAX_WORDS,
    UNREAD,
    WORD,
    Read,
    part_keys,
    texts_with_keys,
)
from gatebook.processors.redact.keyed import is_keyed

MAX_EVENT_BYTES = 16 * 1024
"""Of the texts of one event. Of a larger one nothing is said: its own reading costs more by far."""
TOGETHER_BYTES = 16 * 1024
"""So much is read at once: enough to share the fixed cost, and a value suspects few others."""
MAX_UTF8_BYTES = 4


@dataclass(slots=True)
class Part:
    """The fields of an event, or its content. Not `plain`: something in it asks for more than to
    read its texts."""

    said: list[str]
    """Its texts; those of content in the order signals are looked for."""
    others: list[str]
    """Keys of objects, objects that are read with their keys, and what is split over the parts of
    a list, put together."""
    plain: bool = True


class Texts(NamedTuple):
    """All texts of one event, and about how many bytes they are."""

    fields: Part
    content: Part
    size: int


class Reading(NamedTuple):
    """What one pass says of the texts of a part: in those that are not suspects no rule begins."""

    texts: Sequence[str]
    suspects: Collection[str]
    plain: bool

    def settled(self, redactor: Redactor, tenant: str, clean: Container[str] = ()) -> Read:
        """For the redactor's calls, once the suspects are read: None where those calls would find,
        mask and refuse nothing. Nothing is found in texts that are `clean`."""
        if self.plain and not self.suspects:
            return None
        found: dict[str, Redacted] = {}
        for text in self.suspects:
            try:
                known = text in clean
                found[text] = Redacted(text) if known else redactor.redact_text(text, tenant=tenant)
            except RedactionFailed:  # the call comes to the same text, and fails
                break
        complete = len(found) == len(self.suspects)
        if self.plain and complete and not any(map(_counts, found.values())):
            return None
        rest = {text: Redacted(text) for text in self.texts if text not in self.suspects}
        return rest | found or UNREAD


_counts = attrgetter("counts")


class Look(NamedTuple):
    """What is known of an event before it is read alone; by default, nothing."""

    fields: Reading | None = None
    content: Reading | None = None
    may_signal: bool = True
    """False where no signal is in the content."""


UNKNOWN = Look()


class Screen:
    """For one redactor; remembers words that come with every event and say nothing."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._known: set[str] = set()
        """Short words in which no rule begins."""
        limits = redactor.limits
        self._most = min(
            MAX_EVENT_BYTES, limits.text_bytes, limits.json_bytes, limits.json_nodes
        )  # a JSON value has fewer nodes than bytes
        self._depth = min(limits.json_depth, signals.MAX_DEPTH)

    def texts(
        self, fields: Iterable[Any], values: Mapping[str, Any], content_bytes: int
    ) -> Texts | None:
        """The texts of an event's fields and of its content, `content_bytes` long as JSON. None
        where there are too many for one pass."""
        if content_bytes > self._most:
            return None
        named, content = Part([], []), Part([], [])
        for field in fields:
            self._add(named, field, named.said)
        for name in signals.FIELDS:
            if name in values:
                self._add(content, values[name], content.said)
        for name in values.keys() - _SIGNAL_FIELDS:
            self._add(content, values[name], content.others)
        chars = sum(map(len, named.said)) + sum(map(len, named.others))
        size = content_bytes + MAX_UTF8_BYTES * chars + len(named.said)
        return Texts(named, content, size) if size <= self._most else None

    def _add(self, part: Part, value: Any, said: list[str]) -> None:
        part.plain = self._gather(value, self._depth, said, part.others, False) and part.plain

    def look(self, events: Sequence[Texts | None]) -> list[Look]:
        """What is known of each event; of None, nothing. Raises nothing."""
        looks = [UNKNOWN] * len(events)
        for group in _groups(events):
            found = self._look_or_not([texts for _, texts in group])
            for (place, _), look in zip(group, found, strict=True):
                looks[place] = look
        return looks

    def _look_or_not(self, group: Sequence[Texts]) -> list[Look]:
        try:
            return self._look(group)
        except Exception:  # each event is read alone then, and what is wrong is its own matter
            return [UNKNOWN] * len(group)

    def _look(self, group: Sequence[Texts]) -> list[Look]:
        # Apart from each other: fields are full of numbers and codes, and content mostly is not.
        fields = self._read([texts.fields for texts in group])
        contents = self._read([texts.content for texts in group])
        signalling = signals.suspected([texts.content.said for texts in group])
        return [
            Look(named, content, not texts.content.plain or number in signalling)
            for number, (texts, named, content) in enumerate(
                zip(group, fields, contents, strict=True)
            )
        ]

    # ---- texts that rules may begin in ---------------------------------------------------------

    def _read(self, parts: Sequence[Part]) -> list[Reading]:
        known = self._known
        unknown = [[t for t in (*part.said, *part.others) if t not in known] for part in parts]
        joined = list(dict.fromkeys(chain.from_iterable(unknown)))
        suspects = (
            {joined[number] for number in self._redactor.suspects(joined)} if joined else set()
        )
        self._remember(joined, suspects)
        return [
            Reading(texts, suspects.intersection(texts), part.plain)
            for part, texts in zip(parts, unknown, strict=True)
        ]

    def _remember(self, texts: Sequence[str], suspects: Collection[str]) -> None:
        for text in texts:
            if len(text) <= MAX_WORD_CHARS and WORD.fullmatch(text) and text not in suspects:
                if len(self._known) >= MAX_WORDS:
                    self._known.clear()
                self._known.add(text)

    # ---- gathering -----------------------------------------------------------------------------

    def _gather(
        self, value: Any, room: int, said: list[str], others: list[str], keyed: bool
    ) -> bool:
        """Gather the texts of a value; False where it asks for more than to read them: a key names
        a credential, a number is as long as a card, or what else a walk would have to see.
        `keyed`: it is in an object that is read with its keys."""
        kind = type(value)
        if kind is str:
            said.append(value)
            return True
        if kind is dict:
            return room > 0 and self._object(value, room - 1, said, others, keyed)
        if kind is list:
            return room > 0 and self._list(value, room - 1, said, others, keyed)
        if kind is int or kind is float:
            return bool(abs(value) < LEAST_LONG_NUMBER)
        return value is None or kind is bool

    def _object(
        self, items: dict[str, Any], room: int, said: list[str], others: list[str], keyed: bool
    ) -> bool:
        plain = True
        if not keyed and is_keyed(items):
            keyed = True
            texts, plain = texts_with_keys(items, room)
            others.extend(texts)
        for key, item in items.items():
            if key not in self._known:
                others.append(key)
            if type(item) is str:  # as `_gather` does; most are
                said.append(item)
            else:
                plain = self._gather(item, room, said, others, keyed) and plain
        return plain

    def _list(
        self, items: list[Any], room: int, said: list[str], others: list[str], keyed: bool
    ) -> bool:
        if keys := part_keys(items):
            parts = [item[key] if key else item for item, key in zip(items, keys, strict=True)]
            others.append("".join(parts))
        plain = True
        for item in items:
            plain = self._gather(item, room, said, others, keyed) and plain
        return plain


_SIGNAL_FIELDS = frozenset(signals.FIELDS)


def _groups(events: Sequence[Texts | None]) -> Iterator[list[tuple[int, Texts]]]:
    """Events to read at once, each with its place; those of None in no group."""
    group: list[tuple[int, Texts]] = []
    size = 0
    for place, texts in enumerate(events):
        if texts is None:
            continue
        group.append((place, texts))
        size += texts.size
        if size >= TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
