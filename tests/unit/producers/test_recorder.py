"""The recorder without a broker: what is counted, what is kept, what is told."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import NotDurable
from gatebook.producers.sender import recover_abandoned
from gatebook.producers.spool import abandoned_spools
from gatebook.schemas.errors import Fatal

SMALL = {"frame_max_bytes": 16 * 1024, "spool_max_bytes": 128 * 1024}


def event(number: int, size: int = 0) -> dict[str, Any]:
    return {"attributes": {"number": str(number)}, "content": b"x" * size or None}


def test_ids_ascend_and_stand_in_the_events(make_recorder: Any, published: Any) -> None:
    """`emit` returns the id under which the event is indexed."""
    recorder = make_recorder()
    ids = [recorder.emit(event(n)) for n in range(50)]
    assert recorder.flush(10).complete

    assert [e["event"]["id"] for e in published.events()] == ids == sorted(set(ids))
    assert all(e["event"]["created"] > 0 for e in published.events())
    assert ids[0][14] == "7"


def test_numbers_are_without_a_gap_over_many_threads(make_recorder: Any, published: Any) -> None:
    """Every event has a number of its own, and the epoch ends with a closed frame."""
    recorder = make_recorder()

    def emit() -> None:
        for n in range(300):
            recorder.emit(event(n))

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.close(10).complete

    assert published.sequences() == list(range(1200))
    last = published.frames()[-1].header
    assert (last.state, last.first_sequence, last.count) == ("closed", 1200, 0)
    counters = recorder.counters()
    assert (counters.emitted, counters.acknowledged, counters.on_the_way) == (1200, 1200, 0)


def test_frames_grow_with_the_load(make_recorder: Any, published: Any) -> None:
    """While one frame is under way the next one gathers."""
    recorder = make_recorder()
    published.publisher.down = True
    for n in range(400):
        recorder.emit(event(n))
    wait_until("the counters", lambda: recorder.counters().spooled == 400)
    published.publisher.down = False
    assert recorder.flush(10).complete

    assert max(f.header.count for f in published.frames()) > 100


BAD_EVENTS: list[Any] = [
    None,
    "text",
    {"event": None, "timestamp": "soon"},
    {"user": {"id": 5}},
    {"user": {"id": "\ud800"}},
    {"timestamp": 2**70},
]


@pytest.mark.parametrize("bad", BAD_EVENTS)
def test_an_event_that_does_not_fit_is_counted_and_its_neighbours_go_on(
    make_recorder: Any, published: Any, bad: Any
) -> None:
    """A programming error in a service costs that event, never its request."""
    recorder = make_recorder()
    recorder.emit(event(0))
    recorder.emit(bad)
    recorder.emit(event(1))
    assert recorder.close(10).complete

    assert [e["attributes"]["number"] for e in published.events()] == ["0", "1"]
    assert published.frames()[-1].header.losses == {"invalid_event": 1}


def test_an_event_above_the_limit_loses_its_content_and_not_itself(
    make_recorder: Any, published: Any
) -> None:
    """The access is recorded, and says that its content was too large."""
    recorder = make_recorder(capture_level="redacted", **SMALL)
    recorder.emit(event(0, size=40_000))
    recorder.emit({"attributes": {f"key{n}": "v" * 1000 for n in range(32)}})
    assert recorder.close(10).complete

    assert [e["content"] for e in published.events()] == [None, None]
    for found in published.events():
        assert found["gatebook"]["capture"]["degraded_reason"] == "oversize"


def test_an_event_that_cannot_be_made_small_is_counted(make_recorder: Any, published: Any) -> None:
    """Its loss is stated in the frames."""
    recorder = make_recorder(**SMALL)
    recorder.emit({"user": {"id": "u" * 40_000}})
    assert recorder.close(10).complete

    assert published.frames()[-1].header.losses == {"oversize": 1}


@pytest.mark.parametrize("mode", ["best_effort", "buffered", "strict"])
def test_what_is_emitted_is_acknowledged_or_counted_when_the_broker_is_away(
    make_recorder: Any, published: Any, mode: str
) -> None:
    """With everything full, the newest are refused; the sum is exact once the broker is back."""
    recorder = make_recorder(delivery_mode=mode, memory_buffer_max_bytes=70_000, **SMALL)
    published.publisher.down = True
    reason = "buffer_full" if mode == "best_effort" else "spool_full"

    def refused() -> bool:
        for n in range(10):
            recorder.emit(event(n, size=1000))
        return recorder.counters().dropped.get(reason, 0) > 20

    wait_until(f"drops for {reason}", refused)
    published.publisher.down = False
    assert recorder.close(20).complete

    counters = recorder.counters()
    dropped = sum(counters.dropped.values())
    assert counters.emitted == counters.acknowledged + dropped
    assert counters.acknowledged > 0
    assert len(published.events()) == counters.acknowledged
    assert published.sequences() == list(range(counters.acknowledged))
    assert published.frames()[-1].header.losses == counters.dropped


def test_close_in_time_leaves_the_rest_in_the_spool_for_the_next_process(
    make_recorder: Any, published: Any, tmp_path: Path
) -> None:
    """With a deadline too short for the broker, nothing spooled is lost, and the good end is said
    by who sends it."""
    recorder = make_recorder()
    published.publisher.down = True
    for n in range(20):
        recorder.emit(event(n))
    wait_until("all is spooled", lambda: recorder.counters().spooled == 20)
    report = recorder.close(0.5)
    assert not report.complete
    assert report.unacknowledged == 20

    later = MemoryPublisher()
    found = recover_abandoned(recorder.settings, later, 10)

    published.publisher = later
    assert (found.spools, found.events, found.left) == (1, 20, 0)
    assert published.sequences() == list(range(20))
    assert published.frames()[-1].header.state == "closed"
    assert abandoned_spools(recorder.settings.spool_path) == []


def test_a_second_close_is_harmless_and_late_events_are_counted(make_recorder: Any) -> None:
    """An event after the end is a counted drop, not an error."""
    recorder = make_recorder()
    recorder.emit(event(0))
    recorder.close(10)
    recorder.emit(event(1))
    recorder.close(10)

    assert recorder.counters().dropped == {"closed": 1}


def test_closing_an_unused_recorder_makes_nothing(make_recorder: Any, tmp_path: Path) -> None:
    """A process that imports the service but serves nothing leaves no spool."""
    make_recorder().close(1)

    assert not (tmp_path / "spool").exists() or not list((tmp_path / "spool").rglob("*.seg"))


def test_a_starting_recorder_sends_what_a_dead_one_left(make_recorder: Any, published: Any) -> None:
    """Under the dead producer's own epoch and numbers, beside the new one's."""
    first = make_recorder()
    published.publisher.down = True
    for n in range(5):
        first.emit(event(n))
    wait_until("all is spooled", lambda: first.counters().spooled == 5)
    first.close(0.3)
    published.publisher.down = False

    second = make_recorder()
    second.emit(event(5))
    wait_until("the counters", lambda: second.counters().recovered == 5)
    assert second.close(10).complete

    epochs = {f.header.epoch for f in published.frames()}
    assert len(epochs) == 2
    assert sorted(published.sequences()) == [0, 0, 1, 2, 3, 4]


def test_losses_of_a_dead_process_are_stated_by_who_adopts_its_spool(
    make_recorder: Any, published: Any
) -> None:
    """The count does not die with the process."""
    recorder = make_recorder()
    published.publisher.down = True
    recorder.emit(event(0))
    recorder.emit(None)
    wait_until("all is spooled", lambda: recorder.counters().spooled == 1)
    recorder.close(0.3)

    later = MemoryPublisher()
    recover_abandoned(recorder.settings, later, 10)

    published.publisher = later
    assert published.frames()[-1].header.losses == {"invalid_event": 1}


def test_a_heartbeat_says_the_next_number_when_there_is_nothing_to_say(
    make_recorder: Any, published: Any
) -> None:
    """Silence of a producer can be told from its death."""
    recorder = make_recorder(heartbeat_interval_seconds=0.05)
    recorder.emit(event(0))
    wait_until("the counters", lambda: len(published.frames()) > 4)

    beats = [f.header for f in published.frames() if f.header.count == 0]
    assert beats[-1].first_sequence == 1
    assert beats[-1].state == "open"


def test_a_broken_record_is_counted_and_its_neighbours_are_sent(
    make_recorder: Any, published: Any
) -> None:
    """A bit flipped on disk before the broker came back."""
    recorder = make_recorder()
    published.publisher.down = True
    recorder.start()
    for n in range(3):
        recorder.emit_durable(event(n))
    recorder.close(0.3)
    (path,) = recorder.settings.spool_path.rglob("*.seg")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)

    later = MemoryPublisher()
    found = recover_abandoned(recorder.settings, later, 10)

    published.publisher = later
    assert (found.events, found.lost) == (2, 1)
    assert published.sequences() == [0, 2]
    assert published.frames()[-1].header.losses == {"spool_corrupt": 1}


def failing(code: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_buffered_goes_on_in_memory_when_the_disk_refuses_and_returns_when_it_can(
    make_recorder: Any, published: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No event is lost, the weaker safety is counted, and the order holds."""
    recorder = make_recorder()
    recorder.emit_durable(event(0))
    published.publisher.down = True
    with monkeypatch.context() as patch:
        patch.setattr("gatebook.producers.spool.os.fdatasync", failing(code))
        for n in range(1, 10):
            recorder.emit(event(n))
        wait_until("the counters", lambda: recorder.counters().degraded == 9)
        assert recorder.counters().is_degraded

    def back() -> bool:
        recorder.emit(event(-1))  # the spool is tried again when there is something to keep
        return not recorder.counters().is_degraded

    wait_until("the file spool in use again", back)
    published.publisher.down = False
    assert recorder.close(10).complete

    assert published.sequences() == list(range(len(published.events())))
    assert published.frames()[-1].header.losses == {}


def test_a_spool_that_cannot_be_made_is_refused_at_the_start_in_strict_mode(
    make_recorder: Any, tmp_path: Path
) -> None:
    """With a next step, before the first request."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal, match="spool"):
        make_recorder(delivery_mode="strict", spool_dir=str(tmp_path / "file"))


def test_a_spool_that_cannot_be_made_is_a_degraded_start_in_buffered_mode(
    make_recorder: Any, published: Any, tmp_path: Path
) -> None:
    """The service runs; its events stand in memory only, and that is counted."""
    (tmp_path / "file").write_text("")
    recorder = make_recorder(spool_dir=str(tmp_path / "file"))
    recorder.emit(event(0))
    assert recorder.flush(10).complete

    assert recorder.counters().degraded == 1
    assert len(published.events()) == 1


def test_a_durable_event_is_on_disk_when_the_call_returns(
    make_recorder: Any, published: Any
) -> None:
    """Whatever the broker does."""
    recorder = make_recorder(delivery_mode="strict")
    published.publisher.down = True
    recorder.emit_durable(event(0), 10)

    assert recorder.counters().spooled == 1
    assert recorder.counters().acknowledged == 0


async def test_a_durable_event_can_be_awaited(make_recorder: Any, published: Any) -> None:
    """The event loop goes on meanwhile."""
    recorder = make_recorder(delivery_mode="strict")
    await asyncio.gather(*(recorder.emit_durable_async(event(n), 10) for n in range(20)))

    assert recorder.counters().spooled == 20


@pytest.mark.parametrize("mode", ["best_effort", "buffered", "strict"])
async def test_who_asks_for_durability_is_told_when_there_is_none(
    make_recorder: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Memory does not count as durable; both forms of the call say so at once."""
    recorder = make_recorder(delivery_mode=mode)
    recorder.start()
    monkeypatch.setattr("gatebook.producers.spool.os.fdatasync", failing(errno.ENOSPC))

    with pytest.raises(NotDurable):
        recorder.emit_durable(event(0), 10)
    with pytest.raises(NotDurable):
        await recorder.emit_durable_async(event(1), 10)


def test_metrics_are_the_counters(make_recorder: Any, published: Any) -> None:
    """A scrape shows what happened, with the reasons of drops."""
    from prometheus_client import CollectorRegistry

    from gatebook.producers.metrics import METRICS, ProducerCollector

    recorder = make_recorder()
    recorder.emit(event(0))
    recorder.emit(None)
    recorder.flush(10)
    collector, registry = ProducerCollector(), CollectorRegistry()
    collector.add(recorder)
    registry.register(collector)

    value = registry.get_sample_value
    assert value("gatebook_producer_events_emitted_total") == 2
    assert value("gatebook_producer_events_acknowledged_total") == 1
    assert value("gatebook_producer_events_dropped_total", {"reason": "invalid_event"}) == 1
    names = {metric.name for metric in collector.collect()}
    assert names == {d.name.removesuffix("_total") for d in METRICS}


def test_a_forked_child_is_a_producer_of_its_own(make_recorder: Any, published: Any) -> None:
    """It shares neither numbers nor events with its parent, whose spool stays locked."""
    recorder = make_recorder()
    published.publisher.down = True
    recorder.emit(event(0))
    wait_until("the counters", lambda: recorder.counters().spooled == 1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            recorder.emit_durable(event(1), 10)
            recorder.close(0.2)
            status = 0 if recorder.counters().emitted == 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    published.publisher.down = False
    assert recorder.close(10).complete
    assert published.sequences() == [0]

    later = MemoryPublisher()
    found = recover_abandoned(recorder.settings, later, 10)
    assert (found.spools, found.events) == (1, 1)
