"""The univariate scorer on the Numenta Anomaly Benchmark, standard profile, published scoring.

Beside it: the plain threshold of `kind = "baseline"` as rate rules use it, and NAB's own windowed
Gaussian, whose published score shows that the scoring here is NAB's. Parameters were found on every
other series; the half that was not looked at is told apart. As everywhere in NAB, the threshold is
the best one for the corpus; the score at the scorer's own alarm level is told, too.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from math import erfc, sqrt
from pathlib import Path
from typing import Any

import numpy
from tests.benchmarks.detection.nab_scoring import Series, at, optimised
from tests.benchmarks.detection.nab_series import PLACE, from_folder, generated, halves
from tests.benchmarks.redaction.goals import Goal

from gatebook.processors.detect.baselines import Usual, decay_of
from gatebook.processors.detect.univariate import ALARM, Univariate, UnivariateParameters

Scores = dict[str, list[float]]
SKYLINE, CONTEXT_OSE = 58.2, 69.9
PUBLISHED_GAUSSIAN = 39.65
GAUSSIAN_POINTS, GAUSSIAN_STEP = 6400, 100
REST_SHARE = 0.3  # of the points for learning
HALF_LIFE_POINTS = 240
OURS, BASELINE, GAUSSIAN = "univariate", "kind baseline", "windowed Gaussian"


def run(data: Path | None, quick: bool) -> tuple[list[str], list[Goal], dict[str, Any]]:
    """Table, goals and figures."""
    corpus = from_folder(data) if data else generated()
    corpus = corpus[::6] if quick and data else corpus
    begun = time.thread_time()
    ours = {series.name: univariate(series) for series in corpus}
    microseconds = (time.thread_time() - begun) / sum(len(s.values) for s in corpus) * 1e6
    contenders = {
        OURS: ours,
        BASELINE: {series.name: baseline(series) for series in corpus},
        GAUSSIAN: {series.name: gaussian(series) for series in corpus},
    }
    figures = _figures(corpus, contenders)
    whole = bool(data) and not quick
    lines = [*_table(corpus, figures, data, quick), f"{OURS}: {microseconds:.1f} us a point", ""]
    if data and (data / "results").is_dir():
        lines += [*published(data, from_folder(data)), ""]
    goals = list(_goals(figures)) if whole else []
    return lines, goals, {"figures": figures, "corpus": "NAB" if data else "generated"}


def univariate(series: Series) -> list[float]:
    """Our scorer; its rest is as long as a share of what a series gives to learn from."""
    limits = UnivariateParameters(rest_points=int(REST_SHARE * series.probation))
    state = Univariate()
    points = zip(series.seconds, series.values, strict=True)
    return [state.score(seconds, value, limits) for seconds, value in points]


def baseline(series: Series) -> list[float]:
    """What `kind = "baseline"` holds a figure against, without its floor: standard deviations
    above the slowly forgetting mean. It looks upwards only, and does not rest."""
    usual, decay = Usual(), decay_of(HALF_LIFE_POINTS)
    scores = []
    for value in series.values:
        deviation = usual.deviation
        above = max(0.0, (value - usual.mean) / deviation) if deviation else 0.0
        scores.append(above / (1 + above))
        usual.learn(value, decay)
    return scores


def gaussian(series: Series) -> list[float]:
    """NAB's baseline of that name: the tail of a normal distribution over up to 6,400 values,
    which move on by hundreds."""
    values = numpy.array(series.values)
    scores = []
    for index, value in enumerate(series.values):
        if index <= GAUSSIAN_POINTS:
            known = values[:index]
            fresh = True
        else:
            steps = (index - GAUSSIAN_POINTS) // GAUSSIAN_STEP
            known = values[steps * GAUSSIAN_STEP : steps * GAUSSIAN_STEP + GAUSSIAN_POINTS]
            fresh = (index - GAUSSIAN_POINTS) % GAUSSIAN_STEP == 0
        if not index:
            scores.append(0.0)
            continue
        if fresh:
            mean, deviation = float(known.mean()), float(known.std()) or 1e-6
        scores.append(1 - 0.5 * erfc(abs(value - mean) / deviation / sqrt(2)))
    return scores


def published(folder: Path, corpus: Sequence[Series]) -> Iterator[str]:
    """NAB's results folder through this scoring: the same figures come out, or a little more where
    NAB's search for the threshold stopped short of the best one."""
    final = json.loads((folder / "results" / "final_results.json").read_text(encoding="utf-8"))
    yield "NAB's own results by this scoring, and as published"
    for detector in sorted(final):
        scores = {s.name: _read_scores(folder, detector, s.name) for s in corpus}
        if all(len(scores[s.name]) == len(s.values) for s in corpus):
            mine = optimised(corpus, scores).score
            yield f"  {detector:<24}{mine:>8.2f}{final[detector]['standard']:>8.2f}"


def _read_scores(folder: Path, detector: str, name: str) -> list[float]:
    group, _, file = name.partition("/")
    path = folder / "results" / detector / group / f"{detector}_{file}"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [float(row["anomaly_score"]) for row in csv.DictReader(lines)]


def _figures(corpus: list[Series], contenders: dict[str, Scores]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, scores in contenders.items():
        found[name] = {half: optimised(part, scores).score for half, part in halves(corpus)}
    by_half = dict(halves(corpus))
    tuned = optimised(by_half["tune"], contenders[OURS]).threshold
    found[OURS]["report at tune's threshold"] = at(by_half["report"], contenders[OURS], tuned).score
    found[OURS]["whole at its own alarm level"] = at(corpus, contenders[OURS], ALARM).score
    return found


def _table(
    corpus: Sequence[Series], figures: dict[str, dict[str, float]], data: Path | None, quick: bool
) -> Iterator[str]:
    windows = sum(len(series.windows) for series in corpus)
    told = f"{len(corpus)} series, {windows} windows"
    if data:
        yield f"{told} of {PLACE}{', every sixth series' if quick else ''}"
    else:
        yield f"{told}, generated: these are not NAB's scores (--data DIR, {PLACE})"
    yield f"{'standard profile':<32}{'tune half':>10}{'other half':>12}{'whole':>8}"
    for name, scores in figures.items():
        yield f"{name:<32}{scores['tune']:>10.1f}{scores['report']:>12.1f}{scores['whole']:>8.1f}"
    for name in ("report at tune's threshold", "whole at its own alarm level"):
        yield f"{OURS + ', ' + name:<54}{figures[OURS][name]:>8.1f}"
    yield f"published, whole: Skyline {SKYLINE}, contextOSE {CONTEXT_OSE}, ARTime 74.9"


def _goals(figures: dict[str, dict[str, float]]) -> Iterator[Goal]:
    whole, report = figures[OURS]["whole"], figures[OURS]["report"]
    yield Goal("NAB standard, whole (Skyline)", f">= {SKYLINE}", f"{whole:.1f}", whole >= SKYLINE)
    yield Goal(
        "NAB standard, half not tuned on", f">= {SKYLINE}", f"{report:.1f}", report >= SKYLINE
    )
    yield Goal("NAB standard, stretch", f">= {CONTEXT_OSE}", f"{whole:.1f}", whole >= CONTEXT_OSE)
    gauss = figures[GAUSSIAN]["whole"]
    near = abs(gauss - PUBLISHED_GAUSSIAN) <= 1
    yield Goal("scoring: NAB's Gaussian, published 39.65", "+- 1", f"{gauss:.2f}", near)
