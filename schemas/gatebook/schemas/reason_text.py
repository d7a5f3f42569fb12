"""Whether a person said why: one notion of it for the command line, the API and break-glass."""

from __future__ import annotations

import unicodedata

EMPTY = "it is empty: say why"
STEERING = "it holds control characters, or such as turn text around: write it without them"

# Letters and marks that show as nothing: fillers of Korean, the empty pattern of braille.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Letters, digits, punctuation and symbols; marks and spaces alone show nothing.
_VISIBLE_CLASSES = frozenset("LNPS")
_LINES = frozenset("\t\n\r")
# Bidi embeddings, overrides and isolates: what comes after reads in another order.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_stated(text: str) -> bool:
    """Whether anything is left of a reason that can be seen."""
    return any(unicodedata.category(c)[0] in _VISIBLE_CLASSES and c not in _BLANK for c in text)


def wrong_reason(text: str) -> str:
    """What is wrong with a reason, as a person is told; empty for one that will do."""
    if not is_stated(text):
        return EMPTY
    return STEERING if any(_is_steering(c) for c in text) else ""


def _is_steering(char: str) -> bool:
    return char in _TURNING or (unicodedata.category(char) == "Cc" and char not in _LINES)
