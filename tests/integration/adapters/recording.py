"""A recorder over memory, for adapters in front of real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.sealed import make_keys, opened

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event, open_frame

FLUSH_SECONDS = 10


class Recording:
    """`recorder` to give to an adapter, and the terminal events that came of it, opened."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self._publisher = MemoryPublisher()
        self._keys = make_keys(home).read()
        given = {"home": str(home), "linger_seconds": 0.0, **settings}
        self.recorder = Recorder(ProducerSettings(**given), lambda _: self._publisher)

    def events(self) -> list[dict[str, Any]]:
        """Closes the recorder."""
        assert self.recorder.close(FLUSH_SECONDS).complete
        frames = [open_frame(message) for _, message in self._publisher.messages]
        events = [
            opened(decode_event(data), frame.header.producer_id, self._keys)
            for frame in frames
            for data in frame.events
        ]
        return [e for e in events if e["gatebook"]["phase"] == "terminal"]

    def only_event(self) -> dict[str, Any]:
        """The one event."""
        (event,) = self.events()
        return event
