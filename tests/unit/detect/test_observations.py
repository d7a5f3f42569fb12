"""Keys whose accesses come from several partitions are counted whole, whatever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults.detecting import (
    NS,
    PARTITIONS,
    RULES,
    Message,
    gathered_as_it_should,
    written,
)
from tests.unit.detect.rules import by, rule
from tests.unit.detect.streams import access

from gatebook.processors.detect.access import read_access
from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.observations import (
    Outbox,
    Router,
    Source,
    frame_access,
    pack_frame,
    unpack_message,
)
from gatebook.processors.detect.registry import load_detector
from gatebook.schemas.codec import decode

NOW_NS = 1_790_000_000 * NS
SCOPES_ELSEWHERE = {"key", "frames"}
GATHERED = 1


@pytest.fixture(scope="module")
def shared_key(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """The rule of the fault tests: one key, many users."""
    root = tmp_path_factory.mktemp("rules")
    (name,) = RULES
    (root / name).mkdir()
    (root / name / "rule.toml").write_text(RULES[name])
    (root / name / "runbook.md").write_text("Look.")
    return load_detector(name, None, root)


class Sources:
    """Workers that read the event topic, each its partition, in the order a test says."""

    def __init__(self, detector: Detector, log: Sequence[Message]) -> None:
        self.waiting = {p: [body for q, body in log if q == p] for p in range(PARTITIONS)}
        self.now_ns = NOW_NS
        self._router = Router([detector], GATHERED)
        self._outbox = Outbox(GATHERED)
        self._reader = DetectionEngine([detector])
        self._event_ns = dict.fromkeys(self.waiting, -1)

    def send(self, partition: int) -> list[bytes]:
        """What the worker of a partition passes on of its next message."""
        body = self.waiting[partition].pop(0)
        rows = decode("document_frame.v1", body)["documents"]
        for one in self._reader.read(orjson.loads(row["body"]) for row in rows):
            assert one is not None
            self._event_ns[partition] = max(self._event_ns[partition], one.timestamp_ns)
            self._outbox.add(self._router.route(one))
        self.now_ns += NS // 1000
        source = Source("event", partition, self.now_ns, self._event_ns[partition], self.now_ns)
        return [message for _, message in self._outbox.take([source])]

    def end(self) -> list[Source]:
        """All partitions are idle, long after."""
        return [
            Source("event", p, self.now_ns + 10**6 * NS, ns, self.now_ns)
            for p, ns in self._event_ns.items()
        ]


def gather(
    detector: Detector, log: Sequence[Message], random: Random, restart: float
) -> list[dict[str, Any]]:
    """What is found when partitions are read in any order, and the worker that gathers is now and
    then killed, with its last state kept or not."""
    sources = Sources(detector, log)
    topic: list[bytes] = []
    while any(sources.waiting.values()):
        topic += sources.send(random.choice([p for p, left in sources.waiting.items() if left]))
    state: list[tuple[bytes, bytes | None]] = []
    found: list[dict[str, Any]] = []
    engine = gathering(detector)
    offset = kept = 0
    while offset < len(topic):
        message = unpack_message(topic[offset])
        found += engine.observe(offset, message.observations, message.sources)
        offset += 1
        if random.random() < restart:
            if random.random() < 0.5:
                state += engine.drain_state()
                kept = offset
            engine = gathering(detector)
            engine.load(state)
            offset = kept
    return found + engine.observe(offset, [], sources.end())


def gathering(detector: Detector) -> DetectionEngine:
    limits = Limits(allowed_lateness_seconds=5)
    return DetectionEngine([detector], limits, SCOPES_ELSEWHERE, {"event": PARTITIONS})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    order=st.integers(0, 2**32),
    restart=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_every_order_sees_all_there_is(
    shared_key: Detector, seed: int, order: int, restart: float
) -> None:
    """However far one partition is read ahead of the other, and wherever the worker that gathers
    dies, every minute in which the rule is true is in an incident, and no other begins one."""
    log = written(seed)
    assert gathered_as_it_should(gather(shared_key, log, Random(order), restart), log)


def test_the_comparison_can_fail(shared_key: Detector) -> None:
    """Planted: a worker that takes the fastest partition's time for everybody's misses what the
    other brings."""
    log = written(1)
    one_after_the_other = sorted(log, key=lambda message: message[0])
    sources = Sources(shared_key, one_after_the_other)
    engine = DetectionEngine([shared_key], Limits(allowed_lateness_seconds=5), {"key"}, None)
    found: list[dict[str, Any]] = []
    for offset, (partition, _) in enumerate(one_after_the_other):
        for body in sources.send(partition):
            message = unpack_message(body)
            told = [Source("event", 0, s.progress_ns, s.event_ns, 0) for s in message.sources]
            found += engine.observe(offset, message.observations, told)
    found += engine.observe(10**6, [], [Source("event", 0, NOW_NS + 10**6 * NS)])
    assert not gathered_as_it_should(found, log)


def test_an_incident_ends_when_all_partitions_are_past(tmp_path: Path) -> None:
    """One partition that is behind keeps incidents open; nobody is told that it is over before."""
    detector = rule(
        tmp_path, '[detect]\nkind = "count"\nscope = "key"\n[parameters]\nthreshold=2\n'
    )
    engine = DetectionEngine([detector], Limits(), {"key"}, {"event": 2})
    at_ns = access(1, 0)["event"]
    used = [
        read_access(access(n, n, gatebook={"identity": {"key_id": "k"}}), 10**12) for n in (1, 2)
    ]
    now_ns = used[-1].timestamp_ns
    seen = [(("key",), one) for one in used]
    fast, slow = (Source("event", n, now_ns, now_ns, now_ns) for n in (0, 1))
    assert at_ns
    assert [f["event"]["action"] for f in engine.observe(0, seen, [fast, slow])] == ["firing"]
    later_ns = now_ns + 3600 * NS
    assert engine.observe(1, [], [Source("event", 0, later_ns)]) == []
    (end,) = engine.observe(2, [], [Source("event", 1, later_ns)])
    assert end["event"]["action"] == "resolved"


def test_only_what_a_rule_looks_at_is_passed_on(tmp_path: Path) -> None:
    """An access travels once for all rules of a place, and not at all where none asks for it; what
    is counted by principal stays where it is."""
    rest = '[detect]\nkind = "count"\nscope = "{}"\nwhere = {{ outcome = "failure" }}\n'
    rest += "[parameters]\nthreshold = 2\n"
    names = ("key", "address", "principal")
    detectors = [rule(tmp_path / name, rest.format(name)) for name in names]
    router = Router(detectors, 1)
    told = {"event": {"outcome": "failure", "id": "e"}, "source": {"ip": "192.0.2.1"}}
    document = {"@timestamp": "2026-01-05T09:00:00Z", **by(gatebook={"identity": {"key_id": "k"}})}
    failed = read_access({**document, **told}, 10**12)
    assert {n: set(p.scopes) for n, p in router.route(failed).items()} == {0: {"key", "address"}}
    failed.outcome = "success"
    assert router.route(failed) == {}


def test_a_frame_sent_twice_is_one() -> None:
    """A repeated frame has the same id and goes to the same place; heartbeats are told apart."""
    first, again = (frame_access("p1", 1, 7, 2, sent, "open", {}, 5) for sent in (10, 20))
    beats = [frame_access("p1", 1, 9, 0, sent, "open", {}, 5) for sent in (10, 20)]
    assert first.event_id == again.event_id
    assert len({beat.event_id for beat in beats}) == 2
    assert pack_frame(first, 8)[0] == pack_frame(beats[0], 8)[0]
