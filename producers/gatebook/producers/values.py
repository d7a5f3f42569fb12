"""Values a caller controls, made safe for the event: right type, bounded, valid text.

A value that does not fit becomes "not known". It must never make the event unencodable, or a
caller could keep an access out of the log.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

NAME_MAX_CHARS = 256
_LONG_LIMIT = 1 << 63


def text(value: object, max_chars: int = NAME_MAX_CHARS) -> str:
    """A string, cut and without lone surrogates; empty for anything else."""
    if not isinstance(value, str):
        return ""
    cut = value[:max_chars]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode("utf-8")


def whole(value: object) -> int | None:
    """An integer that fits an Avro long; None for anything else, booleans too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -_LONG_LIMIT <= value < _LONG_LIMIT else None


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def texts(value: object, max_items: int = 64, max_chars: int = NAME_MAX_CHARS) -> list[str]:
    """The strings of a list; a single string is a list of one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        return []
    return [text(item, max_chars) for item in items[:max_items] if isinstance(item, str)]


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """A JSON array; empty for anything else."""
    return value if isinstance(value, list) else []


def clean(value: Any) -> Any:
    """JSON with every string valid: lone surrogates replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def parse_json(data: bytes) -> Any:
    """JSON as a lenient server may take it (NaN, lone surrogates); None where it is not JSON."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return clean(json.loads(data))
    except (ValueError, RecursionError):
        return None


def decompressed(data: bytes, encoding: str, max_bytes: int) -> bytes | None:
    """A body without its Content-Encoding, at most `max_bytes` of it; None where that is unknown
    or the data is damaged."""
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, max_bytes)
    except zlib.error:
        return None
