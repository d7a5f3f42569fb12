"""Texts that are read ahead, joined, come out as they do when each is read alone."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.processors.redact import RedactionFailed, RedactionLimits, Redactor, default_rules
from gatebook.processors.redact.rules import expand, split_marks
from gatebook.processors.redact.walk import JsonWalk

REDACTOR = Redactor.default(b"a pseudonym key for tests only")
VALUED = [split_marks(expand(case))[0] for rule in default_rules() for case in rule.positive]
QUIET = [expand(case) for rule in default_rules() for case in rule.negative]
PROSE = [
    "",
    "role",
    "the token is in use",
    "call me at home",
    "f3d34930: why?",
    "naïve — yes…",
    "1 2",
]
texts = st.one_of(st.sampled_from(VALUED + QUIET + PROSE), st.text(max_size=60))


def halves(text: str, at: int) -> list[str]:
    return [text[: at % (len(text) + 1)], text[at % (len(text) + 1) :]]


def plain_way(value: Any) -> tuple[Any, dict[str, int]]:
    walk = JsonWalk(REDACTOR, "", {})
    return walk.value(value, 0), dict(walk.counts)


@pytest.mark.parametrize("text", VALUED, ids=range(len(VALUED)))
def test_a_text_that_holds_a_value_is_suspected_wherever_it_stands(text: str) -> None:
    """Each marked case of each rule, among texts that hold nothing."""
    found = REDACTOR.redact_text(text).counts
    assert found
    for place in range(len(PROSE)):
        among = [*PROSE[:place], text, *PROSE[place:]]
        assert place in REDACTOR.suspects(among)


@settings(max_examples=400, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8))
def test_what_is_not_suspected_is_clean(among: list[str]) -> None:
    """Whatever stands beside it."""
    suspects = REDACTOR.suspects(among)
    for number, text in enumerate(among):
        if number not in suspects:
            assert REDACTOR.redact_text(text).counts == {}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(texts, st.integers(0, 80)), min_size=1, max_size=4))
def test_json_comes_out_as_it_does_by_the_plain_way(drawn: list[tuple[str, int]]) -> None:
    """Texts, parts a value is split over, messages and keys: the same masks and the same counts."""
    value: dict[str, Any] = {
        "messages": [{"role": "user", "content": text} for text, _ in drawn],
        "parts": [part for text, at in drawn for part in halves(text, at)],
        "typed": [{"type": "text", "text": part} for part in halves(*drawn[0])],
        "args": {drawn[0][0]: drawn[-1][0], "password": drawn[-1][0], "n": 4111111111111111},
    }
    assert REDACTOR.redact_json(value) == plain_way(value)
    redacted, counts = REDACTOR.redact_values(value)
    each = {name: plain_way(part) for name, part in value.items()}
    assert redacted == {name: part for name, (part, _) in each.items()}
    assert sum(counts.values()) == sum(sum(found.values()) for _, found in each.values())


def test_most_prose_is_not_suspected() -> None:
    """Reading ahead spares something: but for the code, nothing of this is read twice."""
    spoken = [text for text in PROSE if text.isascii()]
    assert not REDACTOR.suspects(spoken)


def test_many_keywords_in_a_text_are_left_to_the_plain_way() -> None:
    """Reading ahead costs no more for a text of nothing else."""
    for text in ("token " * 4_000, "@" * 30_000, "1234567 x " * 900):
        assert 1 in REDACTOR.suspects(["fine", text])


@pytest.mark.parametrize("text", ["a\x00b", "4111\x001111"])
def test_a_text_that_holds_the_separator_is_read_alone(text: str) -> None:
    """Nobody can forge the seam between two texts."""
    assert set(REDACTOR.suspects(["fine", text])) == {0, 1}


def test_a_text_beyond_its_budget_fails_as_before() -> None:
    """What is too much work alone is no less work joined."""
    strict = Redactor(
        default_rules(), b"a pseudonym key for tests", "e1", RedactionLimits(work_units=3)
    )
    hostile = "token 1234567 home " * 40
    for _ in range(2):
        with pytest.raises(RedactionFailed):
            strict.redact_json({"text": hostile, "other": Random(1).choice(PROSE)})
