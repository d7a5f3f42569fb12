"""The Kafka topics, read from topics.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

ACCESS = "access.v1"
EVENT = "event.v1"
FINDING = "finding.v1"
ALERT = "alert.v1"
DEAD_LETTER = "deadletter.v1"
DETECTOR_STATE = "detector-state.v1"
OBSERVATION = "observation.v1"
OBSERVATION_STATE = "observation-state.v1"
NOTIFY_STATE = "notify-state.v1"

# Kafka header of a raw frame: how many events it stands for, readable without Avro.
COUNT_HEADER = "gatebook-count"


@dataclass(frozen=True)
class Topic:
    """One topic as `gatebook setup` creates it. `retention_hours` 0 means: kept by compaction."""

    key: str
    schema: str
    owner: str
    partitions: int
    retention_hours: int
    cleanup_policy: str
    doc: str
    timestamps: str = "producer"
    """Whose clock the messages carry: producer or broker."""


@cache
def all_topics() -> dict[str, Topic]:
    """Every topic by its key, for example `access.v1`."""
    text = (resources.files("gatebook.schemas") / "topics.toml").read_text(encoding="utf-8")
    return {
        key: Topic(
            key=key,
            schema=row["schema"],
            owner=row["owner"],
            partitions=row["partitions"],
            retention_hours=row["retention_hours"],
            cleanup_policy=row["cleanup_policy"],
            doc=row["doc"],
            timestamps=row.get("timestamps", "producer"),
        )
        for key, row in tomllib.loads(text).items()
    }


def topic_name(namespace: str, key: str) -> str:
    """The real name of a topic. Raises KeyError for a key that topics.toml does not have."""
    return f"{namespace}.{all_topics()[key].key}"
