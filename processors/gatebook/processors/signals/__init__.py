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
    if not _matcher("either").names(_text(content, INPUT_FIELDS + OUTPUT_FIELDS)):
        return []  # nearly always: read once, and not once for each side
    found = _matcher("input").names(_text(content, INPUT_FIELDS))
    found |= _matcher("output").names(_text(content, OUTPUT_FIELDS))
    return sorted(found)


def _text(content: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The texts of these fields, one below the other, as a reader would take them: without
    invisible characters, with full-width letters as plain ones."""
    texts: list[str] = []
    for name in fields:
        _gather(content.get(name), 0, texts)
    joined = "\n".join(texts)
    if joined.isascii():
        return joined
    plain = unicodedata.normalize("NFKC", joined)
    return "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Cs"))


def _gather(value: Any, depth: int, texts: list[str]) -> None:
    """Every text within a JSON value; what is nested deeper than anybody writes is left out."""
    kind = type(value)
    if kind is str:
        texts.append(value)
    elif depth < MAX_DEPTH and (kind is list or kind is dict):
        for item in value if kind is list else value.values():
            _gather(item, depth + 1, texts)
