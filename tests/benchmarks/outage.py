"""A broker that is gone for ten minutes while a service goes on at load.

    python -m tests.benchmarks.outage [--seconds 600] [--rate 2000] [--spool-mib N] [--samples FILE]

The broker is killed, and started again after the time. The service's memory must stay below a bound
that does not depend on how long that takes: what it was before, the memory buffer and half as much
again (its bytes are counted approximately, and an allocator gives back late), and one segment of
the spool. The load goes on until all is caught up, or as long again at most. In the end
emitted = acknowledged + counted losses, exactly, and what the service counts as acknowledged stands
on the topic: once, numbered without a gap, losses in the last frame.

By default the spool is 1 GiB for 600 seconds, as the setting has it, and less for less, so that a
short run climbs the degrade ladder as far as a long one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
from tests.benchmarks.context import Context, message_values, running_engines
from tests.benchmarks.outage_service import Job, Sample
from tests.benchmarks.report import Figure, machine, percentile, plain, table
from tests.pipeline import Pipeline

from gatebook.producers.config import ProducerSettings
from gatebook.producers.spool import SEGMENT_MAX_BYTES
from gatebook.schemas.codec import open_frame
from gatebook.schemas.topics import ACCESS, topic_name

BENCH = "outage"
SECONDS = 600.0
BENCH_SECONDS, QUICK_SECONDS = 60.0, 8.0  # within `make bench`
RATE_PER_SECOND = 2_000
BEFORE_SAMPLES = 8
MEBIBYTE = 1024 * 1024
_DEFAULTS = ProducerSettings()
_LEAST_SPOOL_BYTES = 8 * _DEFAULTS.frame_max_bytes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, how much, and into how large a spool."""

    seconds: float
    rate_per_second: int = RATE_PER_SECOND
    spool_max_bytes: int = 0

    @property
    def spool_bytes(self) -> int:
        """The spool's bound: as set, or the default's share of the time."""
        scaled = int(_DEFAULTS.spool_max_bytes * self.seconds / SECONDS)
        return self.spool_max_bytes or max(_LEAST_SPOOL_BYTES, scaled)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Samples by the broker's state, and the last one, with the recorder closed."""

    before: list[Sample]
    during: list[Sample]
    after: list[Sample]
    end: Sample

    @property
    def caught_up_seconds(self) -> float:
        """From the broker's return until nothing waited any more, the load going on."""
        return self.after[-1].at_seconds - self.during[-1].at_seconds


def run(context: Context) -> list[Figure]:
    """Figures of a shorter outage, for `make bench`."""
    return outage(context, Plan(seconds=QUICK_SECONDS if context.quick else BENCH_SECONDS))


def outage(context: Context, plan: Plan, samples: Path | None = None) -> list[Figure]:
    """One outage; raises where memory, the count or the topic is not as it must be. Every second
    of it is written to `samples`, if given."""
    place = context.pipeline()
    job = Job(
        kafka_bootstrap=context.engines.kafka_bootstrap,
        namespace=place.namespace,
        home=str(place.home),
        rate_per_second=plan.rate_per_second,
        spool_max_bytes=plan.spool_bytes,
        memory_buffer_max_bytes=_DEFAULTS.memory_buffer_max_bytes,
    )
    story = _story(context, job, plan)
    if samples is not None:
        samples.write_bytes(msgspec.json.format(msgspec.json.encode(story), indent=2))
    check_count(story.end)
    check_topic(place, story.end)
    place.close()
    assert _peak(story) <= _bound(story, job), f"memory grew beyond its bound: {_peak(story):,}"
    return list(_figures(story, job, plan))


@contextmanager
def service(job: Job) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The service, and its samples line by line."""
    command = [sys.executable, "-m", "tests.benchmarks.outage_service"]
    child = subprocess.Popen(
        [*command, msgspec.json.encode(job).decode()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield child, child.stdout
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def _story(context: Context, job: Job, plan: Plan) -> Story:
    with service(job) as (child, lines):
        before = _samples(lines, lambda seen: len(seen) >= BEFORE_SAMPLES)
        context.engines.kill_kafka()
        try:
            ends_at = time.monotonic() + plan.seconds
            during = _samples(lines, lambda _: time.monotonic() >= ends_at)
        finally:
            context.engines.start_kafka()
        after = _samples(lines, _caught_up(job, time.monotonic() + plan.seconds))
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        end = [msgspec.json.decode(line, type=Sample) for line in lines][-1]
    return Story(before=before, during=during, after=after, end=end)


def _samples(lines: IO[str], enough: Callable[[Sequence[Sample]], bool]) -> list[Sample]:
    seen: list[Sample] = []
    while not enough(seen):
        line = lines.readline()
        assert line, "the service ended by itself"
        seen.append(msgspec.json.decode(line, type=Sample))
    return seen


def _caught_up(job: Job, until: float) -> Callable[[Sequence[Sample]], bool]:
    """Nothing waits but what the last second brought, or the time is over."""

    def enough(seen: Sequence[Sample]) -> bool:
        late = time.monotonic() >= until
        return bool(seen) and (late or waiting(seen[-1]) < job.rate_per_second)

    return enough


def waiting(sample: Sample) -> int:
    """Events neither acknowledged nor counted as lost."""
    return sample.emitted - sample.acknowledged - sum(sample.dropped.values())


def check_count(end: Sample) -> None:
    """emitted = acknowledged + counted losses, exactly."""
    assert end.closed, "the service was not closed"
    assert waiting(end) == 0, end


def check_topic(place: Pipeline, end: Sample) -> None:
    """Every acknowledged event stands on the topic under a number of its own, without a gap."""
    topic = topic_name(place.namespace, ACCESS)
    numbers: dict[int, int] = {}
    losses: dict[str, int] = {}
    for value in message_values(place.engines.kafka_bootstrap, topic):
        header = open_frame(value).header
        numbers |= {header.first_sequence: max(header.count, numbers.get(header.first_sequence, 0))}
        if header.state == "closed":
            losses = dict(header.losses or {})
    following = 0
    for first, count in sorted(numbers.items()):
        assert first <= following, f"a gap before {first}"
        following = max(following, first + count)
    assert following == end.acknowledged, (following, end)
    assert losses == end.dropped, (losses, end)


def _peak(story: Story) -> int:
    return max(sample.rss_bytes for sample in (*story.during, *story.after, story.end))


def _bound(story: Story, job: Job) -> int:
    began = max(sample.rss_bytes for sample in story.before)
    return began + job.memory_buffer_max_bytes * 3 // 2 + SEGMENT_MAX_BYTES


def _figures(story: Story, job: Job, plan: Plan) -> Iterator[Figure]:
    def one(
        what: str, unit: str, value: float, beside: float | None = None, name: str = ""
    ) -> Figure:
        figure = plain(BENCH, what, unit, [value])
        return msgspec.structs.replace(figure, baseline=beside, baseline_name=name)

    before, during, end = story.before, story.during, story.end
    label = f"{plan.seconds:.0f} s at {plan.rate_per_second:,}/s"
    sent = during[-1].emitted - before[-1].emitted
    full = max(sample.spool_bytes for sample in (*during, *story.after))
    yield one(f"{label}: emitted meanwhile", "events", sent)
    yield one(
        "memory at its peak",
        "MiB",
        _peak(story) / MEBIBYTE,
        _bound(story, job) / MEBIBYTE,
        "its bound",
    )
    yield one("memory before", "MiB", before[-1].rss_bytes / MEBIBYTE)
    for minute, sample in _by_tenth(during):
        yield one(f"memory after {minute:.0f} s", "MiB", sample.rss_bytes / MEBIBYTE)
    yield one(
        "spool at its fullest", "MiB", full / MEBIBYTE, job.spool_max_bytes / MEBIBYTE, "its bound"
    )
    for share in (0.50, 0.99):
        took = [
            percentile([getattr(s, f"p{share * 100:.0f}") for s in part], 0.50)
            for part in (during, before)
        ]
        yield one(f"request p{share * 100:.0f}, median second", "us", took[0], took[1], "before")
    yield one("caught up after", "s", story.caught_up_seconds)
    for step, count in end.steps_entered.items():
        yield one(f"times at step {step}", "times", count)
    for what, count in end.reduced.items():
        yield one(f"events that lost their {what}", "events", count)
    yield one("emitted in all", "events", end.emitted)
    yield one("acknowledged, all found on the topic", "events", end.acknowledged)
    yield one("counted as lost", "events", sum(end.dropped.values()))


def _by_tenth(samples: Sequence[Sample]) -> Iterator[tuple[float, Sample]]:
    for tenth in range(2, 11, 2):
        sample = samples[max(0, len(samples) * tenth // 10 - 1)]
        yield sample.at_seconds - samples[0].at_seconds, sample


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.outage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="default %(default)g")
    parser.add_argument("--rate", type=int, default=RATE_PER_SECOND, help="requests a second")
    parser.add_argument("--spool-mib", type=float, default=0, help="bound of the spool")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="write every second there")
    return parser.parse_args()


def main() -> int:
    """One outage, by itself; the exit code."""
    given = arguments()
    plan = Plan(
        seconds=given.seconds,
        rate_per_second=given.rate,
        spool_max_bytes=int(given.spool_mib * MEBIBYTE),
    )
    with running_engines() as (engines, home):
        about = {"command": " ".join(["python -m tests.benchmarks.outage", *sys.argv[1:]])}
        about |= machine(engines.engine)
        context = Context(engines=engines, home=home, rounds=1, events=0, quick=False)
        figures = outage(context, plan, given.samples)
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print(f"\n{table(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
