"""Content leaves a producer in an envelope or not at all."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry
from tests.sealed import make_keys, opened
from tests.waiting import wait_until

from gatebook.producers import sealer as sealer_module
from gatebook.producers.config import ProducerSettings
from gatebook.producers.metrics import ProducerCollector
from gatebook.producers.recorder import Recorder
from gatebook.producers.sealer import FAILED, NO_KEY, Sealer
from gatebook.schemas import sealing
from gatebook.schemas.codec import decode_event, encode_event
from gatebook.schemas.keys import KeyFiles

MakeRecorder = Callable[..., Recorder]
WORDS = b"planted question"
CONTENT = b'{"input_messages":[{"role":"user","content":"planted question"}]}'
MODES = ["best_effort", "buffered", "strict"]


def event(number: int = 0, **more: Any) -> dict[str, Any]:
    """An access with content, as it reaches the sealer."""
    return {
        "timestamp": 1,
        "event": {"id": f"id-{number}", "kind": "event", "action": "chat"},
        "organization": {"id": "acme"},
        "gatebook": {"phase": "terminal", "capture": {"level": "redacted"}},
        "content": CONTENT,
        "content_encoding": "json",
        **more,
    }


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sealing:
    """A sealer with keys in a home, and what it made of events."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = ProducerSettings(home=str(home), producer_id="p1", **settings)
        self.clock = Clock()
        self.sealer = Sealer(self.settings, self.clock)
        self.files = KeyFiles.in_folder(home / "keys")

    def seal(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sealed, sent and received."""
        return decode_event(encode_event(self.sealer.seal(given or event())))

    def open(self, found: dict[str, Any]) -> bytes:
        content = opened(found, "p1", self.files.read())["content"]
        assert isinstance(content, bytes)
        return content

    def look_again(self) -> None:
        self.clock.now += sealer_module.LOOK_SECONDS


@pytest.fixture
def sealed(tmp_path: Path) -> Sealing:
    make_keys(tmp_path)
    return Sealing(tmp_path)


def key_of(found: dict[str, Any]) -> str:
    return sealing.name_of(sealing.key_id_in(sealing.head_of(found["content"])))


def data_key_of(found: dict[str, Any]) -> bytes:
    return sealing.head_of(found["content"])


def number_of(found: dict[str, Any]) -> int:
    return int.from_bytes(found["content"][89:93], "big")


# --- envelopes ---------------------------------------------------------------------------------


def test_content_goes_into_an_envelope(sealed: Sealing) -> None:
    """The event says so, and only the private key opens it."""
    found = sealed.seal()
    assert found["content_encoding"] == "sealed"
    assert WORDS not in found["content"]
    assert sealed.open(found) == CONTENT
    assert sealed.sealer.sealed == 1


@pytest.mark.parametrize("claimed", ["json", "", "sealed", "zip"])
def test_what_content_claims_to_be_does_not_matter(sealed: Sealing, claimed: str) -> None:
    """An event that says it is sealed already is sealed all the same."""
    found = sealed.seal(event(content_encoding=claimed))
    assert WORDS not in found["content"]
    assert sealed.open(found) == CONTENT


def test_an_event_without_tenant_or_level_is_sealed_too(sealed: Sealing) -> None:
    """Whoever emits content without saying its level has it sealed all the same."""
    found = sealed.seal(event(organization={}, gatebook={}))
    assert sealed.open(found) == CONTENT


def test_one_data_key_serves_a_period(sealed: Sealing) -> None:
    """Then there is another, and so on; each event has its own number."""
    first, second = sealed.seal(), sealed.seal()
    assert data_key_of(first) == data_key_of(second)
    assert (number_of(first), number_of(second)) == (0, 1)
    sealed.clock.now += sealed.settings.sealing_period_seconds
    third = sealed.seal()
    assert data_key_of(third) != data_key_of(first)
    assert [sealed.open(one) for one in (first, second, third)] == [CONTENT] * 3


def test_a_spent_data_key_is_replaced(sealed: Sealing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its numbers run out; no event goes without."""
    monkeypatch.setattr(sealing, "MAX_EVENTS_PER_DATA_KEY", 2)
    found = [sealed.seal() for _ in range(5)]
    assert [number_of(one) for one in found] == [0, 1, 0, 1, 0]
    assert len({data_key_of(one) for one in found}) == 3
    assert all(sealed.open(one) == CONTENT for one in found)


def test_a_clock_that_steps_back_repeats_no_nonce(sealed: Sealing) -> None:
    """Numbers go on, whatever the clock says."""
    found = []
    for step in (0.0, 5.0, -900.0, 1.0, -900.0):
        sealed.clock.now += step
        found.append(sealed.seal())
    assert len({(data_key_of(one), number_of(one)) for one in found}) == 5


def test_two_runs_share_no_data_key(sealed: Sealing, tmp_path: Path) -> None:
    """A restart begins with a key of its own, so its numbers may begin anew."""
    again = Sealing(tmp_path)
    one, two = sealed.seal(), again.seal()
    assert number_of(one) == number_of(two) == 0
    assert data_key_of(one) != data_key_of(two)


FORKING = """
import os, sys
from gatebook.producers.config import ProducerSettings
from gatebook.producers.sealer import Sealer
sealer = Sealer(ProducerSettings(home=sys.argv[1]))
event = {"event": {"id": "x"}, "content": b"text"}
sealer.seal(event)
if os.fork() == 0:
    os.write(1, sealer.seal(event)["content"].hex().encode() + b"\\n")
    os._exit(0)
os.wait()
os.write(1, sealer.seal(event)["content"].hex().encode() + b"\\n")
"""


def test_a_fork_shares_no_nonce(tmp_path: Path) -> None:
    """Parent and child go on from the same moment, each under a data key of its own."""
    make_keys(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    child, parent = (bytes.fromhex(line) for line in done.stdout.split())
    assert sealing.head_of(child) != sealing.head_of(parent)
    assert child[89:93] == bytes(4), "the child's first"


# --- keys that come, go and change -------------------------------------------------------------


def test_without_a_key_content_is_dropped_and_the_event_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why, the log says it once, and it ends by itself when a key is there."""
    sealed = Sealing(tmp_path)
    for number in range(3):
        found = sealed.seal(event(number))
        assert (found["content"], found["content_encoding"]) == (None, "")
        assert found["gatebook"]["capture"]["degraded_reason"] == NO_KEY
        assert found["gatebook"]["capture"]["truncated"] is True
        assert found["event"]["id"] == f"id-{number}"
        sealed.look_again()
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "sealing-public.json" in said[0]
    assert sealed.sealer.unsealed == {NO_KEY: 3}
    make_keys(tmp_path)
    sealed.look_again()
    assert sealed.open(sealed.seal()) == CONTENT


def test_a_rotation_needs_no_restart(sealed: Sealing) -> None:
    """The next look finds the new key; what was sealed before still opens."""
    before = sealed.seal()
    new = sealed.files.rotate()
    assert key_of(sealed.seal()) == key_of(before), "within the second"
    sealed.look_again()
    after = sealed.seal()
    assert key_of(after) == new.id
    assert sealed.open(before) == sealed.open(after) == CONTENT


@pytest.mark.parametrize("trouble", ["gone", "broken", "private"])
def test_a_public_file_that_cannot_be_used_changes_nothing(
    sealed: Sealing, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good key stays, which is said once; a private bundle is not taken, either."""
    before = sealed.seal()
    if trouble == "gone":
        sealed.files.public.unlink()
    elif trouble == "broken":
        sealed.files.public.write_text('{"format"')
    else:
        sealed.files.rotate()
        sealed.files.public.write_bytes(sealed.files.private.read_bytes())
    for _ in range(3):
        sealed.look_again()
        assert key_of(sealed.seal()) == key_of(before)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "the last good one stays" in said[0]


def test_when_the_last_key_is_destroyed_content_is_dropped(sealed: Sealing) -> None:
    """An empty bundle is an order, not an accident."""
    sealed.seal()
    sealed.files.destroy(sealed.files.read().keys[0].id)
    sealed.look_again()
    assert sealed.seal()["gatebook"]["capture"]["degraded_reason"] == NO_KEY


def test_without_the_library_content_is_dropped(
    sealed: Sealing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An event with content at level metadata, say, on a base install."""
    monkeypatch.setattr(sealer_module, "installed", lambda: False)
    assert sealed.seal()["gatebook"]["capture"]["degraded_reason"] == NO_KEY
    assert "pip install 'gatebook[sealing]'" in caplog.text


def test_sealing_fails_closed(sealed: Sealing, caplog: pytest.LogCaptureFixture) -> None:
    """Content that is no bytes cannot be sealed: it goes, and nothing of it is in the log."""
    found = sealed.seal(event(content="planted question"))
    assert (found["content"], found["gatebook"]["capture"]["degraded_reason"]) == (None, FAILED)
    assert sealed.sealer.unsealed == {FAILED: 1}
    assert "planted" not in caplog.text
    assert "TypeError" in caplog.text


# --- in a recorder -----------------------------------------------------------------------------


def files_below(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", MODES)
def test_neither_spool_nor_broker_sees_the_words(
    mode: str, make_recorder: MakeRecorder, published: Any, tmp_path: Path
) -> None:
    """While the broker is away and after; the spool's files are searched byte by byte."""
    recorder = make_recorder(delivery_mode=mode, capture_level="redacted")
    published.publisher.down = True
    for number in range(50):
        recorder.emit(event(number))
    wait_until("all are sealed", lambda: recorder.counters().sealed == 50)
    if mode != "best_effort":
        wait_until("all are spooled", lambda: recorder.counters().spooled == 50)
        assert b"acme" in files_below(tmp_path / "spool"), "the search looks at the right files"
    assert WORDS not in files_below(tmp_path)
    published.publisher.down = False
    assert recorder.close(30).complete
    assert WORDS not in b"".join(message for _, message in published.publisher.messages)
    assert [e["content"] for e in published.events()] == [CONTENT] * 50


def test_a_spool_that_another_process_sends_still_opens(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """The envelope is bound to the producer that sealed it, and its frames keep that name."""
    published.publisher.down = True
    first = make_recorder(capture_level="redacted", producer_id="first")
    first.emit(event())
    wait_until("it is spooled", lambda: first.counters().spooled == 1)
    assert not first.close(0.1).complete
    published.publisher.down = False
    second = make_recorder(producer_id="second")
    second.emit({"event": {"kind": "event"}})
    wait_until("both are there", lambda: len(published.events()) == 2)
    assert [e["content"] for e in published.events() if e["content"]] == [CONTENT]
    assert second.counters().recovered == 1


def test_the_counts_are_in_the_metrics(make_recorder: MakeRecorder, published: Any) -> None:
    """Sealed, and lost for want of a key."""
    recorder = make_recorder(capture_level="redacted")
    bare = make_recorder(capture_level="redacted", sealing_public_keys="env:GATEBOOK_NOT_SET")
    for one in (recorder, bare):
        one.emit(event())
        assert one.flush(10).complete
    collector, registry = ProducerCollector(), CollectorRegistry()
    collector.add(recorder)
    collector.add(bare)
    registry.register(collector)
    value = registry.get_sample_value
    assert value("gatebook_producer_events_sealed_total") == 1
    assert value("gatebook_producer_events_unsealed_total", {"reason": NO_KEY}) == 1
    assert sorted(e["content"] or b"" for e in published.events()) == [b"", CONTENT]


def test_an_envelope_that_does_not_fit_goes_like_any_content(
    make_recorder: MakeRecorder, published: Any
) -> None:
    """The event stays, and says so."""
    recorder = make_recorder(capture_level="redacted", frame_max_bytes=16 * 1024)
    recorder.emit(event(content=json.dumps({"input_messages": "word " * 5000}).encode()))
    assert recorder.flush(10).complete
    (found,) = published.events()
    assert found["content"] is None
    assert found["gatebook"]["capture"]["degraded_reason"] == "oversize"


def test_the_look_for_words_in_the_open_goes_red(tmp_path: Path) -> None:
    """Every test here that reads what was published looks at this as well."""
    keys = make_keys(tmp_path).read()
    with pytest.raises(AssertionError, match="in the open"):
        opened(decode_event(encode_event(event())), "p1", keys)
