"""Captured content: the JSON that only intake opens, and the keyed digests that stand for it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import msgspec

from gatebook.producers.formats import AnswerFacts, RequestFacts

_SMALLEST_CUT_CHARS = 64
_MOST_GROUPS = 40
"""An account number has 34 characters at most, were each of them alone."""
_CODE_CHARS = 6
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
    """The same without the last word of each text, and what may be the rest of a value with it."""
    if isinstance(value, str):
        return _broken_off(value)
    if isinstance(value, list):
        return [_finished(item) for item in value]
    if isinstance(value, dict):
        return {k: v if k in _NAMES else _finished(v) for k, v in value.items()}
    return value


def _cut(value: Any, max_chars: int) -> Any:
    """The same structure with its long strings cut, at a space: half a word could be half a
    secret, which redaction would not know."""
    if isinstance(value, str) and len(value) > max_chars:
        return _broken_off(value[:max_chars]).rstrip()
    if isinstance(value, list):
        return [_cut(item, max_chars) for item in value]
    if isinstance(value, dict):
        return {key: _cut(item, max_chars) for key, item in value.items()}
    return value


def _broken_off(text: str) -> str:
    """A text that ends anywhere, without its last word. Where that may belong to a card, a number
    or an account written in groups, they go, too: as many as one value has, in the same line."""
    begin = text.rfind("\n") + 1
    line, word = text[begin:], ""
    if line and not line[-1].isspace():
        line, word = _split_off(line)
    if not word or _may_be_group(word):
        line = _without_groups(line)
    rest = text[:begin] + line
    return rest if rest == text else rest.rstrip()


def _split_off(line: str) -> tuple[str, str]:
    """What stands before the last word, and the word."""
    *head, word = line.rsplit(maxsplit=1) or [""]
    return (head[0] if head else ""), word


def _without_groups(line: str) -> str:
    for _ in range(_MOST_GROUPS):
        rest, word = _split_off(line)
        if not (word and _may_be_group(word)):
            break
        line = rest
    return line


def _may_be_group(word: str) -> bool:
    """Tell digits, codes such as a bank's, and what stands between groups of them."""
    letters = [character for character in word if character.isalnum()]
    return (
        not letters
        or any(map(str.isdecimal, letters))
        or (len(letters) <= _CODE_CHARS and word.isupper())
    )
