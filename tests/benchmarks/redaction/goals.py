"""The goals, each with what was measured and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.redaction import scorer
from tests.benchmarks.redaction.scorer import Score, Tally

STRICT = (scorer.CARD, scorer.IBAN, scorer.SSN, scorer.MAIL, scorer.IP)


@dataclass(frozen=True)
class Goal:
    """`met` compares what was measured, never what is shown rounded; None: not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None


def quality(corpus: str, score: Score) -> Iterator[Goal]:
    """Kinds with a form: both recall and precision count, so the lower of the two is shown."""
    yield _both(f"structured kinds, micro ({corpus})", 0.97, score.micro(scorer.STRUCTURED))
    for kind in STRICT:
        yield _both(f"{kind} ({corpus})", 0.99, score.of(kind))
    yield _both(f"phone ({corpus})", 0.88, score.of(scorer.PHONE))


def _both(what: str, wanted: float, tally: Tally) -> Goal:
    recall, precision = tally.recall or 0.0, tally.precision or 0.0
    measured = f"recall {recall:.3f}, precision {precision:.3f}"
    return Goal(what, f">= {wanted}", measured, min(recall, precision) >= wanted)


_POSITIVES = ("gitleaks' positives", ">= 99 %")
_NEGATIVES = ("gitleaks' negatives", "<= 1 %")


def gitleaks(found: int, positives: int, flagged: int, negatives: int) -> Iterator[Goal]:
    """Shares of its own cases."""
    share = found / positives
    yield Goal(*_POSITIVES, f"{share:.2%} of {positives:,}", share >= 0.99)
    share = flagged / negatives
    yield Goal(*_NEGATIVES, f"{share:.2%} of {negatives:,}", share <= 0.01)


def gitleaks_absent() -> Iterator[Goal]:
    """The same two when the cases could not be had."""
    for goal in (_POSITIVES, _NEGATIVES):
        yield Goal(*goal, "-", None)


def speed(
    ours: Mapping[str, float], sequential: Mapping[str, float], hostile_ms: Mapping[str, float]
) -> Iterator[Goal]:
    """`ours` and `sequential`: MB/s per core by kind of text; `hostile_ms`: by shape."""
    for text, megabytes in ours.items():
        yield Goal(f"{text}, one core", ">= 10 MB/s", f"{megabytes:.1f} MB/s", megabytes >= 10)
    for text, megabytes in ours.items():
        ratio = megabytes / sequential[text]
        yield Goal(f"{text} against sequential re", ">= 20x", f"{ratio:.1f}x", ratio >= 20)
    worst = max(hostile_ms, key=lambda name: hostile_ms[name])
    measured = f"{hostile_ms[worst]:.0f} ms at worst ({worst})"
    yield Goal("1 MB of hostile bytes", "<= 100 ms", measured, hostile_ms[worst] <= 100)


def lines(goals: Sequence[Goal]) -> Iterator[str]:
    """One line each."""
    verdicts = {True: "met", False: "NOT met", None: "not measured"}
    for goal in goals:
        verdict = verdicts[goal.met]
        yield f"  {goal.what:<44} {goal.wanted:>10}   {goal.measured:<40} {verdict}"
