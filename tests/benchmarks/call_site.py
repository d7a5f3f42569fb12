"""What recording costs the service that is recorded, against producing to Kafka by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
from tests.benchmarks.caller import Job, Outcome
from tests.benchmarks.context import Context, message_values
from tests.benchmarks.report import Figure, compare, interleaved
from tests.pipeline import Pipeline

from gatebook.schemas.codec import open_frame
from gatebook.schemas.topics import ACCESS, topic_name

BENCH = "call_site"
RATES = (500, 2_000, 0)
QUICK_RATES = (2_000, 0)
PACED_SECONDS = 4
FLAT_OUT_CALLS = 15_000  # fits the recorder's memory buffer, whatever the disk does
BARE = "fastavro + produce"
INLINE = "build + fastavro + produce in the request"
CALLERS = ("bare", "emit", "emit_draft")
APPS = ("app", "app_gatebook", "app_inline")
PRODUCE_FRAMES = ("emit", "emit_draft", "app_gatebook")
PRODUCE_EVENTS = ("bare", "app_inline")
Outcomes = dict[str, list[Outcome]]


def run(context: Context) -> list[Figure]:
    """Figures of Recorder.emit and of the ASGI middleware."""
    places = {"frames": context.pipeline(), "events": context.pipeline()}
    sent = dict.fromkeys(places, 0)
    figures: list[Figure] = []
    for rate in QUICK_RATES if context.quick else RATES:
        label = f"at {rate:,}/s" if rate else "flat out"
        for names, report in ((CALLERS, _emit_figures), (APPS, _middleware_figures)):
            contenders = {n: partial(_call, context, places, sent, n, rate) for n in names}
            figures += report(label, interleaved(context.rounds, contenders))
    _check(places, sent)
    for place in places.values():
        place.close()
    return figures


def _call(
    context: Context, places: dict[str, Pipeline], sent: dict[str, int], name: str, rate: int
) -> Outcome:
    place = "frames" if name in PRODUCE_FRAMES else "events"
    seconds = 0.5 if context.quick else PACED_SECONDS
    flat_out = FLAT_OUT_CALLS // 5 if context.quick else FLAT_OUT_CALLS
    job = Job(
        contender=name,
        rate_per_second=rate,
        calls=int(rate * seconds) if rate else flat_out,
        kafka_bootstrap=context.engines.kafka_bootstrap,
        namespace=places[place].namespace,
        home=str(places[place].home),
    )
    outcome = _in_child(job)
    if name in (*PRODUCE_FRAMES, *PRODUCE_EVENTS):
        sent[place] += outcome.calls_with_warm_up
    return outcome


def _in_child(job: Job) -> Outcome:
    command = [sys.executable, "-m", "tests.benchmarks.caller", msgspec.json.encode(job).decode()]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, f"{job.contender} failed: {done.stderr.decode()[-2000:]}"
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)


def _check(places: dict[str, Pipeline], sent: dict[str, int]) -> None:
    """Everything that was emitted is in Kafka, once."""
    bootstrap = places["frames"].engines.kafka_bootstrap
    raw = message_values(bootstrap, topic_name(places["frames"].namespace, ACCESS))
    in_frames = sum(open_frame(message).header.count for message in raw)
    assert in_frames == sent["frames"], (in_frames, sent)
    assert places["events"].end(ACCESS) == sent["events"], sent


def _emit_figures(label: str, found: Outcomes) -> Iterator[Figure]:
    for name, what in (("emit", "emit(dict)"), ("emit_draft", "emit(draft)")):
        for title, unit, read in _readings(label):
            ours, theirs = map(read, found[name]), map(read, found["bare"])
            yield compare(BENCH, f"{what} {label}: {title}", unit, [*ours], [*theirs], BARE)


def _readings(label: str) -> Iterator[tuple[str, str, Callable[[Outcome], float]]]:
    yield "call p50", "us", lambda o: o.p50
    yield "call p99", "us", lambda o: o.p99
    if label != "flat out":
        yield "caller wakes late p99", "us", lambda o: o.late_p99
    yield "process CPU a call", "us", lambda o: o.cpu


_ADDED: dict[str, Callable[[Outcome], float]] = {
    "adds p50": lambda o: o.p50,
    "adds p99": lambda o: o.p99,
    "adds process CPU": lambda o: o.cpu,
}


def _middleware_figures(label: str, found: Outcomes) -> Iterator[Figure]:
    """What each middleware adds to the application alone, round by round."""
    for title, read in _ADDED.items():
        alone = [read(o) for o in found["app"]]
        ours, theirs = (
            [max(0.01, read(o) - a) for o, a in zip(found[name], alone, strict=True)]
            for name in ("app_gatebook", "app_inline")
        )
        yield compare(BENCH, f"middleware {label}: {title}", "us", ours, theirs, INLINE)
    wrapped, bare_app = [o.p50 for o in found["app_gatebook"]], [o.p50 for o in found["app"]]
    yield compare(
        BENCH, f"app in middleware {label}: p50", "us", wrapped, bare_app, "the app alone"
    )
