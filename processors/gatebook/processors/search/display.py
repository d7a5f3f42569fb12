"""Values for a terminal: what an attacker wrote is shown, never carried out."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

# Control, format (bidi marks, zero-width), surrogate, private use, unassigned, line separators.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
CUT_MARK = "…"


def safe(text: str, max_characters: int | None = None) -> str:
    """Text in which every character that could steer a terminal, or hide or turn around other
    text, stands as an escape such as \\x1b or \\u202e. Line breaks and tabs are escaped too."""
    shown = text
    if max_characters is not None and len(text) > max_characters:
        shown = text[: max_characters - 1]
    escaped = shown if shown.isascii() and shown.isprintable() else "".join(map(_escape, shown))
    return escaped + CUT_MARK if shown is not text else escaped


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _ESCAPED_CATEGORIES:
        return char
    code = ord(char)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if named:
        return named
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON in printable ASCII only: lossless for programs, harmless on a terminal."""
    return json.dumps(value, ensure_ascii=True, indent=indent).replace("\x7f", "\\u007f")


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted field; None where it is not there. Keys may hold dots themselves."""
    if path in document:
        return document[path]
    head, dot, rest = path.partition(".")
    while dot:
        inner = document.get(head)
        if isinstance(inner, Mapping):
            found = value_at(inner, rest)
            if found is not None:
                return found
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested document as dotted field to value."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def render(path: str, value: Any, max_characters: int | None = None) -> str:
    """One value as a cell: times to the millisecond, durations in ms, lists with commas."""
    if value is None:
        return ""
    if path == "event.duration" and isinstance(value, int):
        return f"{value / 1e6:.1f} ms"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return safe(", ".join(render(path, item) for item in value), max_characters)
    text = str(value)
    if path.startswith("@") and len(text) == len("2026-11-23T10:15:00.123456789Z"):
        text = text[:10] + " " + text[11:23]
    return safe(text, max_characters)
