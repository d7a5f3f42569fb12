"""Figures of a run: how they are compared, shown and written."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
OVERHEAD = "gatebook / baseline, less is better"
SPEED = "gatebook / baseline, more is better"
COST = "cost, less is better"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `gatebook` and `baseline` are medians over the rounds; `ratio` is the
    median of the ratios of each round, `ratio_low` and `ratio_high` the extremes of those."""

    bench: str
    what: str
    unit: str
    gatebook: float
    direction: str
    baseline_name: str = ""
    baseline: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    rounds: int = 1


def compare(
    bench: str,
    what: str,
    unit: str,
    gatebook: Sequence[float],
    baseline: Sequence[float],
    baseline_name: str,
    direction: str = OVERHEAD,
) -> Figure:
    """A figure from the same rounds of both; round by round, for the machine changes its pace."""
    ratios = [ours / theirs for ours, theirs in zip(gatebook, baseline, strict=True)]
    return Figure(
        bench=bench,
        what=what,
        unit=unit,
        gatebook=statistics.median(gatebook),
        direction=direction,
        baseline_name=baseline_name,
        baseline=statistics.median(baseline),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=len(ratios),
    )


def plain(bench: str, what: str, unit: str, values: Sequence[float]) -> Figure:
    """A figure that stands for itself."""
    return Figure(
        bench=bench,
        what=what,
        unit=unit,
        gatebook=statistics.median(values),
        direction=COST,
        rounds=len(values),
    )


def interleaved(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Results per contender. They take turns, in the other order every other round, so that a
    slow minute of the machine meets all of them."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            results[name].append(contenders[name]())
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def machine(engine: str) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "engine": engine,
        "load_average_before": round(os.getloadavg()[0], 2),
        "commit": _commit(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


HEAD = ("benchmark", "what", "unit", "gatebook", "baseline", "ratio", "of rounds", "baseline is")


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, one line each."""
    rows = [HEAD, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    numbers = range(3, 7)
    return [
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _cells(figure: Figure) -> tuple[str, ...]:
    ratio = spread = ""
    if figure.ratio is not None and figure.ratio_low is not None and figure.ratio_high is not None:
        ratio = f"{figure.ratio:.2f}{'<' if figure.direction == OVERHEAD else '>'}"
        spread = f"{figure.ratio_low:.2f}..{figure.ratio_high:.2f}"
    baseline = "" if figure.baseline is None else _number(figure.baseline)
    return (
        figure.bench, figure.what, figure.unit, _number(figure.gatebook), baseline, ratio, spread,
        figure.baseline_name,
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
