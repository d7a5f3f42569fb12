"""What every benchmark is given: engines of this run only, a folder, and how much to do."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from tests.conftest import HOME_PREFIX, RunningEngines, settings_for_tests, sweep_dead_runs
from tests.docker_engines import choose_for_tests
from tests.pipeline import Pipeline


@dataclass(frozen=True)
class Context:
    """Engines that answer; `rounds` of each contender; `events` a round of a throughput."""

    engines: RunningEngines
    home: Path
    rounds: int
    events: int
    quick: bool

    def pipeline(self) -> Pipeline:
        """A new namespace with its topics and templates."""
        name = f"b{uuid.uuid4().hex[:7]}"
        home = self.home / name
        home.mkdir()
        return Pipeline(self.engines, name, home, partitions=4)


@contextmanager
def running_engines() -> Iterator[tuple[RunningEngines, Path]]:
    """Engines chosen as the tests choose them, and a folder; both gone afterwards."""
    sweep_dead_runs()
    with tempfile.TemporaryDirectory(prefix=f"{HOME_PREFIX}{os.getpid()}-") as folder:
        home = Path(folder)
        chosen = choose_for_tests(settings_for_tests(home))
        try:
            yield RunningEngines(chosen), home
        finally:
            chosen.remove()


def create_index(pipeline: Pipeline, name: str) -> None:
    """Make an index by the template, as our sink does before it writes."""
    answer = pipeline.http.put(f"/{name}")
    assert answer.status_code == 200, answer.text[:300]


def drop_indices(pipeline: Pipeline) -> None:
    """Delete what a round indexed, so that the next one finds the same disk and memory."""
    rows = pipeline.http.get(f"/_cat/indices/{pipeline.namespace}-*", params={"format": "json"})
    for row in rows.json() if rows.status_code == 200 else []:
        pipeline.http.delete(f"/{row['index']}")


def message_values(bootstrap: str, topic: str) -> Iterator[bytes]:
    """The value of every message of a topic."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "bench-read"}
    reader = Consumer({**settings, "enable.auto.commit": False})
    try:
        for number in reader.list_topics(topic, timeout=10).topics[topic].partitions:
            here = TopicPartition(topic, number, 0)
            _, end = reader.get_watermark_offsets(here, timeout=10)
            reader.assign([here])
            while end and reader.position([here])[0].offset < end:
                for message in reader.consume(10_000, 0.2):
                    assert message.error() is None, message.error()
                    yield message.value() or b""
    finally:
        reader.close()
