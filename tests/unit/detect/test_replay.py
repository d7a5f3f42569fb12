"""Killed anywhere, with any part of its state kept, detection finds what it would have found."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.detect.streams import Document, Message, access, distinct, ids, small_engine

from gatebook.processors.detect import state as state_module
from gatebook.processors.detect.engine import CHECKPOINT_KEY, DetectionEngine

KINDS = st.sampled_from([None, {"api_key": 1}, {"jwt": 2}, {"api_key": 1, "jwt": 1}, {"email": 1}])
MANY_KEYS = 1000
LATENESS_SECONDS = 90


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Mostly forward in time, in bursts, with stragglers, repeats and leaps."""
    number = draw(st.integers(0, 400))
    minute = draw(st.integers(0, 12))
    second = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 13, 30, 59]))
    outcome = draw(st.sampled_from(["failure", "failure", "success"]))
    principal = draw(st.sampled_from(["a", "b", "c", "d"]))
    return access(number, minute * 60 + second, principal, outcome=outcome, secrets=draw(KINDS))


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """A partition's messages; sorted by time within a shuffle of neighbours, so that most are on
    time, some are late and some come twice."""
    found = draw(st.lists(documents(), min_size=5, max_size=80))
    found.sort(key=lambda d: str(d["@timestamp"]))
    for place in draw(st.lists(st.integers(0, len(found) - 2), max_size=12)):
        found[place], found[place + 1] = found[place + 1], found[place]
    for place in draw(st.lists(st.integers(0, len(found) - 1), max_size=6)):
        found.insert(min(len(found), place + 3), found[place])
    cuts = sorted(draw(st.sets(st.integers(1, len(found)), max_size=30)))
    edges = [0, *cuts, len(found)]
    return [found[a:b] for a, b in pairwise(edges) if a < b]


@dataclass
class World:
    """What outlives an engine: delivered findings, the state topic, the committed offset."""

    log: list[Message]
    limits: dict[str, int]
    findings: list[Any] = field(default_factory=list)
    state: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    committed: int = 0

    def engine(self) -> DetectionEngine:
        engine = small_engine(**self.limits)
        engine.load(self.state)
        return engine

    def live(self, messages: int, kept: float, *, drain_every: int = 1000) -> None:
        """One life of a worker: so many messages, then a drain of which a part arrives."""
        engine = self.engine()
        for offset in range(self.committed, min(len(self.log), self.committed + messages)):
            self.findings += engine.process(offset, self.log[offset])
            if (offset + 1) % drain_every == 0:
                self.state += engine.drain_state()
        drained = engine.drain_state()
        arrived = round(len(drained) * kept)
        self.state += drained[:arrived]

    def finish(self) -> set[bytes]:
        """Live to the end; every finding that was delivered, each once."""
        self.live(len(self.log), 1.0)
        return distinct(self.findings)


def undisturbed(log: list[Message], **limits: int) -> set[bytes]:
    return World(log, limits).finish()


lives = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.integers(1, 10)),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(log=logs(), plan=lives)
def test_any_part_of_the_state_is_enough(
    log: list[Message], plan: list[tuple[int, float, float, int]]
) -> None:
    """Cut anywhere, with any first part of a drain kept and the offset committed anywhere before,
    the findings and their bodies are those of an undisturbed run."""
    limits = {"max_keys_per_detector": MANY_KEYS, "allowed_lateness_seconds": LATENESS_SECONDS}
    world = World(log, limits)
    for messages, kept, committed, drain_every in plan:
        world.live(messages, kept, drain_every=drain_every)
        safe = fully_kept(world)
        world.committed += round((safe - world.committed) * committed)
    assert world.finish() == undisturbed(log, **limits)
    assert len(set(ids(world.findings))) == len(distinct(world.findings))


def fully_kept(world: World) -> int:
    """The first offset that no arrived checkpoint covers; committing beyond it would lose."""
    probe = small_engine()
    probe.load(world.state)
    return max(world.committed, probe.checkpoint + 1)


@settings(max_examples=100, deadline=None)
@given(log=logs(), plan=lives, keys=st.integers(1, 3))
def test_forgotten_keys_are_forgotten_alike(
    log: list[Message], plan: list[tuple[int, float, float, int]], keys: int
) -> None:
    """With more principals than the limit allows, a replay over whole drains forgets the same
    keys at the same places as the undisturbed run."""
    limits = {"max_keys_per_detector": keys, "allowed_lateness_seconds": LATENESS_SECONDS}
    world = World(log, limits)
    for messages, _, committed, drain_every in plan:
        world.live(messages, 1.0, drain_every=drain_every)
        world.committed += round((fully_kept(world) - world.committed) * committed)
    assert world.finish() == undisturbed(log, **limits)


def burst(first: int = 0) -> list[Message]:
    return [[access(first + n, first + n, outcome="failure")] for n in range(3)]


def test_a_replayed_message_does_not_count_twice() -> None:
    """Two failures replayed are two failures, not four."""
    log = [*burst()[:2], [access(9, 500)]]
    world = World(log, {})
    world.live(2, 1.0)
    world.state = [(key, value) for key, value in world.state if key != CHECKPOINT_KEY]
    assert world.finish() == set()


def test_the_comparison_can_fail(monkeypatch: Any) -> None:
    """Planted: entries that forget how far they came and what they saw. The replay then tells
    another story, and the comparison above sees it."""
    log = [*burst()[:2], [access(9, 500)]]
    pack = state_module.pack

    def forgetful(entry: state_module.Entry) -> bytes:
        entry.position = -1
        entry.recent, entry.previous = set(), set()
        return pack(entry)

    monkeypatch.setattr("gatebook.processors.detect.engine.pack", forgetful)
    world = World(log, {})
    world.live(2, 1.0)
    world.state = [(key, value) for key, value in world.state if key != CHECKPOINT_KEY]
    assert world.finish() != set()
