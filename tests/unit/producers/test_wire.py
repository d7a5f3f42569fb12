"""The wire format a producer writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.producers.sender import FrameSender
from gatebook.schemas.confluent import URL_VARIABLE
from gatebook.schemas.errors import Fatal, RegistryUnavailable
from gatebook.schemas.registry import PackagedSchema
from gatebook.schemas.wire import CONFLUENT_MARKER, SINGLE_OBJECT_MARKER

MakeRecorder = Callable[..., Recorder]


class MoodyWire:
    """A registry that can be away."""

    def __init__(self) -> None:
        self.away = True

    def prefix(self, schema_name: str) -> bytes:
        if self.away:
            raise RegistryUnavailable("the schema registry cannot be asked")
        return CONFLUENT_MARKER + b"\0\0\0\7"

    def identify(self, message: bytes) -> tuple[PackagedSchema, int]:
        raise AssertionError("a producer reads nothing")


def test_a_registry_that_is_away_is_waited_for(
    make_recorder: MakeRecorder, published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is taken and spooled meanwhile, and sent once the registry answers."""
    wire = MoodyWire()
    monkeypatch.setattr("gatebook.producers.sender.wire_from_env", lambda _: wire)
    recorder = make_recorder(delivery_mode="buffered")
    recorder.emit_durable({"event": {"kind": "event"}})
    assert not recorder.flush(0.3).complete
    assert published.publisher.messages == []
    wire.away = False
    assert recorder.flush(30).complete
    assert recorder.counters().dropped == {}
    (first, *_) = [message for _, message in published.publisher.messages]
    assert first.startswith(CONFLUENT_MARKER + b"\0\0\0\7")


class RefusingWire(MoodyWire):
    """A registry that does not take our schema."""

    asked = 0

    def prefix(self, schema_name: str) -> bytes:
        self.asked += 1
        raise Fatal("the schema registry refuses frame.v1", "compare the subject's versions")


def test_a_schema_that_is_refused_is_said_once_and_events_stay_spooled(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator has to act; the log says so without filling up."""
    wire = RefusingWire()
    monkeypatch.setattr("gatebook.producers.sender.wire_from_env", lambda _: wire)
    recorder = make_recorder()
    recorder.emit_durable({"event": {"kind": "event"}})
    wait_until("it is tried again", lambda: wire.asked >= 3)
    said = [r.getMessage() for r in caplog.records if "refuses frame.v1" in r.getMessage()]
    assert said == ["the schema registry refuses frame.v1; compare the subject's versions"]
    assert recorder.counters().dropped == {}


def test_without_a_registry_frames_carry_their_fingerprint(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """The default needs no registry."""
    recorder = make_recorder()
    recorder.emit({"event": {"kind": "event"}})
    wait_until("a frame", lambda: published.publisher.messages)
    assert published.publisher.messages[0][1].startswith(SINGLE_OBJECT_MARKER)


def test_an_address_that_is_none_is_refused_at_the_start(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a log line after the first event."""
    monkeypatch.setenv(URL_VARIABLE, "registry.example.org")
    with pytest.raises(Fatal, match=URL_VARIABLE):
        make_recorder()
    with pytest.raises(Fatal, match=URL_VARIABLE):
        FrameSender(ProducerSettings(), MemoryPublisher())
