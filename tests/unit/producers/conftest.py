"""A recorder that publishes to memory, and what it published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sealed import make_keys, opened

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import OpenedFrame, decode_event, open_frame

MakeRecorder = Callable[..., Recorder]


class Published:
    """What a memory publisher got; `home` has the keys that open it."""

    def __init__(self, home: Path) -> None:
        self.publisher = MemoryPublisher()
        self.keys = make_keys(home)

    def frames(self) -> list[OpenedFrame]:
        """Every frame, heartbeats too."""
        return [open_frame(message) for _, message in self.publisher.messages]

    def events(self) -> list[dict[str, Any]]:
        """Every event, in order, its content opened."""
        keys = self.keys.read()
        return [
            opened(decode_event(data, frame.event_schema), frame.header.producer_id, keys)
            for frame in self.frames()
            for data in frame.events
        ]

    def as_sent(self) -> list[dict[str, Any]]:
        """Every event, in order, as it left."""
        return [decode_event(d, f.event_schema) for f in self.frames() for d in f.events]

    def sequences(self) -> list[int]:
        """The number of every event, in order."""
        return [f.header.first_sequence + i for f in self.frames() for i in range(f.header.count)]


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def make_recorder(tmp_path: Path, published: Published) -> Iterator[MakeRecorder]:
    """Makes recorders over the memory publisher; closes them in the end."""
    made: list[Recorder] = []

    def make(**settings: Any) -> Recorder:
        given = {"home": str(tmp_path), "linger_seconds": 0.0, **settings}
        recorder = Recorder(ProducerSettings(**given), lambda _: published.publisher)
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        recorder.close(0.2)
