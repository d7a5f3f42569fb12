"""Content signals: names of patterns seen in what was asked and answered; never the text.

Only intake sees content. Detectors that need to know of it (prompt injection, refusals, ...) read
the names intake wrote to gatebook.content.signals. The patterns are data: signals.toml.
"""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec
import re2

Where = Literal["input", "output", "any"]
INPUT_FIELDS = ("input_messages", "system_instructions", "tools")
OUTPUT_FIELDS = ("output_messages", "error_text")
FIELDS = INPUT_FIELDS + OUTPUT_FIELDS
MAX_DEPTH = 32


class Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One named pattern, as it stands in signals.toml."""

    where: Where
    doc: str
    patterns: tuple[str, ...]
    fires: tuple[str, ...]
    quiet: tuple[str, ...]


@cache
def all_signals() -> Mapping[str, Signal]:
    """The packaged signals by name. A mistake in the file raises msgspec.ValidationError."""
    text = (files(__package__) / "signals.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Signal])


class _Matcher:
    """All patterns of one side in one linear pass."""

    def __init__(self, wanted: Sequence[Where]) -> None:
        options = re2.Options()
        options.case_sensitive = False
        self._names: list[str] = []
        self._set = re2.Set.SearchSet(options)
        for name, signal in all_signals().items():
            if signal.where in wanted:
                for pattern in signal.patterns:
                    self._set.Add(_spaced(pattern))
                    self._names.append(name)
        self._set.Compile()

    def names(self, text: str) -> set[str]:
        hits: list[int] = self._set.Match(text) or []  # None where nothing is found
        return {self._names[hit] for hit in hits}


def _spaced(pattern: str) -> str:
    """A blank stands for any run of whitespace, an optional one for any or none."""
    return pattern.replace(" ?", r"\s*").replace(" ", r"\s+")


@cache
def _matcher(side: Literal["input", "output", "either"]) -> _Matcher:
    return _Matcher(("input", "output", "any") if side == "either" else (side, "any"))


def signals_of(content: Mapping[str, Any]) -> list[str]:
    """Names of the signals in opened content, sorted. An empty list means: no known pattern, not
    that the content is harmless.

    `content` is the JSON object of a captured event: {input_messages, system_instructions,
    output_messages, tools, error_text}.
    """
    if not _matcher("either").names(_text(content, FIELDS)):
        return []  # nearly always: read once, and not once for each side
    found = _matcher("input").names(_text(content, INPUT_FIELDS))
    found |= _matcher("output").names(_text(content, OUTPUT_FIELDS))
    return sorted(found)


def suspected(contents: Sequence[Sequence[str]]) -> set[int]:
    """Numbers of the contents in which there may be a signal; each is given as its texts, in the
    order of FIELDS. Of the others `signals_of` says that there is none.

    All are read as one text; only where something is in it, its halves are, and so on.
    """
    texts = [_readable("\n".join(texts)) for texts in contents]
    return set(_search(texts, 0, len(texts)))


def _search(texts: Sequence[str], first: int, end: int) -> list[int]:
    if first == end or not _matcher("either").names("\n".join(texts[first:end])):
        return []
    if end - first == 1:
        return [first]
    middle = (first + end) // 2
    return _search(texts, first, middle) + _search(texts, middle, end)


def _text(content: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The texts of these fields, one below the other, as a reader would take them."""
    texts: list[str] = []
    for name in fields:
        _gather(content.get(name), 0, texts)
    return _readable("\n".join(texts))


def _readable(text: str) -> str:
    """Without invisible characters, with full-width letters as plain ones."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", text)
    unseen = [c for c in set(plain) if unicodedata.category(c) in ("Cf", "Cs")]
    return plain.translate(dict.fromkeys(map(ord, unseen))) if unseen else plain


def _gather(value: Any, depth: int, texts: list[str]) -> None:
    """Every text within a JSON value; what is nested deeper than anybody writes is left out."""
    kind = type(value)
    if kind is str:
        texts.append(value)
    elif depth < MAX_DEPTH and (kind is list or kind is dict):
        for item in value if kind is list else value.values():
            _gather(item, depth + 1, texts)
