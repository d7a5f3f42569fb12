"""The walk over a JSON value: everything in it that can carry text is redacted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .ahead import LEAST_LONG_NUMBER, MAX_WORDS, WORD, Redacted, part_keys
from .errors import RedactionFailed
from .keyed import Chunk, Said, is_keyed, number_text, refilled, written
from .masks import is_mask, render

if TYPE_CHECKING:
    from .engine import Redactor

JSON = dict[str, Any] | list[Any] | str | int | float | bool | None


class JsonWalk:
    """One walk over one JSON value: its node and byte counts, and what it masked."""

    def __init__(self, redactor: Redactor, tenant: str, read: Mapping[str, Redacted]) -> None:
        """`read` says what was found in texts that were read before."""
        self.redactor = redactor
        self.tenant = tenant
        self.read = read
        self.counts: Counter[str] = Counter()
        self.nodes = 0
        self.bytes = 0

    def value(self, value: Any, depth: int, keyed: bool = False) -> JSON:
        """The value redacted. `keyed`: it is in an object that was read with its keys."""
        self._enter(depth)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1, keyed) for item in self._joined(value)]
        if isinstance(value, dict):
            return self._object(value, depth, keyed)
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
        if text in self.read:
            self.counts.update(self.read[text].counts)
            return self.read[text].text
        known, word = self.redactor.clean_words, (self.tenant, text)
        if word in known:
            return text
        redacted = self.redactor._redact(text, self.tenant)
        self.counts.update(redacted.counts)
        if not redacted.counts and self.redactor.ner is None and WORD.fullmatch(text):
            if len(known) >= MAX_WORDS:
                known.clear()
            known.add(word)
        return redacted.text

    def _joined(self, items: Sequence[Any]) -> Sequence[Any]:
        """Mask what is split over the parts of a message or the chunks of a stream.

        Items are parts where all are texts, or objects with a `text`, or a `content` and a `type`.
        """
        keys = part_keys(items)
        if keys is None:
            return items
        texts = [item[key] if key else item for item, key in zip(items, keys, strict=True)]
        whole = self.read.get("".join(texts))
        if whole and not whole.counts:
            return items
        parts = self.redactor.join_parts(texts, self.tenant, self.counts)
        return [
            {**item, key: part} if key else part
            for item, key, part in zip(items, keys, parts, strict=True)
        ]

    def _number(self, number: int | float) -> JSON:
        """A card written as a JSON number becomes its mask, a string."""
        if abs(number) < LEAST_LONG_NUMBER or number != number or abs(number) > 1e40:
            return number
        digits = number_text(number)
        redacted = self._text(digits)
        return number if redacted == digits else redacted

    def _object(self, items: dict[Any, Any], depth: int, keyed: bool) -> JSON:
        if not keyed and is_keyed(items):
            items, keyed = self._with_keys(items, depth), True
        result: dict[str, Any] = {}
        for key, item in items.items():
            if not isinstance(key, str):
                raise RedactionFailed(RedactionFailed.UNKNOWN_TYPE)
            name = _unused(self._text(key), result)
            result[name] = self.value(item, depth + 1, keyed)
        return result

    def _with_keys(self, items: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """Mask what keys and values say together; each value is still to be redacted."""
        chunks = written(items, self.redactor.limits.json_depth - depth)
        texts: Iterator[str] = (text for chunk in chunks for text in self._chunk(chunk))
        filled: dict[Any, Any] = refilled(items, texts)
        return filled

    def _chunk(self, chunk: Chunk) -> list[str]:
        """The values of a chunk, in order."""
        read = self.read.get(chunk.text)
        if read and not read.counts:
            masked = [said.text for said in chunk.values]
        else:
            masked = self.redactor.mask_values(chunk, self.tenant, self.counts)
        return list(map(self._secret, chunk.values, masked))

    def _secret(self, said: Said, masked: str) -> str:
        """The whole of a value masked, where its key says so and no rule masked all of it."""
        if not said.kind or is_mask(masked.encode("utf-8", "surrogatepass")):
            return masked
        if len(said.text) > self.redactor.limits.text_bytes:
            raise RedactionFailed(RedactionFailed.OVERSIZE)
        self.counts[said.kind] += 1
        return render(self.redactor.pseudonyms.of(said.kind, said.text, self.tenant), "")


def _unused(name: str, taken: dict[str, Any]) -> str:
    """Two keys may read the same once masked; the later gets a number."""
    number, unused = 2, name
    while unused in taken:
        number, unused = number + 1, f"{name}#{number}"
    return unused
