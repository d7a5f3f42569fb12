"""One scorer for every contender: spans found against spans labelled.

A labelled value counts as found when all its sensitive characters lie in predicted spans, of
whatever kind: what matters is that nothing of it is left. Sensitive are the letters and digits of
numbers (their separators, brackets and plus signs tell nothing), and every character but spaces of
anything else.

A predicted span is right when it touches a labelled value that may be called by its kind, and at
least half of its letters and digits are sensitive; a span that swallows its sentence is wrong.
Precision is over predicted spans, recall over labelled values, micro over all of them together.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CARD, IBAN, SSN, MAIL, IP, PHONE = "card", "iban", "ssn", "mail", "ip", "phone"
MAC, NATIONAL_ID, CRYPTO, BIRTH_DATE, SECRET = (
    "mac",
    "national_id",
    "crypto",
    "birth_date",
    "secret",
)
KINDS = (CARD, IBAN, SSN, MAIL, IP, PHONE, MAC, NATIONAL_ID, CRYPTO, BIRTH_DATE, SECRET)
STRUCTURED = frozenset(KINDS) - {SECRET}
"""Kinds with a form of their own; secrets are counted apart, by gitleaks' cases."""
OTHER = "other"
"""Labelled in the data, but of no kind that is scored."""

_NUMBERS = frozenset({CARD, IBAN, SSN, IP, PHONE, MAC, NATIONAL_ID, BIRTH_DATE})
_ALSO: Mapping[str, frozenset[str]] = {
    SSN: frozenset({NATIONAL_ID}),
    NATIONAL_ID: frozenset({SSN}),
}


@dataclass(frozen=True, slots=True)
class Label:
    """A value in a text: characters `start` to `end`. `undecided`: kinds that may be predicted
    here without being counted, for the data does not tell (a date may be one of birth)."""

    kind: str
    start: int
    end: int
    undecided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sample:
    """A text and what is in it. `group` decides on its half: what is alike has the same."""

    text: str
    labels: tuple[Label, ...]
    group: str
    source: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a contender says: characters `start` to `end` are of that kind."""

    kind: str
    start: int
    end: int


@dataclass(slots=True)
class Tally:
    """Counts of one kind. Without labels there is no recall, without predictions no precision."""

    labelled: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0

    @property
    def recall(self) -> float | None:
        return self.found / self.labelled if self.labelled else None

    @property
    def precision(self) -> float | None:
        return self.right / self.predicted if self.predicted else None

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.labelled + other.labelled,
            self.found + other.found,
            self.predicted + other.predicted,
            self.right + other.right,
        )


@dataclass(slots=True)
class Score:
    """Tallies by kind; `failed` texts were refused, and count as if nothing was found in them."""

    kinds: dict[str, Tally] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[Sample, Label]] = field(default_factory=list)
    wrong: list[tuple[Sample, Prediction]] = field(default_factory=list)

    def of(self, kind: str) -> Tally:
        return self.kinds.get(kind, Tally())

    def micro(self, kinds: Iterable[str]) -> Tally:
        return sum((self.of(kind) for kind in kinds), Tally())


def sensitive_characters(text: str, label: Label) -> set[int]:
    """Positions that must be covered. Format characters (zero-width ones) are never among them."""
    wanted = str.isalnum if label.kind in _NUMBERS else _is_told
    return {at for at in range(label.start, label.end) if wanted(text[at])}


def _is_told(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) != "Cf"


def score(samples: Sequence[Sample], answers: Sequence[Sequence[Prediction] | str]) -> Score:
    """Compare what was predicted for each text; a string says why a text was refused."""
    total = Score()
    for sample, answer in zip(samples, answers, strict=True):
        if isinstance(answer, str):
            total.failed[answer] += 1
            answer = ()
        _score_text(sample, answer, total)
    return total


def _score_text(sample: Sample, predictions: Sequence[Prediction], total: Score) -> None:
    covered = {at for p in predictions for at in range(p.start, p.end)}
    for label in sample.labels:
        if label.kind == OTHER:
            continue
        tally = total.kinds.setdefault(label.kind, Tally())
        tally.labelled += 1
        if sensitive_characters(sample.text, label) <= covered:
            tally.found += 1
        else:
            total.missed.append((sample, label))
    for prediction in _counted(sample, predictions):
        tally = total.kinds.setdefault(prediction.kind, Tally())
        tally.predicted += 1
        if _is_right(sample, prediction):
            tally.right += 1
        else:
            total.wrong.append((sample, prediction))


def _counted(sample: Sample, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    for prediction in predictions:
        touched = [label for label in sample.labels if _touch(label, prediction)]
        if not any(prediction.kind in label.undecided for label in touched):
            yield prediction


def _touch(label: Label, prediction: Prediction) -> bool:
    return label.start < prediction.end and prediction.start < label.end


def _is_right(sample: Sample, prediction: Prediction) -> bool:
    touched = [label for label in sample.labels if _touch(label, prediction)]
    if not any(_may_be_called(label.kind, prediction.kind) for label in touched):
        return False
    told = {at for label in touched for at in sensitive_characters(sample.text, label)}
    span = [at for at in range(prediction.start, prediction.end) if sample.text[at].isalnum()]
    return 2 * sum(at in told for at in span) >= len(span)


def _may_be_called(labelled: str, predicted: str) -> bool:
    return predicted == labelled or predicted in _ALSO.get(labelled, frozenset())
