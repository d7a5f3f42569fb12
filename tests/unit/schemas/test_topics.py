"""Topics as data: each has a schema, an owner, and settings a broker takes."""

from __future__ import annotations

import pytest

from gatebook.schemas import topics
from gatebook.schemas.registry import WIRE_SCHEMAS
from gatebook.schemas.topics import Topic, all_topics, topic_name

CONSTANTS = {
    topics.ACCESS,
    topics.EVENT,
    topics.FINDING,
    topics.ALERT,
    topics.DEAD_LETTER,
    topics.DETECTOR_STATE,
    topics.NOTIFY_STATE,
    topics.OBSERVATION,
    topics.OBSERVATION_STATE,
}


def test_every_topic_has_its_constant() -> None:
    """Code names topics by constants; the file and the constants know the same ones."""
    assert set(all_topics()) == CONSTANTS


@pytest.mark.parametrize("topic", all_topics().values(), ids=lambda topic: topic.key)
def test_a_topic_is_described_in_full(topic: Topic) -> None:
    """An operator reads who writes it, what it holds and how long."""
    assert topic.owner
    assert topic.key
    assert topic.doc.endswith(".")
    assert topic.partitions > 0
    assert topic.cleanup_policy in ("delete", "compact")
    assert (topic.retention_hours > 0) is (topic.cleanup_policy == "delete")
    assert topic.schema in ("", *WIRE_SCHEMAS)


def test_only_state_has_no_schema() -> None:
    """Every topic other parties may read is described by a schema; no schema is on two topics."""
    schemas = [topic.schema for topic in all_topics().values() if topic.schema]
    assert len(schemas) == len(set(schemas))
    assert [key for key, topic in all_topics().items() if not topic.schema] == [
        "observation.v1",
        "observation-state.v1",
        "detector-state.v1",
        "notify-state.v1",
    ]


def test_state_is_partitioned_like_the_events_it_is_about() -> None:
    """A detector finds its state in the partition of the same number."""
    found = all_topics()
    assert found[topics.DETECTOR_STATE].partitions == found[topics.EVENT].partitions
    assert found[topics.OBSERVATION_STATE].partitions == found[topics.OBSERVATION].partitions
    assert found[topics.NOTIFY_STATE].partitions == found[topics.FINDING].partitions


def test_names_carry_the_namespace() -> None:
    """Two installations share a broker without meeting."""
    assert topic_name("ops", topics.ACCESS) == "ops.access.v1"
    with pytest.raises(KeyError):
        topic_name("ops", "unheard.v1")
