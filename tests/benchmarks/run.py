"""`make bench`: figures of Gatebook beside those of plain code, taken in the same run.

    python -m tests.benchmarks.run [--quick] [--only NAME]... [--events N] [--json FILE]

Every comparison alternates its contenders, three rounds each (one with --quick), and fails where
an event is missing. A ratio is comparable between machines; a figure is not.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from tests.benchmarks import call_site, outage, overhead, pipeline, privacy, sink, steps
from tests.benchmarks.context import Context, running_engines
from tests.benchmarks.report import Figure, machine, table

BENCHES: dict[str, Callable[[Context], list[Figure]]] = {
    "steps": steps.run,
    "privacy": privacy.run,
    "call_site": call_site.run,
    "overhead": overhead.run,
    "outage": outage.run,
    "sink": sink.run,
    "pipeline": pipeline.run,
}
EVENTS = 100_000
QUICK_EVENTS = 10_000
ROUNDS = 3
LEGEND = (
    "ratio: gatebook / baseline, median over rounds (then lowest..highest);"
    " < less is better, > more is better"
)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to try it")
    parser.add_argument("--only", action="append", choices=BENCHES, help="may be given again")
    parser.add_argument("--events", type=int, help=f"of pipeline and sink, default {EVENTS:,}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; the exit code."""
    given = arguments()
    began = time.monotonic()
    figures: list[Figure] = []
    with running_engines() as (engines, home):
        about = {"command": f"python -m {_command()}", **machine(engines.engine)}
        context = Context(
            engines=engines,
            home=home,
            rounds=1 if given.quick else ROUNDS,
            events=given.events or (QUICK_EVENTS if given.quick else EVENTS),
            quick=given.quick,
        )
        about["events"] = context.events
        for name in given.only or BENCHES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures += BENCHES[name](context)
    about["seconds"] = round(time.monotonic() - began)
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print(f"\n{table(figures)}\n\n{LEGEND}")
    if given.json:
        report = {"about": about, "figures": figures}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 0


def _command() -> str:
    return shlex.join(["tests.benchmarks.run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
