"""Whatever is taken from detection in the middle of its work, it finds what it would have found."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.faults.detecting import (
    MESSAGES,
    OURS,
    RULES,
    Detecting,
    gathered_as_it_should,
    story,
    written,
)
from tests.pipeline import TERM, Pipeline
from tests.waiting import wait_until

from gatebook.processors.config import kafka_properties
from gatebook.processors.fenced import FencedWriter, read_to_end
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import DETECTOR_STATE, topic_name

LOG = written()


@pytest.fixture(scope="module")
def undisturbed(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """What one worker finds that nobody disturbs: incidents by principal and by key, each with
    its end."""
    home = tmp_path_factory.mktemp("undisturbed")
    pipeline = Pipeline(engines, f"undisturbed{home.name[-1]}", home)
    try:
        detecting = Detecting(pipeline)
        detecting.start()
        detecting.publish(LOG)
        detecting.wait_read()

        def ended() -> bool:
            found = detecting.found()
            actions = [f["event"]["action"] for f in found]
            incidents = {f["gatebook"]["incident"] for f in found}
            rules = {f["rule"]["id"] for f in found}
            return len(rules) == 3 and actions.count("resolved") == len(incidents)

        wait_until("every incident ended", ended, 120)
        found = detecting.found()
        assert {f["rule"]["id"] for f in found} == {*OURS, *RULES}
        assert len(story(found)) > 30
        assert gathered_as_it_should(found, LOG)
        assert not gathered_as_it_should([f for f in found if f["rule"]["id"] in OURS], LOG)
        yield story(found)
    finally:
        pipeline.close()


@pytest.fixture
def detecting(pipeline: Pipeline) -> Detecting:
    return Detecting(pipeline)


def _has_read(detecting: Detecting, wanted: int) -> bool:
    return detecting.read() >= wanted


def thirds() -> list[list[tuple[int, bytes]]]:
    """The log in three parts."""
    size = len(LOG) // 3
    return [LOG[:size], LOG[size : 2 * size], LOG[2 * size :]]


def test_killed_workers_find_the_same(detecting: Detecting, undisturbed: set[str]) -> None:
    """SIGKILL in the middle of the work, three times: the findings, firing and resolved, are those
    of a worker that was never disturbed."""
    worker = detecting.start()
    for part in thirds():
        detecting.pipeline.wait_members("detect", 1)
        wanted = detecting.read() + 1
        detecting.publish(part)
        wait_until("work", partial(_has_read, detecting, wanted), 60)
        detecting.pipeline.kill(worker)
        worker = detecting.start()
    detecting.check(undisturbed)


def test_partitions_that_come_and_go_lose_nothing(
    detecting: Detecting, undisturbed: set[str]
) -> None:
    """A second worker takes partitions over and leaves again, in good order: A, B, A."""
    first, second, third = thirds()
    detecting.start()
    detecting.publish(first)
    detecting.wait_read(0.5)
    other = detecting.start()
    detecting.publish(second)
    detecting.pipeline.wait_members("detect", 2)
    detecting.wait_read(0.5)
    detecting.pipeline.kill(other, TERM)
    detecting.publish(third)
    detecting.check(undisturbed)


def test_a_broker_that_dies_loses_nothing(
    engines: Any, detecting: Detecting, undisturbed: set[str]
) -> None:
    """The broker is killed in the middle of deliveries and transactions, and comes back."""
    detecting.start()
    detecting.pipeline.wait_members("detect", 1)
    detecting.publish(LOG[: len(LOG) // 2])
    wait_until("work", lambda: detecting.pipeline.end("finding.v1") > 0, 60)
    engines.kill_kafka()
    engines.start_kafka()
    detecting.publish(LOG[len(LOG) // 2 :])
    detecting.check(undisturbed)


def test_a_worker_that_comes_back_from_the_dead_spoils_nothing(
    detecting: Detecting, undisturbed: set[str]
) -> None:
    """A worker is stopped in the middle of its work until its session is over and another has its
    partitions; then it goes on where it was, and cannot write over what its successor keeps."""
    first, second, third = thirds()
    undead = detecting.start()
    detecting.publish(first)
    wait_until("work", lambda: detecting.pipeline.end("finding.v1") > 0, 60)
    undead.send_signal(signal.SIGSTOP)
    detecting.start()
    detecting.publish(second)
    wait_until("the successor", partial(_has_read, detecting, len(first)), 90)
    undead.send_signal(signal.SIGCONT)
    detecting.publish(third)
    detecting.check(undisturbed)


def test_only_the_last_owner_writes_a_state(engines: Any, pipeline: Pipeline) -> None:
    """Who opens a partition's state shuts out who had it: the broker refuses the older one's next
    write as a whole, and what was read in between stays the last word."""
    topic = topic_name(pipeline.namespace, DETECTOR_STATE)
    properties = kafka_properties(engines.kafka_bootstrap, {})
    older = FencedWriter(properties, f"{topic}-0", topic, 0)
    older.open()
    older.write([(b"a", b"older")])
    newer = FencedWriter(properties, f"{topic}-0", topic, 0)
    newer.open()
    assert read_to_end(properties, topic, 0) == [(b"a", b"older")]
    newer.write([(b"a", b"newer"), (b"b", b"newer")])
    with pytest.raises(Fatal, match="another worker has taken over"):
        older.write([(b"a", b"zombie"), (b"c", b"zombie")])
    assert read_to_end(properties, topic, 0)[1:] == [(b"a", b"newer"), (b"b", b"newer")]


def test_the_log_says_something() -> None:
    """The log of these tests is long enough to be disturbed."""
    assert len(LOG) > MESSAGES
