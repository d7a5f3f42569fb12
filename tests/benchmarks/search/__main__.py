"""`make bench-search`: how fast the log answers, how large it is, and what keeping it costs.

    python -m tests.benchmarks.search [--events N] [--quick] [--keep DIR] [--only PART]...

On an Elasticsearch of its own (1 GB heap) with documents of thirty days, written through the real
template and sink. With --keep the data stays in DIR and the next run with as many events reuses
it. Prints each figure with its goal: met, or not.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.report import machine
from tests.benchmarks.search import keeping, looking
from tests.benchmarks.search.place import bytes_of, connected, load_once, running

NAMESPACE = "searched"
# The documents end at a fixed moment, so that kept data is the same data tomorrow.
END = datetime(2026, 11, 23, tzinfo=UTC)
EVENTS, QUICK_EVENTS = 5_000_000, 200_000
SIZE_EVENTS = 200_000
RETENTION_SHARE = 10
ROUNDS, QUICK_ROUNDS = 40, 20
GOAL_RATIO = 0.5
PARTS = ("look", "size", "sum", "retain")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, help=f"default {EVENTS:,}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="data stays there, to be reused")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    return parser.parse_args()


async def main() -> int:
    """Measure what was asked for; 1 where a goal is not met."""
    given = arguments()
    count = given.events or (QUICK_EVENTS if given.quick else EVENTS)
    parts: Sequence[str] = given.only or PARTS
    _say(f"machine: {machine('embedded')}")
    with running(given.keep) as url, tempfile.TemporaryDirectory() as home:
        async with connected(url) as connection:
            seconds = await load_once(connection, url, NAMESPACE, count, END)
            if seconds is not None:
                _say(f"loaded {count:,} events: {count / seconds:,.0f} events/s (made and written)")
            size = await bytes_of(connection, f"{NAMESPACE}-access") / count
            _say(f"details on disk: {size:,.0f} bytes an event, one segment an index")
            is_met = []
            if "look" in parts:
                rounds = QUICK_ROUNDS if given.quick else ROUNDS
                is_met.append(_looked(await looking.measure(connection, NAMESPACE, END, rounds)))
            if "size" in parts:
                some = min(count, SIZE_EVENTS)
                is_met.append(_sized(await keeping.sizes(connection, url, some), some))
            if "sum" in parts:
                report = await keeping.sum_up(connection, NAMESPACE, END)
                rows_size = await bytes_of(connection, f"{NAMESPACE}-summary") / report.events
                _say(
                    f"summing up: {report.events / report.seconds:,.0f} events/s ({report.hours} "
                    f"hours, {report.days} days, {report.rows:,} rows, {rows_size:,.0f} bytes an "
                    "event)"
                )
            if "retain" in parts:
                some = count // RETENTION_SHARE
                took, left = await keeping.retain(connection, url, some, Path(home))
                _say(f"retention run: {took:,.1f} s, {some / took:,.0f} events/s; {left}")
    return 0 if all(is_met) else 1


def _looked(found: Sequence[looking.Measured]) -> bool:
    _say(f"{'query':<30} {'what':<10} {'p50 ms':>8} {'p95 ms':>8}  goal p95 < {looking.GOAL_MS:g}")
    for one in found:
        verdict = _verdict(one.p95 < looking.GOAL_MS)
        _say(f"{one.name:<30} {one.what:<10} {one.p50:>8.1f} {one.p95:>8.1f}  {verdict}")
    met = [one for one in found if one.p95 < looking.GOAL_MS]
    _say(f"{len(met)} of {len(found)} met")
    return len(met) == len(found)


def _sized(found: dict[str, float], count: int) -> bool:
    _say(f"bytes an event, {count:,} events of one day, merged:")
    for name, size in found.items():
        _say(f"  {name:<26} {size:>8,.0f}")
    ratio = found["template"] / found["dynamic"]
    best = found["best_compression"] / found["dynamic"]
    like = found["best_compression"] / found["dynamic best_compression"]
    _say("share of dynamic mapping as Elasticsearch does it by itself:")
    _say(
        f"  as setup installs it (best_compression): {best:.2f}, goal <= {GOAL_RATIO}: "
        f"{_verdict(best <= GOAL_RATIO)}"
    )
    _say(f"  with the default codec: {ratio:.2f}: {_verdict(ratio <= GOAL_RATIO)}")
    _say(f"  both with best_compression: {like:.2f}: {_verdict(like <= GOAL_RATIO)}")
    return best <= GOAL_RATIO


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Otherwise the engine would outlive a run that is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(asyncio.run(main()))
