"""Whether a person said why: what cannot be seen says nothing, in any script."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gatebook.processors.serve.models import RevealRequest
from gatebook.schemas.reason_text import EMPTY, STEERING, is_stated, wrong_reason


@pytest.mark.parametrize(
    "text",
    ["", "   ", "\t\r\n", "\u200b" * 3, "\u00a0\u3000\u2028", "\u0301\ufe0f\u200d", "\u3164\u2800"],
)
def test_what_cannot_be_seen_is_no_reason(text: str) -> None:
    """Spaces of all kinds, zero-width characters, marks without a letter, and fillers."""
    assert not is_stated(text)
    assert wrong_reason(text) == EMPTY


@pytest.mark.parametrize("text", ["\u202e\x1b[31m\r\nx: y", "case 7\x00", "a\u2066b", "\x7fwhy"])
def test_a_reason_that_steers_its_reader_is_refused(text: str) -> None:
    """An escape of a terminal, or text that is read in another order than it was written."""
    assert is_stated(text)
    assert wrong_reason(text) == STEERING


@pytest.mark.parametrize(
    "text",
    [
        "ticket 4711",
        "Fall 7: Rückfrage\nvom Betriebsrat",
        "案件 12",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "7",
        "👩\u200d💻",
    ],
)
def test_people_say_why_in_their_own_words(text: str) -> None:
    """Of any script, over several lines, with the joiners that some scripts need."""
    assert wrong_reason(text) == ""


@pytest.mark.parametrize("text", ["   ", "\u200b\u200b\u200b", "\u202e\x1b[31m\r\nx: y"])
def test_the_api_opens_nothing_for_such_a_reason(text: str) -> None:
    """A request for content that does not say why is refused, in the words of the command line."""
    with pytest.raises(ValidationError) as refused:
        RevealRequest(layer="redacted", reason=text)
    assert refused.value.errors()[0]["msg"] == wrong_reason(text)
    assert RevealRequest(layer="redacted", reason="ticket 4711").reason == "ticket 4711"
