"""Events a second on one core: the engine with all rules on beside HalfSpaceTrees of river.

Both are given the same documents and take from them what they need: the engine an access for all
its rules and keys, the trees seven numbers for one model over all accesses. The trees score an
observation and learn it. CPU time of the thread, so that neighbours on the machine count little.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from river.anomaly import HalfSpaceTrees
from tests.benchmarks.detection.traffic import SEED, Document, month
from tests.benchmarks.redaction.goals import Goal
from tests.benchmarks.report import SPEED, Figure, compare, interleaved, plain

from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine, all_detectors

BENCH = "throughput"
EVENTS = 40_000
QUICK_EVENTS = 10_000
MESSAGE_EVENTS = 250
TREES = "river HalfSpaceTrees"
BYTES = 65_536.0
TOKENS = 8_192.0
LONGEST_NS = 60e9


def stream(count: int) -> list[Document]:
    """The busiest part of generated traffic: what is timed has learned nothing beforehand."""
    documents = list(month(identities=200, days=18, attacks_of_kind=2).documents())
    return documents[len(documents) // 2 :][:count]


def run(quick: bool, rounds: int) -> tuple[list[Figure], list[Goal]]:
    """Figures and goals."""
    documents = stream(QUICK_EVENTS if quick else EVENTS)
    detectors = all_detectors()
    found = interleaved(
        rounds,
        {
            "engine": partial(_engine, documents, detectors, store=False),
            "engine and state": partial(_engine, documents, detectors, store=True),
            "reading": partial(_reading, documents),
            "trees": partial(_trees, documents),
        },
    )
    engine, trees = found["engine"], found["trees"]
    rules = len(detectors)
    figures = [
        compare(BENCH, f"{rules} rules, one core", "events/s", engine, trees, TREES, SPEED),
        compare(
            BENCH, "the same, a rule", "events/s", [n * rules for n in engine], trees, TREES, SPEED
        ),
        plain(BENCH, "state packed every 250 events", "events/s", found["engine and state"]),
        plain(BENCH, "reading documents alone", "events/s", found["reading"]),
    ]
    return figures, _goals(figures[0])


def _goals(figure: Figure) -> list[Goal]:
    speed, ratio = figure.gatebook, figure.ratio or 0.0
    return [
        Goal("events/s per core, all rules on", ">= 20,000", f"{speed:,.0f}", speed >= 20_000),
        Goal("against HalfSpaceTrees, same stream", "> 1.0x", f"{ratio:.2f}x", ratio > 1),
    ]


def _engine(
    documents: Sequence[Document], detectors: Sequence[Detector], store: bool = False
) -> float:
    engine = DetectionEngine(detectors)
    begun = time.thread_time()
    for offset, part in enumerate(messages(documents)):
        engine.process(offset, part)
        if store:
            engine.drain_state()
    return len(documents) / (time.thread_time() - begun)


def messages(documents: Sequence[Document]) -> list[Sequence[Document]]:
    """As they come from Kafka."""
    cuts = [*range(0, len(documents), MESSAGE_EVENTS), len(documents)]
    return [documents[first:end] for first, end in pairwise(cuts)]


def _reading(documents: Sequence[Document]) -> float:
    engine = DetectionEngine([])
    begun = time.thread_time()
    engine.read(documents)
    return len(documents) / (time.thread_time() - begun)


def _trees(documents: Sequence[Document]) -> float:
    trees = HalfSpaceTrees(seed=SEED)
    begun = time.thread_time()
    for document in documents:
        seen = features(document)
        trees.score_one(seen)
        trees.learn_one(seen)
    return len(documents) / (time.thread_time() - begun)


def features(document: Document) -> dict[str, float]:
    """What an access is in numbers from 0 to 1, which the trees want."""
    usage, event, http = document["gen_ai"]["usage"], document["event"], document["http"]
    return {
        "hour": int(document["@timestamp"][11:13]) / 24,
        "input": min(1.0, usage["input_tokens"] / TOKENS),
        "output": min(1.0, usage.get("output_tokens", 0) / TOKENS),
        "duration": min(1.0, event["duration"] / LONGEST_NS),
        "failed": float(event["outcome"] != "success"),
        "status": http["response"]["status_code"] / 600,
        "bytes": min(1.0, http["request"]["body"]["bytes"] / BYTES),
    }


def profile(count: int = QUICK_EVENTS) -> None:
    """Where the engine's time goes."""
    documents = stream(count)
    detectors = all_detectors()
    profiler = cProfile.Profile()
    profiler.runcall(_engine, documents, detectors)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
