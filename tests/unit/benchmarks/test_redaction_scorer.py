"""The scorer of the redaction benchmark sees every error that is planted."""

from __future__ import annotations

import pytest
from tests.benchmarks.redaction import corpora, generated
from tests.benchmarks.redaction.scorer import (
    CARD,
    KINDS,
    MAIL,
    NATIONAL_ID,
    OTHER,
    PHONE,
    SECRET,
    SSN,
    Label,
    Prediction,
    Sample,
    Score,
    score,
)

TEXT = "pay with 4111 1111 1111 1111 or write to ada@example.com today"
CARD_AT = (9, 28)
MAIL_AT = (41, 56)
SAMPLE = Sample(TEXT, (Label(CARD, *CARD_AT), Label(MAIL, *MAIL_AT)), "g", "test")
RIGHT = (Prediction(CARD, *CARD_AT), Prediction(MAIL, *MAIL_AT))


def scored(*predictions: Prediction, sample: Sample = SAMPLE) -> Score:
    return score([sample], [predictions])


def test_all_found_and_nothing_else_is_perfect() -> None:
    """What is labelled and nothing else gives 1.0 everywhere."""
    perfect = scored(*RIGHT)
    assert (perfect.micro(KINDS).recall, perfect.micro(KINDS).precision) == (1.0, 1.0)
    assert (perfect.of(CARD).labelled, perfect.of(CARD).found) == (1, 1)
    assert not perfect.missed
    assert not perfect.wrong


def test_value_not_predicted_is_missed() -> None:
    """A value that nobody predicts lowers recall, not precision."""
    half = scored(RIGHT[0])
    assert half.micro(KINDS).recall == 0.5
    assert half.micro(KINDS).precision == 1.0
    assert half.missed == [(SAMPLE, SAMPLE.labels[1])]


@pytest.mark.parametrize("cut", [(1, 0), (0, 1)])
def test_one_character_left_over_is_a_miss(cut: tuple[int, int]) -> None:
    """One digit of a card that stays readable means that the card was not found."""
    start, end = CARD_AT[0] + cut[0], CARD_AT[1] - cut[1]
    assert scored(Prediction(CARD, start, end)).of(CARD).recall == 0.0


def test_separators_need_no_cover() -> None:
    """A card is found when its four groups are, for the spaces between them tell nothing."""
    groups = [Prediction(CARD, at, at + 4) for at in (9, 14, 19, 24)]
    assert scored(*groups).of(CARD).recall == 1.0


def test_punctuation_of_a_secret_needs_cover() -> None:
    """Of a password every character counts, punctuation too."""
    sample = Sample("pw: a-b!", (Label(SECRET, 4, 8),), "g", "test")
    assert scored(Prediction(SECRET, 4, 7), sample=sample).of(SECRET).recall == 0.0
    assert scored(Prediction(SECRET, 4, 8), sample=sample).of(SECRET).recall == 1.0


def test_span_elsewhere_is_wrong() -> None:
    """A predicted span where nothing is labelled lowers precision."""
    more = scored(*RIGHT, Prediction(PHONE, 0, 8))
    assert more.of(PHONE).precision == 0.0
    assert more.micro(KINDS).precision == pytest.approx(2 / 3)
    assert more.micro(KINDS).recall == 1.0


def test_other_name_for_a_value_is_found_and_wrong() -> None:
    """A card masked as a phone is not left over, and is no phone."""
    confused = scored(Prediction(PHONE, *CARD_AT))
    assert confused.of(CARD).recall == 1.0
    assert confused.of(PHONE).precision == 0.0


def test_related_names_are_right() -> None:
    """A social security number may be called a national id."""
    sample = Sample("ssn 123-45-6789", (Label(SSN, 4, 15),), "g", "test")
    assert scored(Prediction(NATIONAL_ID, 4, 15), sample=sample).of(NATIONAL_ID).precision == 1.0


def test_swallowing_the_sentence_is_wrong() -> None:
    """A span that covers everything finds all, and is no right answer."""
    sample = Sample(TEXT + " or whenever you like to", SAMPLE.labels, "g", "test")
    greedy = scored(Prediction(CARD, 0, len(sample.text)), sample=sample)
    assert greedy.micro(KINDS).recall == 1.0
    assert greedy.of(CARD).precision == 0.0


def test_undecided_labels_count_for_nobody() -> None:
    """Where the data does not tell, a prediction is neither right nor wrong."""
    undecided = Label(OTHER, 5, 15, frozenset({NATIONAL_ID}))
    sample = Sample("born 1984-03-12", (undecided,), "g", "test")
    total = scored(Prediction(NATIONAL_ID, 5, 15), Prediction(PHONE, 5, 15), sample=sample)
    assert total.of(NATIONAL_ID).predicted == 0
    assert total.of(PHONE).precision == 0.0
    assert total.of(OTHER).labelled == 0


def test_refused_text_finds_nothing() -> None:
    """A text that a contender refuses counts as missed, and is told apart."""
    refused = score([SAMPLE], ["oversize"])
    assert refused.micro(KINDS).recall == 0.0
    assert refused.failed == {"oversize": 1}


def test_no_predictions_have_no_precision() -> None:
    """Nothing predicted is not the same as all predicted wrongly."""
    assert scored().of(CARD).precision is None
    assert scored().of(PHONE).recall is None


def test_halves_share_no_group_and_never_change() -> None:
    """Texts of one form are in one half only; the two halves are all texts."""
    samples = generated.samples()
    halves = [corpora.of_half(samples, name) for name in (corpora.TUNE, corpora.REPORT)]
    groups = [{sample.group for sample in some} for some in halves]
    assert not groups[0] & groups[1]
    assert sum(map(len, halves)) == len(samples)
    assert [name for name in "abcdef" if corpora.half(name) == corpora.TUNE] == ["e", "f"]


def test_generated_labels_hold_values() -> None:
    """Both halves have every kind; each label is a piece of its text without spaces around."""
    samples = generated.samples()
    assert samples == generated.samples()
    for wanted in (corpora.TUNE, corpora.REPORT):
        some = corpora.of_half(samples, wanted)
        assert {label.kind for sample in some for label in sample.labels} == set(KINDS)
    values = [s.text[label.start : label.end] for s in samples for label in s.labels]
    assert all(value and value == value.strip() for value in values)
