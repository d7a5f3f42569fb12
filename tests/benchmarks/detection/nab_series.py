"""NAB's series from a folder, and generated ones of the same kinds where there is no folder."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from math import pi, sin
from pathlib import Path

from tests.benchmarks.detection.nab_scoring import Series

PLACE = "github.com/numenta/NAB: its folders data/ and labels/"
SEED = 5
STEP_SECONDS = 300
POINTS = 4000


def from_folder(folder: Path) -> list[Series]:
    """All series of the corpus, by name."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text(encoding="utf-8"))
    return [_read(folder / "data", name, labels[name]) for name in sorted(labels)]


def _read(data: Path, name: str, windows: list[list[str]]) -> Series:
    with (data / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [_seconds(row["timestamp"]) for row in rows]
    values = [float(row["value"]) for row in rows]
    ranges = [_range(seconds, _seconds(first), _seconds(last)) for first, last in windows]
    return Series(name, seconds, values, ranges)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _range(seconds: list[float], first: float, last: float) -> tuple[int, int]:
    inside = [index for index, at in enumerate(seconds) if first <= at <= last]
    return inside[0], inside[-1]


def generated(count: int = 12) -> list[Series]:
    """Daily waves, noise and level shifts with one or two anomalies each; not NAB's data, and the
    figures on them are not NAB's."""
    draw = random.Random(SEED)
    return [_made(number, draw) for number in range(count)]


def _made(number: int, draw: random.Random) -> Series:
    day = 86_400 / STEP_SECONDS
    height, noise = draw.uniform(0, 30), draw.uniform(1, 6)
    values = [
        50 + height * sin(2 * pi * index / day) + draw.gauss(0, noise) for index in range(POINTS)
    ]
    begins = sorted(draw.sample(range(1000, POINTS - 400, 500), 1 + number % 2))
    for begin in begins:
        _disturb(values, begin, number % 3, height + 8 * noise, draw)
    windows = [(begin - 60, begin + 140) for begin in begins]
    seconds = [1_400_000_000.0 + index * STEP_SECONDS for index in range(POINTS)]
    return Series(f"generated/{number}", seconds, values, windows)


def _disturb(values: list[float], begin: int, kind: int, size: float, draw: random.Random) -> None:
    """A spike, a level that stays for some hours, or a silence."""
    if kind == 0:
        values[begin] += 2 * size
    elif kind == 1:
        for index in range(begin, begin + 60):
            values[index] += size
    else:
        for index in range(begin, begin + 60):
            values[index] = values[begin] + draw.gauss(0, 0.1)


def halves(corpus: list[Series]) -> Iterator[tuple[str, list[Series]]]:
    """Every other series by name: one half to tune on, the other to report."""
    yield "tune", corpus[0::2]
    yield "report", corpus[1::2]
    yield "whole", corpus
