"""What recording adds to each request and each streamed chunk, beside other ways to do it.

Around one trivial application, in one run: GatebookMiddleware against one record per access
encoded and produced in the request, against a log record through OpenTelemetry's batch processor
and OTLP exporter to a receiver on this machine, and against callbacks that are awaited until Kafka
has them, as LiteLLM awaits its own. `adds` is a contender's reading less that of the application
alone in the same round. Lines with a goal say whether it is met, by the median of the rounds.

OpenTelemetry's exporter sends over HTTP and syncs nothing; Gatebook's writer syncs its spool and
waits for Kafka's acknowledgement. Neither is in the request, but both compete for the interpreter.

Every contender checks that as many records arrived as there were requests, and that every chunk
was passed on unchanged before the next one was sent.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
from tests.benchmarks.context import Context, message_values
from tests.benchmarks.overhead_apps import CONTENDERS, STREAM_CHUNKS, Job
from tests.benchmarks.overhead_caller import PHASES, Outcome, Reading
from tests.benchmarks.report import Figure, compare, interleaved
from tests.pipeline import Pipeline

from gatebook.schemas.codec import decode_event, open_frame
from gatebook.schemas.topics import ACCESS, topic_name

BENCH = "overhead"
ALONE = "alone"
OURS = ("metadata", "redacted", "metadata+intents", "redacted+intents")
BASELINES = {
    "produce": "fastavro + produce in the request",
    "otel_http": "OpenTelemetry, HTTP attributes",
    "otel_genai": "OpenTelemetry, GenAI attributes",
    "awaited": "callback awaited until in Kafka",
}
GOALS = {"produce": 1.1, "otel_http": 0.25, "otel_genai": 0.25}
PLACES = {**dict.fromkeys(OURS, "frames"), "produce": "events", "awaited": "callbacks"}
AWAITED_SCALE = 0.2  # it takes milliseconds a chunk
QUICK_SCALE = 0.1
LEAST_MICROSECONDS = 0.01  # an addition below what can be told from nothing
Found = dict[str, list[Outcome]]
Read = Callable[[Reading], float]

READINGS: dict[str, Read] = {
    "adds p50": lambda r: r.p50,
    "adds p99": lambda r: r.p99,
    "adds event loop CPU p50": lambda r: r.cpu_p50,
    "adds process CPU": lambda r: r.process_cpu,
}
CHUNK_READINGS: dict[str, Read] = {
    "a chunk adds p50": lambda r: r.chunk_p50,
    "a chunk adds p99": lambda r: r.chunk_p99,
    "a chunk adds event loop CPU p50": lambda r: r.chunk_cpu_p50,
}
PROCESS_CPU = "adds process CPU"
BRIEF = ("adds p50", "adds event loop CPU p50", PROCESS_CPU)  # of settings other than the default


def run(context: Context) -> list[Figure]:
    """Figures of every setting of ours against every baseline."""
    places = {name: context.pipeline() for name in sorted(set(PLACES.values()))}
    calls = {name: partial(_call, context, places, name) for name in CONTENDERS}
    found = interleaved(context.rounds, calls)
    _check(places, found)
    for place in places.values():
        place.close()
    return [*_alone_figures(found), *_figures(found)]


def _call(context: Context, places: dict[str, Pipeline], name: str) -> Outcome:
    place = places[PLACES.get(name, "frames")]
    scale = QUICK_SCALE if context.quick else 1.0
    job = Job(
        contender=name,
        scale=scale * (AWAITED_SCALE if name == "awaited" else 1.0),
        kafka_bootstrap=context.engines.kafka_bootstrap,
        namespace=place.namespace,
        home=str(place.home),
    )
    command = [sys.executable, "-m", "tests.benchmarks.overhead_caller"]
    done = subprocess.run(
        [*command, msgspec.json.encode(job).decode()], capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{name} failed: {done.stderr.decode()[-2000:]}"
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)


def _check(places: dict[str, Pipeline], found: Found) -> None:
    """What the contenders say arrived is in Kafka, once, and says what happened."""

    def asked(read: Callable[[Outcome], int], *names: str) -> int:
        return sum(read(outcome) for name in names for outcome in found[name])

    frames = places["frames"]
    raw = message_values(frames.engines.kafka_bootstrap, topic_name(frames.namespace, ACCESS))
    events = [decode_event(data)["gatebook"] for frame in raw for data in open_frame(frame).events]
    ends = [event for event in events if event["phase"] == "terminal"]
    streams = [event["stream"] for event in ends if event["stream"]["chunks"]]
    with_intents = [name for name in OURS if "intents" in name]
    assert len(ends) == asked(lambda o: o.accesses, *OURS)
    assert len(events) - len(ends) == asked(lambda o: o.accesses, *with_intents)
    assert len(streams) * STREAM_CHUNKS == asked(lambda o: o.chunks, *OURS)
    assert all(s["chunks"] == STREAM_CHUNKS and s["completed"] for s in streams)
    assert places["events"].end(ACCESS) == asked(lambda o: o.accesses, "produce")
    assert places["callbacks"].end(ACCESS) == asked(lambda o: o.accesses + o.chunks, "awaited")


def _read(outcomes: Sequence[Outcome], phase: str, read: Read) -> list[float]:
    return [read(outcome.readings[phase]) for outcome in outcomes]


def _added(found: Found, name: str, phase: str, read: Read) -> list[float]:
    """What a contender adds to the application alone, round by round."""
    pairs = zip(_read(found[name], phase, read), _read(found[ALONE], phase, read), strict=True)
    return [max(LEAST_MICROSECONDS, with_it - alone) for with_it, alone in pairs]


def _alone_figures(found: Found) -> Iterator[Figure]:
    """The application with the middleware, against the application alone."""
    for phase in PHASES:
        for title, read in _readings(phase.name):
            title = title.replace("adds", "takes")
            ours, bare = (_read(found[name], phase.name, read) for name in ("metadata", ALONE))
            yield compare(
                BENCH, f"metadata, {phase.name}: {title}", "us", ours, bare, "the app alone"
            )


def _figures(found: Found) -> Iterator[Figure]:
    for baseline in BASELINES:
        for phase in PHASES:
            for title, read in _readings(phase.name):
                yield _figure(found, "metadata", baseline, phase.name, title, read)
    for name in OURS[1:]:
        for baseline in ("produce", "otel_http"):
            for phase in (p for p in PHASES if p.rate_per_second):
                for title in BRIEF:
                    read = READINGS[title]
                    yield _figure(found, name, baseline, phase.name, title, read)


def _readings(phase: str) -> Iterator[tuple[str, Read]]:
    yield from READINGS.items()
    if phase.startswith("stream"):
        yield from CHUNK_READINGS.items()


def _figure(found: Found, name: str, baseline: str, phase: str, title: str, read: Read) -> Figure:
    ours, theirs = (_added(found, who, phase, read) for who in (name, baseline))
    what = f"{name}, {phase}: {title}"
    figure = compare(BENCH, what, "us", ours, theirs, BASELINES[baseline])
    if min(*ours, *theirs) <= LEAST_MICROSECONDS:  # in a round the application alone was slower
        told = f"{figure.baseline_name} (lost in noise)"
        return msgspec.structs.replace(
            figure, ratio=None, ratio_low=None, ratio_high=None, baseline_name=told
        )
    goal = GOALS.get(baseline)
    if goal is None or title == PROCESS_CPU:
        return figure
    told = f"{figure.baseline_name}; goal {goal:g} {_verdict(figure, goal)}"
    return msgspec.structs.replace(figure, baseline_name=told)


def _verdict(figure: Figure, goal: float) -> str:
    """Met or not, by the median; said so where single rounds say otherwise."""
    assert figure.ratio is not None
    assert figure.ratio_low is not None
    assert figure.ratio_high is not None
    met = figure.ratio <= goal
    agreed = figure.ratio_high <= goal if met else figure.ratio_low > goal
    return ("met" if met else "NOT met") + ("" if agreed else " (rounds disagree)")
