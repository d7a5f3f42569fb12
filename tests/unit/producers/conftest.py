"""A recorder that publishes to memory, and what it published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import OpenedFrame, decode_event, open_frame

MakeRecorder = Callable[..., Recorder]


class Published:
    """What a memory publisher got."""

    def __init__(self) -> None:
        self.publisher = MemoryPublisher()

    def frames(self) -> list[OpenedFrame]:
        """Every frame, heartbeats too."""
        return [open_frame(message) for _, message in self.publisher.messages]

    def events(self) -> list[dict[str, Any]]:
        """Every event, in order."""
        return [decode_event(data) for frame in self.frames() for data in frame.events]

    def sequences(self) -> list[int]:
        """The number of every event, in order."""
        return [f.header.first_sequence + i for f in self.frames() for i in range(f.header.count)]


@pytest.fixture
def published() -> Published:
    return Published()


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
