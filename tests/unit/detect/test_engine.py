"""The engine's bounds: what it counts, what it ignores, what it forgets."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.detect.streams import NS, START_NS, access, small_engine

from gatebook.processors.detect.access import parse_time_ns
from gatebook.processors.detect.engine import CHECKPOINT_KEY, DetectionEngine
from gatebook.processors.detect.findings import MAX_DEDUP_KEY_CHARACTERS
from gatebook.processors.detect.registry import load_detector
from gatebook.schemas.codec import decode, encode
from gatebook.schemas.documents import timestamp_text


def failures(first: int, seconds: float, principal: str = "acme/eve", count: int = 3) -> list[Any]:
    return [access(first + n, seconds + n, principal, outcome="failure") for n in range(count)]


def test_a_finding_fits_its_schema() -> None:
    """What the engine returns can be written to finding.v2 and read back as it was."""
    (finding,) = small_engine().process(0, failures(1, 0))
    again = decode("finding.v2", encode("finding.v2", finding))
    for name, value in finding.items():
        assert again[name] == (value if not isinstance(value, dict) else again[name] | value)


def test_an_event_repeated_in_another_message_counts_once() -> None:
    """A producer's retry puts the same event on the topic twice; it is one failure."""
    engine = small_engine()
    two = failures(1, 0, count=2)
    assert engine.process(0, two) + engine.process(1, two) == []
    assert engine.counts.duplicate == 2
    assert len(engine.process(2, failures(9, 3, count=1))) == 1


def test_late_events_are_counted_and_ignored() -> None:
    """An event later than the limit allows changes nothing, but is seen in the counts."""
    engine = small_engine(allowed_lateness_seconds=60)
    engine.process(0, [access(1, 100, outcome="failure")])
    assert engine.process(1, failures(2, 30)) == []
    assert engine.counts.late == 3


def test_events_within_the_allowed_lateness_count() -> None:
    """An event that is late by less than the limit counts as if it had come in time."""
    engine = small_engine(allowed_lateness_seconds=60)
    engine.process(0, [access(1, 100, outcome="failure")])
    (finding,) = engine.process(1, failures(2, 50))
    assert finding["event"]["start"] == START_NS + 50 * NS


def test_lateness_is_judged_per_principal() -> None:
    """One principal far ahead does not make the others late."""
    engine = small_engine(allowed_lateness_seconds=60)
    engine.process(0, [access(1, 100_000, "acme/bob", outcome="failure")])
    assert len(engine.process(1, failures(2, 0, "acme/eve"))) == 1


def test_a_clock_far_ahead_counts_at_intakes_time() -> None:
    """A producer a day ahead neither escapes nor makes its principal's other events late."""
    engine = small_engine(max_clock_ahead_seconds=120)
    ahead = failures(1, 86_400, count=2)
    for document in ahead:
        document["event"]["ingested"] = timestamp_text(START_NS)
    assert engine.process(0, ahead) == []
    (finding,) = engine.process(1, failures(9, 1, count=1))
    assert engine.counts.clamped == 2
    assert finding["event"]["start"] == START_NS


def test_least_recently_seen_keys_are_forgotten() -> None:
    """Beyond the limit the principal that was quiet longest goes, with a tombstone."""
    engine = small_engine(max_keys_per_scope=2)
    for offset, who in enumerate(["a", "b", "a", "c"]):
        engine.process(offset, failures(10 * offset, offset, who, count=1))
        if offset == 2:
            engine.drain_state()
    assert engine.keys["principal"] == 2
    assert engine.counts.evicted == 1
    gone = [key for key, value in engine.drain_state() if value is None]
    assert gone == [b"2|principal|b"]


def test_a_storm_of_principals_stays_within_bounds() -> None:
    """Ten thousand principals, each seen once, leave no more than the limit in memory."""
    engine = small_engine(max_keys_per_scope=100)
    engine.process(0, [access(n, n / 100, f"p{n}", outcome="failure") for n in range(10_000)])
    assert engine.keys["principal"] == 100
    assert engine.counts.evicted == 9_900
    assert len(engine.drain_state()) == 101


def test_one_principal_cannot_grow_its_state_without_bound() -> None:
    """A flood of one principal leaves a state of some kilobytes."""
    engine = small_engine(remembered_ids_per_key=100)
    flood = [access(n, n / 100, outcome="failure", secrets={"jwt": 1}) for n in range(20_000)]
    engine.process(0, flood)
    assert sum(len(value or b"") for _, value in engine.drain_state()) < 20_000


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"event": {"id": "x"}},
        {"event": {"id": "x"}, "@timestamp": "yesterday"},
        {"event": {"id": "x"}, "@timestamp": 5},
        {"event": {"id": 5}, "@timestamp": "2026-01-05T09:00:00.000000000Z"},
        {"event": [], "@timestamp": "2026-01-05T09:00:00.000000000Z"},
        {"event": {"id": "x"}, "@timestamp": "2026-01-05T09:00:00.000000000Z", "user": "eve"},
        {"event": {"id": "x"}, "@timestamp": "2026-13-05T09:00:00.000000000Z"},
        {"gatebook": "x"},
    ],
)
def test_an_unreadable_document_is_passed_over(document: dict[str, Any]) -> None:
    """One document out of shape is counted; its neighbours in the message are not lost."""
    engine = small_engine()
    mixed = [*failures(1, 0, count=2), document, *failures(9, 2, count=1)]
    assert len(engine.process(0, mixed)) == 1
    assert engine.counts.unreadable == 1


def test_an_access_of_nobody_is_counted() -> None:
    """Without principal, user, key or address there is nobody to hold it against."""
    engine = small_engine()
    assert engine.process(0, failures(1, 0, principal="")) == []
    assert engine.counts.no_principal == 3


def test_a_principal_with_quotes_cannot_break_out_of_the_query() -> None:
    """Quotes and backslashes in a principal are escaped, control characters not shown."""
    evil = 'x" or *:* or "\\\n\x1b[2J\u202e'
    (finding,) = small_engine().process(0, failures(1, 0, evil))
    assert finding["gatebook"]["search"].startswith('gatebook.principal:"x\\" or *:* or \\"\\\\')
    assert finding["event"]["reason"].isprintable()
    assert finding["gatebook"]["principal"] == evil


def test_a_dedup_key_has_at_most_255_characters() -> None:
    """Long principals get a digest at the end, so that two of them stay apart."""
    engine = small_engine()
    found = engine.process(0, failures(1, 0, "x" * 400)) + engine.process(
        1, failures(9, 0, "x" * 401)
    )
    keys = {finding["gatebook"]["dedup_key"] for finding in found}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {MAX_DEDUP_KEY_CHARACTERS}


def test_an_unreadable_state_entry_costs_its_key_only() -> None:
    """Junk in the state topic is counted; other keys keep their state."""
    first = small_engine()
    first.process(0, failures(1, 0, "a", count=2) + failures(5, 0, "b", count=2))
    entries = dict(first.drain_state())
    entries[b"2|principal|a"] = b"\xff junk"
    second = small_engine()
    second.load(entries.items())
    found = second.process(1, failures(11, 2, "a", count=1) + failures(12, 2, "b", count=1))
    assert [finding["gatebook"]["principal"] for finding in found] == ["b"]
    assert second.counts.state_unreadable == 1


def test_state_of_an_older_version_is_dropped() -> None:
    """Entries of an older form get a tombstone; those of scopes served elsewhere are left."""
    engine = small_engine()
    engine.load([(b"failure_burst|0|a", b"x"), (b"2|elsewhere|a", b"x"), (b"odd", b"x")])
    drained = dict(engine.drain_state())
    assert set(drained) == {CHECKPOINT_KEY, b"failure_burst|0|a", b"odd"}
    assert engine.counts.state_foreign == 1


def test_state_of_a_deleted_topic_is_dropped() -> None:
    """A topic made anew starts at offset 0: state that is ahead of its end must not make every
    message pass for a replayed one."""
    first = small_engine()
    first.process(500, failures(1, 0, count=2))
    kept = first.drain_state()
    second = small_engine()
    second.load(kept, end_offset=1)
    assert len(second.process(0, failures(11, 0))) == 1
    assert second.counts.state_discarded == len(kept) - 1  # all but the checkpoint
    drained = second.drain_state()
    assert dict(drained)[b"2|principal|acme/eve"] is not None
    assert len(dict(drained)) == len(drained)


def test_nothing_to_say_is_an_empty_drain() -> None:
    """Draining twice gives nothing the second time, and nothing before the first event."""
    engine = small_engine()
    assert engine.drain_state() == []
    engine.process(0, failures(1, 0))
    assert engine.drain_state()[-1][0] == CHECKPOINT_KEY
    assert engine.drain_state() == []


def test_detectors_share_no_state_between_engines() -> None:
    """Two partitions run the same detectors; failures in one do not count in the other."""
    detectors = [load_detector("failure_burst", {"threshold": 3})]
    one, two = DetectionEngine(detectors), DetectionEngine(detectors)
    one.process(0, failures(1, 0, count=2))
    assert two.process(0, failures(11, 0, count=2)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T09:00:00.000000001Z", START_NS + 1),
        ("2026-01-05T09:00:00Z", START_NS),
        ("2026-01-05T09:00:00.5Z", START_NS + NS // 2),
        ("2026-01-05T10:30:00.000+01:30", START_NS),
        ("2026-01-05T07:30:00-0130", START_NS),
        ("2026-01-05T09:00:00.1234567891Z", START_NS + 123_456_789),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected: int) -> None:
    """Nine decimals as intake writes them, and what else ISO 8601 allows."""
    assert parse_time_ns(text) == expected


@pytest.mark.parametrize("text", ["", "2026-01-05", "2026-01-05T09:00:00", "2026-01-05T9:00:00Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """A time without zone or out of shape raises ValueError."""
    with pytest.raises(ValueError, match=r"timestamp|time data"):
        parse_time_ns(text)


def test_a_rule_that_fails_at_an_access_stops_nobody() -> None:
    """A rule may be wrong about one access: the worker goes on, counts it, and says where."""

    def broken(*_: Any) -> None:
        raise IndexError("a word of a prompt")

    engine = small_engine()
    for lane in engine._scopes["principal"]._lanes:  # as a user's own logic might be
        if lane.rule.id != "failure_burst":
            lane.apply = broken  # type: ignore[assignment,method-assign]
    (finding,) = engine.process(0, failures(1, 0))
    assert finding["rule"]["id"] == "failure_burst"
    assert engine.counts.failed > 0
    told = engine.take_failures()
    assert told
    assert all(text.startswith("IndexError at test_engine.py:") for text in told.values())
    assert engine.take_failures() == {}
