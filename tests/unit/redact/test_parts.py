"""A value split over chunks is found; re-identification sees what was masked."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.processors.redact import RedactionFailed, Redactor

KEY = b"a pseudonym key for tests only"
REDACTOR = Redactor.default(KEY)
TEXT = "Pay 4111 1111 1111 1111, mail ada@example.com, password=hunter2hunter and go."
SECRETS = ("4111 1111 1111 1111", "ada@", "hunter2hunter")


def chunks(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted({cut % len(text) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=40))
def test_a_value_split_anywhere_is_masked_once_and_nothing_of_it_is_left(cuts: list[int]) -> None:
    """The chunks read together are what the whole text would have become."""
    parts, counts = REDACTOR.redact_parts(chunks(TEXT, cuts))
    whole = REDACTOR.redact_text(TEXT)
    assert "".join(parts) == whole.text
    assert counts == whole.counts == {"card": 1, "email": 1, "password": 1}


def test_there_are_as_many_parts_as_before() -> None:
    """A part that lost all its text to a mask is empty, not gone."""
    parts, _ = REDACTOR.redact_parts(["x 4111 1111", " 1111 ", "1111 y", ""])
    assert len(parts) == 4
    assert parts[1] == parts[3] == ""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda piece: piece,
        lambda piece: {"type": "text", "text": piece},
        lambda piece: {"type": "text", "content": piece},
    ],
)
def test_parts_of_a_message_are_read_together_in_json(wrap: object) -> None:
    """Chunks kept as a list of texts or of text parts hide nothing at their seams."""
    pieces = chunks(TEXT, list(range(0, 200, 7)))
    value = {"output": [wrap(piece) for piece in pieces]}  # type: ignore[operator]  # a lambda
    redacted, counts = REDACTOR.redact_json(value)
    joined = "".join(
        part if isinstance(part, str) else part.get("text", part.get("content"))
        for part in redacted["output"]  # type: ignore[index,call-overload]  # as it went in
    )
    assert not [secret for secret in SECRETS if secret in joined]
    assert counts == {"card": 1, "email": 1, "password": 1}
    assert "4111" not in json.dumps(redacted)


def test_what_is_found_says_value_place_and_the_pseudonym_that_masks_it() -> None:
    """For privileged re-identification: the pseudonyms a text gets, with their values."""
    text = "für ada@example.com und ADA@example.com"
    found = REDACTOR.find(text, tenant="acme")
    assert [(f.kind, f.value, text[f.start : f.end]) for f in found] == [
        ("email", "ada@example.com", "ada@example.com"),
        ("email", "ADA@example.com", "ADA@example.com"),
    ]
    assert found[0].pseudonym == found[1].pseudonym
    assert f"[{found[0].pseudonym}:@example.com]" in REDACTOR.redact_text(text, tenant="acme").text
    assert "ada" not in repr(found[0]).lower()


def test_find_fails_as_redaction_does() -> None:
    """What cannot be read is not said to hold nothing."""
    with pytest.raises(RedactionFailed, match="oversize"):
        REDACTOR.find("x" * (REDACTOR.limits.text_bytes + 1))
