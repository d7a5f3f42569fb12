"""Read a test's access topic back."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gatebook.schemas.codec import OpenedFrame, open_frame

ALL_SECONDS = 60.0


def create_topic(bootstrap: str, topic: str, config: dict[str, str] | None = None) -> None:
    """One partition, so that the order read is the order written."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    futures = admin.create_topics(
        [NewTopic(topic, num_partitions=1, replication_factor=1, config=config or {})]
    )
    futures[topic].result(30)


def read_frames(
    bootstrap: str, topic: str, enough: Callable[[list[OpenedFrame]], bool]
) -> list[OpenedFrame]:
    """Frames from the topic's start until there are enough. Fails where they do not come."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    frames: list[OpenedFrame] = []
    deadline = time.monotonic() + ALL_SECONDS
    try:
        while not enough(frames):
            assert time.monotonic() < deadline, f"{len(frames)} frames were not enough"
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                frames.append(open_frame(value))
        return frames
    finally:
        consumer.close()


def closed(frames: list[OpenedFrame]) -> bool:
    """Whether a producer said that it ended in good order."""
    return bool(frames) and frames[-1].header.state == "closed"


def sequences(frames: list[OpenedFrame]) -> list[int]:
    """The number of every event, in the order read."""
    return [
        frame.header.first_sequence + index
        for frame in frames
        for index in range(frame.header.count)
    ]
