"""The file spool against crashes and damage: what was fsynced and is intact is kept, in order."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatebook.producers.spool import (
    FileSpool,
    SpoolUnavailable,
    abandoned_spools,
    encode_record,
    scan_records,
)

MAX_BYTES = 64 * 1024  # segments of 8 KiB


def create(root: Path, max_bytes: int = MAX_BYTES) -> FileSpool:
    return FileSpool.create(root, "svc", 7, max_bytes)


def adopt(root: Path) -> FileSpool:
    spool = FileSpool.adopt(root / "svc" / "7", MAX_BYTES)
    assert spool is not None
    return spool


def drain(spool: FileSpool, max_events: int = 7) -> list[tuple[int, bytes]]:
    """Read and acknowledge everything."""
    out: list[tuple[int, bytes]] = []
    while not spool.drained:
        found = spool.peek(max_events, 4096)
        out += [(event.sequence, event.data) for event in found]
        if found:
            spool.acknowledge(found[-1].sequence + 1)
    return out


def segments(root: Path) -> list[Path]:
    return sorted((root / "svc" / "7").glob("*.seg"))


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


class SpoolMachine(RuleBasedStateMachine):
    """Appends, reads, crashes, torn tails and flipped bits in any order, against a plain list."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        import tempfile

        self.random = random.Random(seed)
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.spool = create(self.root)
        self.kept: dict[int, bytes] = {}  # unacknowledged and undamaged
        self.damaged: set[int] = set()
        self.next_sequence = 0

    @rule(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12))
    def append(self, sizes: list[int]) -> None:
        events = [self.random.randbytes(size) for size in sizes]
        if self.spool.pending_bytes + sum(sizes) + 22 * len(sizes) > MAX_BYTES:
            return
        self.spool.append(self.next_sequence, events)
        for event in events:
            self.kept[self.next_sequence] = event
            self.next_sequence += 1

    @rule(max_events=st.integers(1, 9), max_bytes=st.integers(1, 9000), part=st.floats(0, 1))
    def read(self, max_events: int, max_bytes: int, part: float) -> None:
        found = self.spool.peek(max_events, max_bytes)
        expected = sorted(self.kept)[: len(found)]
        assert [event.sequence for event in found] == expected
        assert all(self.kept[event.sequence] == event.data for event in found)
        assert found or not self.kept
        count = int(part * len(found))
        if count:
            self.spool.acknowledge(found[count - 1].sequence + 1)
            for event in found[:count]:
                del self.kept[event.sequence]

    @rule()
    def crash(self) -> None:
        self.spool.close()
        self.spool = adopt(self.root)

    @rule(part=st.floats(0.0, 0.999), size=st.integers(0, 3000))
    def crash_in_a_write(self, part: float, size: int) -> None:
        self.spool.close()
        if paths := segments(self.root):
            seed = int(paths[-1].stem.split("-")[2], 16)
            record = encode_record(self.next_sequence, self.random.randbytes(size), seed)
            with paths[-1].open("ab") as file:
                file.write(record[: int(part * len(record))])
        self.spool = adopt(self.root)

    @precondition(lambda self: len(self.kept) > 1)
    @rule(data=st.data(), crash=st.booleans())
    def damage(self, data: Any, crash: bool) -> None:
        # Not the newest: its damaged header cannot be told from a torn tail.
        candidates = [s for s in self.kept if s != max(self.kept)]
        sequence = data.draw(st.sampled_from(candidates))
        for path in segments(self.root):
            record = encode_record(sequence, self.kept[sequence], int(path.stem.split("-")[2], 16))
            at = path.read_bytes().find(record)
            if at >= 0:
                flip(path, at * 8 + data.draw(st.integers(0, len(record) * 8 - 1)))
        del self.kept[sequence]
        self.damaged.add(sequence)
        if crash:
            self.crash()

    @invariant()
    def it_is_drained_only_when_nothing_is_left(self) -> None:
        if hasattr(self, "spool"):
            assert not (self.spool.drained and self.kept)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert drain(self.spool) == sorted(self.kept.items())
            assert self.spool.corrupt_events <= len(self.damaged)
            self.spool.close()
            self.folder.cleanup()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


def test_a_torn_tail_is_cut_and_the_rest_kept(tmp_path: Path) -> None:
    """Whatever part of the last record was written, the records before it are read."""
    events = [b"a" * 50, b"b" * 50, b"c" * 50]
    create(tmp_path).append(0, events)
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    last = len(whole) // 3 * 2

    for length in range(last, len(whole)):
        found = scan_records(whole[:length], int(path.stem.split("-")[2], 16), 0)
        assert [event.data for event, _ in found.records] == events[:2]
        assert found.consumed == last


def test_each_flipped_bit_costs_one_event_and_is_counted(tmp_path: Path) -> None:
    """Damage in a header or a payload costs that event; its neighbours are sent, and the loss is
    known exactly."""
    spool = create(tmp_path)
    spool.append(0, [bytes([n]) * 20 for n in range(5)])
    spool.close()
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    record = len(whole) // 5

    for bit in range(2 * record * 8, 3 * record * 8, 7):
        path.write_bytes(whole)
        flip(path, bit)
        damaged = adopt(tmp_path)
        found = damaged.peek(100, 100_000) + (
            damaged.acknowledge(2) or damaged.peek(100, 100_000)  # type: ignore[func-returns-value]  # one expression
        )
        assert [event.sequence for event in found] == [0, 1, 3, 4]
        assert damaged.corrupt_events == 1
        damaged.acknowledge(0)  # the cursor for the next round
        damaged.close()


def test_damage_that_is_met_in_other_portions_is_counted_once(tmp_path: Path) -> None:
    """A first look that reaches further than a later one does not count the same loss again."""
    spool = create(tmp_path)
    spool.append(0, [bytes(size) for size in (0, 1429, 0, 2734, 0)])
    (path,) = segments(tmp_path)
    for at in (0, 22 + 22, 22 + 22 + 1429):  # header of 0, payload of 1, header of 2
        flip(path, at * 8)

    assert [event.sequence for event in spool.peek(1, 1)] == [3]
    assert [sequence for sequence, _ in drain(spool)] == [3, 4]
    assert spool.corrupt_events == 3


def test_a_segment_that_is_damaged_throughout_is_counted(tmp_path: Path) -> None:
    """Its events are known by the number of the segment that follows."""
    spool = create(tmp_path)
    spool.append(0, [b"x" * 9000])  # fills a segment
    spool.append(1, [b"1"])
    spool.close()
    flip(segments(tmp_path)[0], 0)

    adopted = adopt(tmp_path)
    assert drain(adopted) == [(1, b"1")]
    assert adopted.corrupt_events == 1


def test_a_payload_that_looks_like_records_is_never_read_as_one(tmp_path: Path) -> None:
    """A caller who knows the format cannot plant events: the checksums start from a secret seed."""
    planted = b"".join(encode_record(n, b"planted", 0) for n in range(1, 50))
    spool = create(tmp_path)
    spool.append(0, [planted, b"after"])
    spool.close()
    (path,) = segments(tmp_path)
    flip(path, 0)  # the header of the record that holds the planted ones

    assert drain(adopt(tmp_path)) == [(1, b"after")]


def test_nobody_adopts_the_spool_of_a_living_owner(tmp_path: Path) -> None:
    """The lock is held from the moment the folder can be seen."""
    spool = create(tmp_path)
    (directory,) = abandoned_spools(tmp_path)

    assert FileSpool.adopt(directory, MAX_BYTES) is None
    spool.close()
    assert FileSpool.adopt(directory, MAX_BYTES) is not None


def test_cursor_and_losses_survive(tmp_path: Path) -> None:
    """A recovery goes on behind what was acknowledged, and can state the losses."""
    spool = create(tmp_path)
    spool.append(0, [b"0", b"1", b"2"])
    spool.acknowledge(2)
    spool.note({"buffer_full": 3}, closed=True)
    spool.close()

    adopted = adopt(tmp_path)
    assert adopted.state.losses == {"buffer_full": 3}
    assert adopted.state.closed is True
    assert drain(adopted) == [(2, b"2")]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_state_slot_costs_at_most_a_repetition(tmp_path: Path, slot: int) -> None:
    """With one of the two slots lost, the other one still gives an earlier or the same cursor."""
    spool = create(tmp_path)
    spool.append(0, [b"0", b"1", b"2"])
    spool.acknowledge(1)
    spool.acknowledge(2)
    spool.close()
    flip(tmp_path / "svc" / "7" / "state", (slot * 4096 + 10) * 8)

    assert drain(adopt(tmp_path))[-1] == (2, b"2")


FAULTS = [errno.ENOSPC, errno.EROFS, errno.EIO]


@pytest.mark.parametrize("code", FAULTS)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "open"])
def test_a_write_that_failed_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """The error says what is wrong; the numbers are free again; later events follow."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    spool = create(tmp_path)
    if call != "open":
        spool.append(0, [b"0"])
    first = spool.next_sequence
    with monkeypatch.context() as patch:
        patch.setattr(f"gatebook.producers.spool.os.{call}", fail)
        with pytest.raises(SpoolUnavailable, match=os.strerror(code)):
            spool.append(first, [b"lost"])

    spool.append(first, [b"kept"])
    spool.close()
    assert drain(adopt(tmp_path))[-1] == (first, b"kept")


def test_a_write_that_failed_but_reached_the_disk_is_not_read_beside_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync failed, the bytes are there all the same, and cutting them back fails as well: the
    events that got the numbers afterwards count."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "x")

    spool = create(tmp_path)
    spool.append(0, [b"0"])
    with monkeypatch.context() as patch:
        patch.setattr("gatebook.producers.spool.os.fdatasync", fail)
        patch.setattr("gatebook.producers.spool.os.ftruncate", fail)
        with pytest.raises(SpoolUnavailable):
            spool.append(1, [b"reported as failed", b"this too"])
    spool.append(1, [b"1"])
    spool.close()

    assert drain(adopt(tmp_path)) == [(0, b"0"), (1, b"1")]


def test_files_are_private(tmp_path: Path) -> None:
    """A spool may hold content: only its owner may read it."""
    spool = create(tmp_path)
    spool.append(0, [b"0"])

    assert spool.directory.stat().st_mode & 0o077 == 0
    for path in spool.directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_drained_spool_is_deleted(tmp_path: Path) -> None:
    """Nothing of it stays."""
    spool = create(tmp_path)
    spool.append(0, [b"0"])
    drain(spool)
    spool.remove()

    assert abandoned_spools(tmp_path) == []


def test_an_acknowledgement_while_a_segment_ends_costs_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The courier may acknowledge the last event just when the writer begins a new segment."""
    spool = create(tmp_path)
    spool.append(0, [b"x" * 8192])  # as large as a segment may be
    fstat = os.fstat

    def acknowledged_meanwhile(fd: int) -> os.stat_result:
        spool.acknowledge(1)
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", acknowledged_meanwhile)
    spool.append(1, [b"next"])
    monkeypatch.undo()
    assert [event.data for event in spool.peek(9, 1 << 20)] == [b"next"]
    spool.close()
