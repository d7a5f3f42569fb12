"""`make bench-redaction`: our redactor beside others, one scorer, the same texts.

    python -m tests.benchmarks.redaction [--data DIR] [--half report|tune|both] [--only NAME]...
                                         [--skip-speed] [--show N] [--json FILE]

By default only the half that no rule was tuned on is scored. `--data DIR` adds presidio-research's
sentences from that folder. gitleaks' cases are fetched from the Go module proxy (GOPROXY), once;
without them that part is left out and its goals are not measured. presidio-analyzer and
datafog run in environments of their own, made once below the cache folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.benchmarks.redaction import corpora, generated, gitleaks, goals, scorer, speed
from tests.benchmarks.redaction.contender import CONTENDERS, GATEBOOK, SEQUENTIAL, Running, running
from tests.benchmarks.redaction.goals import Goal
from tests.benchmarks.redaction.scorer import Sample, Score
from tests.benchmarks.report import machine

ROUNDS = 3
Scores = dict[str, Score]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.redaction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--data", type=Path, metavar="DIR", help=corpora.PRESIDIO_PLACE)
    parser.add_argument("--half", choices=("report", "tune", "both"), default="report")
    parser.add_argument("--only", action="append", choices=names, help="may be given again")
    parser.add_argument("--skip-speed", action="store_true", help="quality only")
    parser.add_argument("--skip-quality", action="store_true", help="speed only")
    parser.add_argument(
        "--show", type=int, default=0, metavar="N", help="our first N misses a kind; tune half only"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; the exit code."""
    given = arguments()
    if given.show and given.half != corpora.TUNE:
        print("--show is for --half tune: what is reported on is not looked at", file=sys.stderr)
        return 2
    about = machine("none")
    chosen = [c for c in CONTENDERS if not given.only or c.name in given.only]
    out: dict[str, Any] = {"half": given.half}
    reached: list[Goal] = []
    print("\n".join(f"{key}: {value}" for key, value in about.items() if key != "engine"))
    print(f"half: {_half_said(given.half)}\n")
    with running(chosen) as contenders:
        if not given.skip_quality:
            reached += _quality(contenders, given, out)
        if not given.skip_speed:
            reached += _speed(contenders, out)
    if reached:
        print("goals (gatebook)")
        print("\n".join(goals.lines(reached)))
    if given.json:
        report = {"about": about, "goals": reached, **out}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 0


def _half_said(half: str) -> str:
    return {
        "report": "report, the half that no rule was tuned on (--half tune is for tuning)",
        "tune": "tune, for tuning rules; not to be published",
        "both": "both; not to be published, rules were tuned on one of them",
    }[half]


# ---- quality -----------------------------------------------------------------------------------


def _quality(
    contenders: Sequence[Running], given: argparse.Namespace, out: dict[str, Any]
) -> Iterator[Goal]:
    for name, samples in _corpora(given):
        scores = _scores(contenders, samples)
        print(f"{name}: {len(samples):,} texts\n")
        print("\n".join(_quality_table(contenders, scores)) + "\n")
        out[name] = {who: _figures(score) for who, score in scores.items()}
        if GATEBOOK.name in scores:
            yield from goals.quality(name, scores[GATEBOOK.name])
            _show(scores[GATEBOOK.name], given.show)
    yield from _gitleaks(contenders, given, out)


def _corpora(given: argparse.Namespace) -> Iterator[tuple[str, list[Sample]]]:
    yield "generated", _half(generated.samples(), given.half)
    if given.data:
        yield "presidio-research", _half(corpora.presidio(given.data), given.half)


def _half(samples: list[Sample], half: str) -> list[Sample]:
    return samples if half == "both" else corpora.of_half(samples, half)


def _scores(contenders: Sequence[Running], samples: Sequence[Sample]) -> Scores:
    texts = [sample.text for sample in samples]
    found: Scores = {}
    for one in contenders:
        began = time.monotonic()
        found[one.contender.name] = scorer.score(samples, list(one.find(texts)))
        print(f"{one.contender.name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return found


def _quality_table(contenders: Sequence[Running], scores: Scores) -> Iterator[str]:
    yield f"{'recall / precision':<24}{'labelled':>9}" + "".join(f"{name:>22}" for name in scores)
    some = next(iter(scores.values()))
    for kind in scorer.KINDS:
        cells = (_cell(score, [kind]) for score in scores.values())
        yield f"{kind:<24}{some.of(kind).labelled:>9,}" + "".join(cells)
    for name, kinds in (("structured, micro", scorer.STRUCTURED), ("all, micro", scorer.KINDS)):
        cells = (_cell(score, kinds) for score in scores.values())
        yield f"{name:<24}{some.micro(kinds).labelled:>9,}" + "".join(cells)
    own = (_cell(scores[one.contender.name], one.contender.offers) for one in contenders)
    yield f"{'kinds it offers, micro':<33}" + "".join(own)
    refused = (f"{sum(score.failed.values()):>22,}" for score in scores.values())
    yield f"{'texts refused':<33}" + "".join(refused)


def _cell(score: Score, kinds: Any) -> str:
    tally = score.micro(kinds)
    recall = "-" if tally.recall is None else f"{tally.recall:.3f}"
    precision = "-" if tally.precision is None else f"{tally.precision:.3f}"
    return f"{recall:>14} / {precision:<5}"


def _figures(score: Score) -> dict[str, Any]:
    tallies = {kind: score.of(kind) for kind in scorer.KINDS}
    tallies["structured"] = score.micro(scorer.STRUCTURED)
    return {kind: msgspec.structs.asdict(_Figures.of(tally)) for kind, tally in tallies.items()}


class _Figures(msgspec.Struct, frozen=True):
    labelled: int
    found: int
    predicted: int
    right: int

    @classmethod
    def of(cls, tally: scorer.Tally) -> _Figures:
        return cls(tally.labelled, tally.found, tally.predicted, tally.right)


def _show(score: Score, count: int) -> None:
    if not count:
        return
    for reason, texts in score.failed.items():
        print(f"refused, {reason}: {texts}")
    for kind in scorer.KINDS:
        missed = [(s.text, s.text[x.start : x.end]) for s, x in score.missed if x.kind == kind]
        wrong = [(s.text, s.text[x.start : x.end]) for s, x in score.wrong if x.kind == kind]
        for what, cases in (("missed", missed), ("wrong", wrong)):
            for text, value in cases[:: max(1, len(cases) // count)][:count]:
                print(f"{what} {kind}: {value!r} in {text[:160]!r}")
    print()


def _gitleaks(
    contenders: Sequence[Running], given: argparse.Namespace, out: dict[str, Any]
) -> Iterator[Goal]:
    try:
        positives = _half(corpora.gitleaks_positives(), given.half)
    except gitleaks.Unavailable as error:
        print(f"gitleaks' cases: left out, {error}\n")
        out["gitleaks"] = None
        yield from goals.gitleaks_absent()
        return
    negatives = {
        "negatives": _half(corpora.gitleaks_negatives(alone=True), given.half),
        "all": _half(corpora.gitleaks_negatives(alone=False), given.half),
    }
    found = _scores(contenders, positives)
    flagged = {name: _scores(contenders, samples) for name, samples in negatives.items()}
    print(f"gitleaks' cases: {len(positives):,} positives scored ({gitleaks.coverage()})\n")
    print("\n".join(_gitleaks_table(found, flagged, negatives)) + "\n")
    if GATEBOOK.name in found:
        tally = found[GATEBOOK.name].of(scorer.SECRET)
        wrong = _flagged(flagged["negatives"][GATEBOOK.name])
        out["gitleaks"] = {"found": tally.found, "positives": tally.labelled}
        out["gitleaks"] |= {"flagged": wrong, "negatives": len(negatives["negatives"])}
        out["gitleaks"]["flagged_plain"] = _flagged_plain(flagged["negatives"][GATEBOOK.name])
        yield from goals.gitleaks(tally.found, tally.labelled, wrong, len(negatives["negatives"]))
        _show(found[GATEBOOK.name], given.show)
        _show(flagged["negatives"][GATEBOOK.name], given.show)


def _gitleaks_table(
    found: Scores, flagged: dict[str, Scores], negatives: dict[str, list[Sample]]
) -> Iterator[str]:
    yield f"{'':<52}{'cases':>6}" + "".join(f"{name:>20}" for name in found)
    tallies = [score.of(scorer.SECRET) for score in found.values()]
    cells = "".join(f"{tally.found / tally.labelled:>20.2%}" for tally in tallies)
    yield f"{'positives: secret wholly covered':<52}{tallies[0].labelled:>6,}{cells}"
    for name, what in (
        ("all", "all negatives, masked"),
        ("negatives", "negatives that no rule of gitleaks fires on, masked"),
    ):
        shares = [_flagged(s) / len(negatives[name]) for s in flagged[name].values()]
        cells = "".join(f"{share:>20.2%}" for share in shares)
        yield f"{what:<52}{len(negatives[name]):>6,}{cells}"
    told = [_flagged_plain(s) / len(negatives["negatives"]) for s in flagged["negatives"].values()]
    cells = "".join(f"{share:>20.2%}" for share in told)
    yield f"{'of the former, no random value in what is masked':<52}{'':>6}{cells}"


RANDOM_BITS = 3.0
"""Entropy per character that most of gitleaks' own rules ask of a secret."""


def _flagged_plain(score: Score) -> int:
    """Those of `_flagged` where nothing that was masked has the entropy of a random value."""
    found: dict[str, float] = {}
    for sample, wrong in score.wrong:
        if wrong.kind == scorer.SECRET:
            bits = gitleaks.entropy(sample.text[wrong.start : wrong.end])
            found[sample.text] = max(bits, found.get(sample.text, 0.0))
    return sum(bits < RANDOM_BITS for bits in found.values())


def _flagged(score: Score) -> int:
    """Texts in which a credential was predicted: gitleaks' negatives may hold other kinds."""
    return len({sample.text for sample, wrong in score.wrong if wrong.kind == scorer.SECRET})


# ---- speed -------------------------------------------------------------------------------------


def _speed(contenders: Sequence[Running], out: dict[str, Any]) -> list[Goal]:
    texts = {
        "plain chat": speed.plain_chat(),
        "chat, 4 values a KB": speed.chat_with_values(),
        "dense, 14 values a KB": speed.dense_values(),
    }
    timings = {name: speed.throughput(contenders, some, ROUNDS) for name, some in texts.items()}
    print("MB/s per core, texts of 1 KB\n")
    print("\n".join(_speed_table(timings)) + "\n")
    hostile = {one.contender.name: speed.hostile_times(one, speed.hostile()) for one in contenders}
    print(f"CPU ms for 1 MB of hostile bytes, in pieces of {speed.PIECE_BYTES:,}\n")
    print("\n".join(_hostile_table(hostile)) + "\n")
    medians = {
        text: {name: speed.median_speed(rounds) for name, rounds in of_all.items()}
        for text, of_all in timings.items()
    }
    out["speed"] = {"megabytes_per_second": medians, "hostile": hostile}
    if not {GATEBOOK.name, SEQUENTIAL.name} <= set(hostile):
        return []
    ours, sequential = (
        {text: of_all[who] for text, of_all in medians.items()}
        for who in (GATEBOOK.name, SEQUENTIAL.name)
    )
    worst = {shape: time.milliseconds for shape, time in hostile[GATEBOOK.name].items()}
    limit = speed.HOSTILE_LIMIT_SECONDS * 1000
    return list(goals.speed(ours, sequential, {k: v or limit for k, v in worst.items()}))


def _speed_table(timings: dict[str, Any]) -> Iterator[str]:
    names = list(next(iter(timings.values())))
    yield f"{'':<24}" + "".join(f"{name:>22}" for name in names)
    for text, of_all in timings.items():
        cells = (f"{speed.median_speed(of_all[name]):>22.2f}" for name in names)
        yield f"{text:<24}" + "".join(cells)
        refused = [of_all[name][0] for name in names]
        if any(timing.refused for timing in refused):
            cells = (f"{timing.refused:>15,} of {timing.texts:>3}" for timing in refused)
            yield f"{'  texts refused':<24}" + "".join(cells)


def _hostile_table(hostile: dict[str, dict[str, speed.Hostile]]) -> Iterator[str]:
    yield f"{'':<24}" + "".join(f"{name:>22}" for name in hostile)
    for shape in next(iter(hostile.values())):
        yield f"{shape:<24}" + "".join(_hostile_cell(times[shape]) for times in hostile.values())
    yield "(refused: so many of the pieces were given back unread, to be dropped by the caller)"


def _hostile_cell(time: speed.Hostile) -> str:
    if time.milliseconds is None:
        return f"{'> ' + format(speed.HOSTILE_LIMIT_SECONDS * 1000, ',.0f'):>22}"
    refused = f"{time.refused} refused " if time.refused else ""
    return f"{refused + format(time.milliseconds, ',.0f'):>22}"


if __name__ == "__main__":
    sys.exit(main())
