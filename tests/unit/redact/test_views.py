"""What is read without escapes maps back to the bytes it was read from."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.processors.redact.budget import Budget
from gatebook.processors.redact.views import folded

PIECES = st.sampled_from(
    [
        "a",
        " ",
        '"',
        "\\n",
        "\\u0041",
        "é",
        "\uff0c",
        "\u200b",
        "%41",
        "x" * 30,
        "b " * 150,
        "y" * 700,
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_every_byte_of_a_view_maps_to_its_source(text: str) -> None:
    """Every edit is in the view, and what was not edited reads as it did."""
    raw = text.encode("utf-8")
    reading = folded(text, raw, Budget(10**9))
    if reading is None:
        assert "%41" not in text
        return
    view, edits = reading
    sources = [view.to_raw(at, at + 1) for at in range(len(view.data))]
    assert sources == sorted(sources)
    edited = {(start, end) for start, end, _ in edits}
    for at, (start, end) in enumerate(sources):
        byte = view.data[at : at + 1]
        assert (start, end) in edited or raw[start:end] == byte or byte in b"\n\x00"
    assert {span for span in edited if raw[span[0] : span[1]] == b"%41"} <= set(sources)
