"""Gatebook's redactor with its packaged rules. What is timed is all it does: find and mask."""

from __future__ import annotations

import re

from serve import Refused, Spans, serve

from gatebook.processors.redact import RedactionFailed, Redactor

MASK = re.compile(
    r"\[([A-Z][A-Z0-9_]*)_[a-z0-9]{1,12}_[A-Z2-7]{16}(?::(?:@[a-z0-9.-]{1,64}|\*[0-9]{4}))?\]"
)
REDACTOR = Redactor.default(b"benchmark-key-0123456789")


def redact(text: str) -> str:
    try:
        return REDACTOR.redact_text(text).text
    except RedactionFailed as failure:
        raise Refused(failure.reason) from None


def find(text: str) -> Spans:
    """The spans that masks stand for: what lies between masks is the text's own."""
    redacted = redact(text)
    masks = list(MASK.finditer(redacted))
    if not masks:
        assert redacted == text, "what is not masked is unchanged"
        return []
    edges = [0, *(edge for mask in masks for edge in mask.span()), len(redacted)]
    kept = [redacted[edges[n] : edges[n + 1]] for n in range(0, len(edges), 2)]
    aligned = re.fullmatch("(.+?)".join(map(re.escape, kept)), text, re.DOTALL)
    assert aligned, "what is not masked is unchanged"
    return [(mask[1].lower(), *aligned.span(n + 1)) for n, mask in enumerate(masks)]


if __name__ == "__main__":
    serve(find, redact)
