"""Killed anywhere, with its last state kept or not, detection finds what it would have found."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.detect.streams import (
    NS,
    START_NS,
    Document,
    Message,
    access,
    distinct,
    ids,
    small_engine,
)

from gatebook.processors.detect import state as state_module
from gatebook.processors.detect.engine import CHECKPOINT_KEY, DetectionEngine

KINDS = ({"api_key": 1}, {"jwt": 2}, {"api_key": 1, "jwt": 1}, {"email": 1})
MANY_KEYS = 1000
LATENESS_SECONDS = 90


def written(random: Random, length: int) -> list[Message]:
    """A partition's messages: bursts and pauses of a few principals, most on time, some in the
    wrong order, some far too late, some delivered twice."""
    found: list[Document] = []
    clock = 0.0
    for number in range(length):
        clock += random.choice([0.5, 1, 1, 2, 2, 5, 5, 20, 70])
        when = clock - random.choice([0, 0, 0, 0, 0, 0, 3, 40, 400])
        found.append(
            access(
                number,
                max(0.0, when),
                random.choice("aaaabbcd"),
                outcome=random.choice(["failure", "failure", "success"]),
                secrets=random.choice(KINDS) if random.random() < 0.1 else None,
            )
        )
        if random.random() < 0.1:
            found.append(random.choice(found[-20:]))
    messages: list[Message] = []
    while found:
        size = random.choice([1, 1, 2, 3, 7])
        messages.append(found[:size])
        found = found[size:]
    return messages


def logs() -> st.SearchStrategy[list[Message]]:
    """Logs from a seed: long enough for episodes to begin, end and begin again."""
    return st.builds(
        lambda seed, length: written(Random(seed), length),
        st.integers(0, 2**32),
        st.integers(5, 250),
    )


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

    def live(
        self, messages: int, kept: bool, *, drain_every: int = 1000, idle: Random | None = None
    ) -> None:
        """One life of a worker: so many messages, time that is advanced in between where `idle`
        says so, then a drain that arrives or does not."""
        engine = self.engine()
        for offset in range(self.committed, min(len(self.log), self.committed + messages)):
            if idle is not None and idle.random() < 0.3:
                before, after = self.written_at(offset - 1), self.written_at(offset)
                self.findings += engine.advance(idle.randint(before, after))
            self.findings += engine.process(offset, self.log[offset], self.written_at(offset))
            if (offset + 1) % drain_every == 0:
                self.state += engine.drain_state()
        drained = engine.drain_state()
        if kept:
            self.state += drained

    def written_at(self, offset: int) -> int:
        """When a message was written to the topic: after the events in it, in order."""
        return START_NS + NS * 60 * (offset + 1)

    def finish(self) -> set[bytes]:
        """Live to the end; every finding that was delivered, each once."""
        self.live(len(self.log), kept=True)
        self.findings += self.engine().advance(self.written_at(len(self.log)) + 86_400 * NS)
        return distinct(self.findings)


def undisturbed(log: list[Message], **limits: int) -> set[bytes]:
    return World(log, limits).finish()


lives = st.lists(
    st.tuples(st.integers(1, 60), st.booleans(), st.floats(0, 1), st.integers(1, 10)),
    max_size=5,
)


@settings(max_examples=250, deadline=None)
@given(log=logs(), plan=lives, remembered=st.sampled_from([1, 4, 1024]), seed=st.integers(0, 2**32))
def test_a_worker_killed_anywhere_finds_the_same(
    log: list[Message], plan: list[tuple[int, bool, float, int]], remembered: int, seed: int
) -> None:
    """Cut anywhere, with the last drain kept or not, the offset committed anywhere before, and
    time advanced while the partition was idle or not, the findings, firing and resolved, and their
    bodies are those of an undisturbed run, however few ids are kept."""
    limits = {
        "max_keys_per_scope": MANY_KEYS,
        "allowed_lateness_seconds": LATENESS_SECONDS,
        "remembered_ids_per_key": remembered,
    }
    world = World(log, limits)
    for messages, kept, committed, drain_every in plan:
        world.live(messages, kept, drain_every=drain_every, idle=Random(seed))
        safe = fully_kept(world)
        world.committed += round((safe - world.committed) * committed)
    assert world.finish() == undisturbed(log, **limits)
    assert len(set(ids(world.findings))) == len(distinct(world.findings))


def fully_kept(world: World) -> int:
    """The first offset that no arrived checkpoint covers; committing beyond it would lose."""
    probe = small_engine()
    probe.load(world.state)
    return max(world.committed, probe.checkpoint + 1)


@settings(max_examples=250, deadline=None)
@given(log=logs(), plan=lives, keys=st.integers(1, 3))
def test_forgotten_keys_are_forgotten_alike(
    log: list[Message], plan: list[tuple[int, bool, float, int]], keys: int
) -> None:
    """With more principals than the limit allows, a replay over whole drains forgets the same
    keys at the same places as the undisturbed run."""
    limits = {"max_keys_per_scope": keys, "allowed_lateness_seconds": LATENESS_SECONDS}
    world = World(log, limits)
    for messages, _, committed, drain_every in plan:
        world.live(messages, kept=True, drain_every=drain_every)
        world.committed += round((fully_kept(world) - world.committed) * committed)
    assert world.finish() == undisturbed(log, **limits)


def burst(first: int = 0) -> list[Message]:
    return [[access(first + n, first + n, outcome="failure")] for n in range(3)]


def test_a_replayed_message_does_not_count_twice() -> None:
    """Two failures replayed are two failures, not four."""
    log = [*burst()[:2], [access(9, 500)]]
    world = World(log, {})
    world.live(2, kept=True)
    world.state = [(key, value) for key, value in world.state if key != CHECKPOINT_KEY]
    assert world.finish() == set()


def test_the_comparison_can_fail(monkeypatch: Any) -> None:
    """Planted: entries that forget how far they came and what they saw. The replay then tells
    another story, and the comparison above sees it."""
    log = [*burst()[:2], [access(9, 500)]]
    pack = state_module.pack

    def forgetful(track: state_module.Track) -> bytes:
        track.position = -1
        track.recent, track.previous = set(), set()
        return pack(track)

    monkeypatch.setattr("gatebook.processors.detect.engine.pack", forgetful)
    world = World(log, {})
    world.live(2, kept=True)
    world.state = [(key, value) for key, value in world.state if key != CHECKPOINT_KEY]
    assert world.finish() != set()
