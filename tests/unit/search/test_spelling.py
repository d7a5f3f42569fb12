"""Patterns spelled out as values: the same values that a regular expression would find."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.spelling import _patterns, matching

TEXTS = st.text(st.sampled_from("aAbB\\*?. ü\n\u212a"), max_size=12)
PIECES = st.lists(TEXTS.filter(str.isascii), min_size=1, max_size=5)


@given(PIECES, st.lists(TEXTS, max_size=8), st.booleans())
def test_the_values_are_those_that_a_regular_expression_finds(
    pieces: list[str], values: list[str], ignores_case: bool
) -> None:
    """Stars stand for anything, all else for itself; only ASCII letters may differ in case."""
    pattern = "*".join(re.sub(r"([\\*?])", r"\\\1", piece) for piece in pieces)
    flags = re.DOTALL | re.ASCII | (re.IGNORECASE if ignores_case else re.DOTALL)
    wanted = re.compile(".*".join(re.escape(piece) for piece in pieces), flags)
    found = matching(pattern, values, ignores_case)
    assert found == [value for value in values if wanted.fullmatch(value)]


def test_a_pattern_of_many_stars_takes_no_time_to_speak_of() -> None:
    """It is matched in the service, where others wait meanwhile."""
    values = [f"{'a' * 1_000}b"] * 100
    began = time.monotonic()
    assert matching("*a" * 120 + "*c", values, ignores_case=True) == []
    assert matching("*a" * 120 + "*", values, ignores_case=True) == values
    assert time.monotonic() - began < 2


def test_only_patterns_on_sentences_in_plain_letters_are_spelled_out() -> None:
    """Words in other letters stay with the server, and so do patterns on other fields."""
    fields = fields_of("access")
    words = compile_query("refused", fields)
    assert {name for name, _ in _patterns(words)} == {"error.message", "event.reason"}
    for query in ("zurückgewiesen", "user.id:*oe*", "error.message:plain", "not url.path:*a"):
        assert not list(_patterns(compile_query(query, fields)))
    assert list(_patterns(compile_query("not error.message:*a* or user.id:b", fields)))
