"""Captured content: the JSON that only intake opens, and the keyed digests that stand for it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import msgspec

from gatebook.producers.formats import AnswerFacts, RequestFacts

_SMALLEST_CUT_CHARS = 64
_NAMES = frozenset({"role", "name", "type", "id", "finish_reason"})  # of a message, not said by it


class LateContent:
    """Content that is composed only where the policy wants it: stands for an event's content until
    then. `compose` gives the bytes, whether something was cut, and why something is missing."""

    def __init__(self, compose: Callable[[], tuple[bytes | None, bool, str]]) -> None:
        self._compose = compose

    def compose(self, capture: dict[str, Any]) -> bytes | None:
        """The content, if there is any; what is to be said of it goes into `capture`."""
        content, is_cut, reason = self._compose()
        capture["truncated"] = bool(capture.get("truncated")) or is_cut
        capture["degraded_reason"] = capture.get("degraded_reason") or reason
        return content


def digest(key: bytes, value: bytes) -> str:
    """A keyed digest of content: the same content gives the same text, and without the key nobody
    can try guesses against it."""
    return hmac.digest(key, value, "sha256").hex()


def canonical(value: Any) -> bytes:
    """JSON bytes that do not depend on the order of keys."""
    return msgspec.json.encode(value, order="deterministic")


def pack(
    request: RequestFacts, answer: AnswerFacts, max_bytes: int, broken: bool = False
) -> tuple[bytes | None, bool]:
    """The content as JSON of at most `max_bytes`, and whether something was cut. Of an answer that
    is `broken` off, the last word goes: half a secret is one that redaction does not know.

    None where there is no content, or where it does not fit however it is cut.
    """
    fields = {
        "input_messages": request.input_messages,
        "system_instructions": request.system_instructions,
        "output_messages": _finished(answer.messages) if broken else answer.messages,
        "tools": request.tools,
        "error_text": answer.error_text,
    }
    fields = {name: value for name, value in fields.items() if value}
    if not fields:
        return None, False
    data = msgspec.json.encode(fields)
    limit = max_bytes
    while len(data) > max_bytes and limit > _SMALLEST_CUT_CHARS:
        limit //= 2
        data = msgspec.json.encode(_cut(fields, limit))
    return (data if len(data) <= max_bytes else None), limit < max_bytes or len(data) > max_bytes


def _finished(value: Any) -> Any:
    """The same without the last word of each text."""
    if isinstance(value, str):
        return value if value[-1:].isspace() else "".join(value.rsplit(maxsplit=1)[:-1])
    if isinstance(value, list):
        return [_finished(item) for item in value]
    if isinstance(value, dict):
        return {k: v if k in _NAMES else _finished(v) for k, v in value.items()}
    return value


def _cut(value: Any, max_chars: int) -> Any:
    """The same structure with its long strings cut, at a space: half a word could be half a
    secret, which redaction would not know."""
    if isinstance(value, str) and len(value) > max_chars:
        head, space, _ = value[:max_chars].rpartition(" ")
        return head if space else ""
    if isinstance(value, list):
        return [_cut(item, max_chars) for item in value]
    if isinstance(value, dict):
        return {key: _cut(item, max_chars) for key, item in value.items()}
    return value
