"""`make bench-detection`: how quick detection is, how soon it tells, and what it notices.

    python -m tests.benchmarks.detection [--quick] [--only NAME]... [--data DIR] [--json FILE]

throughput: the engine with all rules beside HalfSpaceTrees of river; scenarios: attacks injected
into a month of generated habits, beside Elastic's fixed thresholds; nab: the univariate scorer by
the published scoring of the Numenta Anomaly Benchmark (`--data DIR` names its folder: data/ and
labels/ of github.com/numenta/NAB; without it generated series stand in); latency: from an event to
an alert target, on real engines and workers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from tests.benchmarks.detection import scenarios, throughput
from tests.benchmarks.detection.traffic import SEED, TUNE_SEED
from tests.benchmarks.redaction.goals import Goal, lines
from tests.benchmarks.report import machine, table

ROUNDS = 3
NAMES = ("throughput", "scenarios", "nab", "latency")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small and short, to try it")
    parser.add_argument("--only", action="append", choices=NAMES, help="may be given again")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of numenta/NAB")
    parser.add_argument(
        "--tune", action="store_true", help="scenarios: the month thresholds were looked at with"
    )
    parser.add_argument("--profile", action="store_true", help="where the engine's time goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; the exit code."""
    given = arguments()
    if given.profile:
        throughput.profile()
        return 0
    about, began = machine("none"), time.monotonic()
    print("\n".join(f"{key}: {value}" for key, value in about.items() if key != "engine") + "\n")
    goals: list[Goal] = []
    out: dict[str, Any] = {}
    for name in given.only or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found, reached, out[name] = BENCHES[name](given)
        print(f"== {name}\n")
        print("\n".join(found), flush=True)
        goals += reached
    print("goals")
    print("\n".join(lines(goals)))
    print(f"\nseconds: {time.monotonic() - began:.0f}")
    if given.json:
        report = {"about": about, "goals": goals, **out}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 0


Result = tuple[list[str], list[Goal], Any]


def _throughput(given: argparse.Namespace) -> Result:
    figures, goals = throughput.run(given.quick, 1 if given.quick else ROUNDS)
    return [table(figures), ""], goals, figures


def _scenarios(given: argparse.Namespace) -> Result:
    return scenarios.run(given.quick, TUNE_SEED if given.tune else SEED)


def _nab(given: argparse.Namespace) -> Result:
    from tests.benchmarks.detection import nab

    return nab.run(given.data, given.quick)


def _latency(given: argparse.Namespace) -> Result:
    from tests.benchmarks.detection import latency

    return latency.run(given.quick)


BENCHES = {"throughput": _throughput, "scenarios": _scenarios, "nab": _nab, "latency": _latency}


if __name__ == "__main__":
    sys.exit(main())
