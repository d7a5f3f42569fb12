"""Intake opens envelopes, remembers data keys, follows its keys, and refuses with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.sealed import make_keys

from gatebook.processors import opening
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, IntakeResult, Source, process_frame
from gatebook.processors.opening import ContentOpener
from gatebook.processors.redact import Redactor
from gatebook.schemas import sealing
from gatebook.schemas.codec import FrameHeader, build_frame, encode_event
from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import FileSource, KeyFiles, KeysUnavailable
from gatebook.schemas.sealing import DataKey, SealedFailed, associated_data

CONTENT = b'{"input_messages":"planted question"}'


def event(event_id: str = "id-0") -> dict[str, Any]:
    return {
        "event": {"id": event_id},
        "organization": {"id": "acme"},
        "gatebook": {"capture": {"level": "redacted"}},
    }


class Counted:
    """A file source that counts its reads."""

    def __init__(self, path: Path) -> None:
        self._inner = FileSource(path)
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        return self._inner.read()

    def version(self) -> Any:
        return self._inner.version()


class Intake:
    """Keys in a home, an opener with them, and data keys sealed for them."""

    def __init__(self, home: Path, max_data_keys: int = 8) -> None:
        self.files = make_keys(home)
        self.source = Counted(self.files.private)
        self.opener = ContentOpener(self.source, max_data_keys)
        self.opener.start(must_exist=True)

    def data_key(self) -> DataKey:
        newest = self.files.read().newest
        assert newest is not None
        return DataKey(newest.public_bytes)

    def envelope(self, data_key: DataKey | None = None, event_id: str = "id-0") -> bytes:
        bound = associated_data(event_id, "p1", "acme", "redacted")
        return (data_key or self.data_key()).seal(CONTENT, bound)

    def open(self, envelope: bytes, event_id: str = "id-0", producer_id: str = "p1") -> bytes:
        return self.opener.open(envelope, event(event_id), producer_id)

    def refused(self, envelope: bytes, **more: str) -> SealedFailed:
        with pytest.raises(SealedFailed) as caught:
            self.open(envelope, **more)
        return caught.value


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)


@pytest.fixture
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The heads that cost an X25519, in order."""
    heads: list[bytes] = []
    real = sealing.unwrap

    def unwrap(head: bytes, private: Any) -> Any:
        heads.append(head)
        return real(head, private)

    monkeypatch.setattr(opening, "unwrap", unwrap)
    return heads


def test_a_data_key_is_unwrapped_once(intake: Intake, unwrapped: list[bytes]) -> None:
    """However many events were sealed under it."""
    data_key = intake.data_key()
    for number in range(50):
        assert intake.open(intake.envelope(data_key, f"id-{number}"), f"id-{number}") == CONTENT
    assert len(unwrapped) == 1
    assert intake.source.reads == 1


def test_the_data_keys_not_used_for_longest_are_forgotten(
    tmp_path: Path, unwrapped: list[bytes]
) -> None:
    """Memory is bounded; a forgotten one is unwrapped anew."""
    intake = Intake(tmp_path, max_data_keys=3)
    often = intake.data_key()
    for _ in range(10):
        intake.open(intake.envelope(often))
        intake.open(intake.envelope())
    assert len(unwrapped) == 11, "the one in use stays"
    others = [intake.envelope() for _ in range(3)]
    for envelope in others:
        intake.open(envelope)
    intake.open(intake.envelope(often))
    assert len(unwrapped) == 15


def test_a_hostile_data_key_costs_little(
    intake: Intake, unwrapped: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once, crowds out no good one, and what is remembered of it is bounded."""
    monkeypatch.setattr(opening, "MAX_REFUSED", 4)
    good = intake.data_key()
    intake.open(intake.envelope(good))
    head, body = intake.envelope()[:41], bytes(48 + 12 + 60)
    for _ in range(20):
        assert intake.refused(head + body).reason == sealing.FORGED
    assert len(unwrapped) == 2
    for number in range(1, 51):
        intake.refused(head + number.to_bytes(4, "big") + body)
    intake.open(intake.envelope(good))
    assert len(unwrapped) == 52
    assert len(intake.opener._refused) == 4


def test_a_key_made_since_is_found_at_once(intake: Intake) -> None:
    """A producer may hear of a rotation before intake looks: no event pays for that."""
    old = intake.envelope()
    intake.files.rotate()
    assert intake.open(intake.envelope()) == CONTENT
    assert intake.open(old) == CONTENT


def test_a_destroyed_key_is_forgotten(intake: Intake, unwrapped: list[bytes]) -> None:
    """With the data keys it gave: from the next look on nothing opens, and the reason says why."""
    data_key, first = intake.data_key(), intake.files.read().keys[0]
    intake.open(intake.envelope(data_key))
    intake.files.rotate()
    intake.files.destroy(first.id)
    intake.opener.refresh()
    refused = intake.refused(intake.envelope(data_key))
    assert (refused.reason, refused.key_id) == (sealing.KEY_DESTROYED, first.id)
    assert len(unwrapped) == 1


def test_a_key_nobody_has_is_lost(intake: Intake, tmp_path: Path) -> None:
    """The envelope names it; the file is not read for every such event."""
    other = Intake(tmp_path / "other")
    for _ in range(20):
        refused = intake.refused(other.envelope())
        assert (refused.reason, refused.key_id) == (
            sealing.KEY_LOST,
            other.files.read().keys[0].id,
        )
    assert intake.source.reads == 1


def test_without_keys_nothing_opens(intake: Intake) -> None:
    """The reason is the same as for a lost key."""
    with pytest.raises(SealedFailed) as caught:
        ContentOpener().open(intake.envelope(), event(), "p1")
    assert caught.value.reason == sealing.KEY_LOST


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda e: b"", sealing.UNDECODABLE),
        (lambda e: e[:100], sealing.UNDECODABLE),
        (lambda e: b"\x07" + e[1:], sealing.UNDECODABLE),
        (lambda e: b'{"input_messages":"in the open"}' * 10, sealing.UNDECODABLE),
        (lambda e: e[:-1] + bytes([e[-1] ^ 1]), sealing.FORGED),
        (lambda e: e[:50] + bytes([e[50] ^ 1]) + e[51:], sealing.FORGED),
        (lambda e: e[:1] + bytes(8) + e[9:], sealing.KEY_LOST),
    ],
)
def test_a_spoilt_envelope_has_a_reason(
    intake: Intake, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    """And no more than that."""
    assert intake.refused(spoil(intake.envelope())).reason == reason


def test_an_envelope_of_another_event_is_refused(intake: Intake) -> None:
    """Or of another producer; the right one still opens."""
    envelope = intake.envelope()
    assert intake.refused(envelope, event_id="id-1").reason == sealing.FORGED
    assert intake.refused(envelope, producer_id="p2").reason == sealing.FORGED
    assert intake.open(envelope) == CONTENT


def test_keys_that_cannot_be_read_any_more_stay(
    intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken or missing file costs a running worker nothing; it is said once."""
    envelope = intake.envelope()
    intake.files.private.write_text("{")
    for _ in range(3):
        intake.opener.refresh()
    assert intake.open(envelope) == CONTENT
    assert [r.levelno for r in caplog.records].count(logging.ERROR) == 1
    intake.files.private.unlink()
    intake.opener.refresh()
    assert intake.open(envelope) == CONTENT


def test_a_worker_does_not_start_without_the_keys_it_was_told_of(tmp_path: Path) -> None:
    """It would lose the content of all that it reads. Without being told, it may."""
    source = FileSource(tmp_path / "absent.json")
    with pytest.raises(Fatal, match="cannot be read"):
        ContentOpener(source).start(must_exist=True)
    ContentOpener(source).start(must_exist=False)
    (tmp_path / "absent.json").write_text("{")
    with pytest.raises(Fatal, match="is not a bundle"):
        ContentOpener(source).start(must_exist=False)


def test_keys_that_come_later_are_taken(tmp_path: Path) -> None:
    """A worker that started without finds them."""
    files = KeyFiles.in_folder(tmp_path / "keys")
    opener = ContentOpener(FileSource(files.private))
    opener.start(must_exist=False)
    intake = Intake(tmp_path)
    assert opener.open(intake.envelope(), event(), "p1") == CONTENT


def test_readable_private_keys_are_complained_of(
    intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is refused for it: orchestrators mount secrets that way."""
    source = FileSource(intake.files.private)
    ContentOpener(source).start(must_exist=True)
    assert "can be read by others" not in caplog.text
    intake.files.private.chmod(0o644)
    ContentOpener(source).start(must_exist=True)
    assert f"can be read by others (mode 0644): chmod 600 {intake.files.private}" in caplog.text


def test_a_source_that_fails_is_asked_again(intake: Intake) -> None:
    """A KMS that was away at one look is there at the next."""

    class Flaky:
        away = True

        def read(self) -> bytes:
            if self.away:
                raise KeysUnavailable("away")
            return intake.files.private.read_bytes()

        def version(self) -> str:
            return "1"

    source = Flaky()
    opener = ContentOpener(source)
    envelope = intake.envelope()
    opener.refresh()
    with pytest.raises(KeysUnavailable):  # not lost: it may be among those that cannot be read
        opener.open(envelope, event(), "p1")
    source.away = False
    assert opener.open(envelope, event(), "p1") == CONTENT


# --- in a frame --------------------------------------------------------------------------------

NOW = 1_760_000_000 * 10**9


def frame(contents: list[bytes]) -> bytes:
    times = {"kind": "event", "action": "chat", "end": NOW}
    events = [
        {
            **event(f"id-{number}"),
            "timestamp": NOW,
            "event": {"id": f"id-{number}", **times},
            "content": content,
            "content_encoding": "sealed",
        }
        for number, content in enumerate(contents)
    ]
    return build_frame(
        FrameHeader("p1", 1, 0, len(events), NOW), [encode_event(one) for one in events]
    )


def processed(message: bytes, opener: ContentOpener) -> IntakeResult:
    redactor = Redactor.default(b"a key for tests only")
    context = IntakeContext(Catalog(), redactor, partitions=1, opener=opener)
    return process_frame(message, Source("access.v1", 0, 0), context, NOW)


def test_an_event_whose_content_does_not_open_goes_on(intake: Intake) -> None:
    """It says why, and is counted; its neighbours have theirs."""
    good = intake.envelope(event_id="id-0")
    lost = good[:1] + bytes(8) + good[9:]
    result = processed(frame([good, lost, b"junk"]), intake.opener)
    assert result.dead_letters == []
    assert result.sealed_failures == [sealing.KEY_LOST, sealing.UNDECODABLE]
    documents = [orjson.loads(document.body) for document in result.documents]
    assert documents[0]["gen_ai"]["input"]["messages"] == "planted question"
    assert [d["gatebook"].get("sealed") for d in documents] == [
        None,
        {"failed": sealing.KEY_LOST, "key_id": "00" * 8},
        {"failed": sealing.UNDECODABLE},
    ]


def test_a_frame_waits_for_keys_that_cannot_be_read(intake: Intake) -> None:
    """Nothing of it is decided meanwhile: it is no dead letter, and its content is not lost."""
    intake.files.rotate()
    whole, message = intake.files.private.read_bytes(), frame([intake.envelope()])
    intake.files.private.write_text("{")
    with pytest.raises(KeysUnavailable):
        processed(message, intake.opener)
    intake.files.private.write_bytes(whole)
    assert processed(message, intake.opener).sealed_failures == []
