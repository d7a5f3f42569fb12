"""What privacy costs intake: CPU time of an event with content, opened, redacted and sealed for
its subject, over that of the same event at level `metadata`. No engines; keys at hand, as in a
worker that has seen its users."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import msgspec
from tests.benchmarks.context import Context
from tests.benchmarks.events import Event, events
from tests.benchmarks.redaction import values
from tests.benchmarks.redaction.speed import SENTENCES
from tests.benchmarks.report import Figure, compare, interleaved, plain
from tests.benchmarks.steps import CATALOG

from gatebook.processors.enrich import enrich
from gatebook.processors.intake import (
    IntakeContext,
    Source,
    document_frames,
    principal_of,
    process_frame,
)
from gatebook.processors.opening import ContentOpener
from gatebook.processors.redact import Redactor
from gatebook.processors.signals import signals_of
from gatebook.processors.subjects import layers
from gatebook.processors.subjects.identity import SubjectTags, subject_of
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.layers import Content, Subjects
from gatebook.processors.subjects.store import MemoryStore
from gatebook.processors.subjects.wrapping import WrappingKey, WrappingKeys
from gatebook.schemas.codec import FrameHeader, Record, build_frame, decode_event, encode_event
from gatebook.schemas.documents import Document, to_document
from gatebook.schemas.keys import FileSource, KeyFiles
from gatebook.schemas.sealing import ENCODING, DataKey, associated_data

BENCH = "privacy"
EVENTS = 2_000
FRAME_EVENTS = 250
EVENT_BYTES = 1024
GOAL_US = 35.0
ROUNDS = 15
PRODUCER = "bench"
SOURCE = Source("access.v1", 0, 1)
HEADER = FrameHeader(PRODUCER, 1, 0, FRAME_EVENTS, 1)
SPINE = "same events, metadata"


@dataclass(frozen=True)
class Load:
    """Events of one kind. `content_bytes` 0: as much as makes an event EVENT_BYTES long before it
    is sealed. `with_values`: a mail address, a card and a telephone number in each."""

    name: str
    level: str
    content_bytes: int = 0
    with_values: bool = False


METADATA = Load("metadata, subjects tagged", "metadata")
LOADS = (
    METADATA,
    Load("1 KB events, redacted", "redacted"),
    Load("1 KB events, full", "full"),
    Load("1 KB events, 3 values in each", "redacted", 0, True),
    Load("1 KB of content, redacted", "redacted", EVENT_BYTES),
    Load("1 KB of content, 3 values in each", "redacted", EVENT_BYTES, True),
)
IN_PARTS = LOADS[1]


def run(context: Context) -> list[Figure]:
    """Microseconds an event: each load beside the spine's own, what it is over it, its parts."""
    fixture = Fixture(EVENTS // 4 if context.quick else EVENTS, context)
    timers = {load.name: fixture.intake(load) for load in LOADS}
    found = interleaved(max(ROUNDS, context.rounds), {**timers, SPINE: fixture.intake(None)})
    return [*_figures(found), *_parts(fixture, max(5, context.rounds))]


def _figures(found: dict[str, list[float]]) -> Iterator[Figure]:
    for load in LOADS:
        took, spine = found[load.name], found[SPINE]
        yield compare(BENCH, load.name, "us/event", took, spine, SPINE)
        over = [ours - theirs for ours, theirs in zip(took, spine, strict=True)]
        yield plain(BENCH, f"  over the spine's own, goal <= {GOAL_US:.0f}", "us/event", over)
        # Whatever else runs on the machine adds to both; the quickest rounds were disturbed least.
        least = [min(took) - min(spine)]
        yield plain(BENCH, "  the same, of the quickest rounds", "us/event", least)


def _parts(fixture: Fixture, rounds: int) -> Iterator[Figure]:
    for name, took in interleaved(rounds, fixture.parts(IN_PARTS)).items():
        yield plain(BENCH, f"  {IN_PARTS.name}: {name}", "us/event", took)


class Fixture:
    """The same events without and with content, and what a worker holds."""

    def __init__(self, count: int, context: Context) -> None:
        self.events = list(events(count))
        self.now = time.time_ns()
        self.redactor = Redactor.default(b"bench-key-0123456789", "e1")
        files = KeyFiles.in_folder(context.home / "privacy-keys")
        newest = files.ensure().newest
        assert newest is not None
        self.data_key = DataKey(newest.public_bytes)
        self.opener = ContentOpener(FileSource(files.private))
        self.opener.start(must_exist=True)
        self.tags = SubjectTags(b"bench-tag-key-0123456789")
        wrapping = WrappingKeys([WrappingKey.of(os.urandom(32))])
        self.ring = KeyRing(MemoryStore(), wrapping, self.tags, 3600.0)

    def intake(self, load: Load | None) -> Callable[[], float]:
        """A timer of intake over all events of a load; without one, of the spine's own."""
        encoded = [encode_event(self.loaded(event, load)) for event in self.events]
        cuts = range(0, len(encoded), FRAME_EVENTS)
        frames = [build_frame(HEADER, encoded[n : n + FRAME_EVENTS]) for n in cuts]
        self._fetch_keys(frames)
        return partial(self._timed, frames, load is not None)

    def loaded(self, event: Event, load: Load | None) -> Record:
        """The event as a producer encodes it: with what the level keeps, sealed."""
        made = copy.deepcopy(event)
        if load is None or load is METADATA:
            return made
        made["gatebook"]["capture"]["level"] = load.level
        size = load.content_bytes or EVENT_BYTES - len(encode_event(made))
        return self._sealed(made, content_of(made["event"]["id"], size, load.with_values))

    def _sealed(self, event: Record, content: bytes) -> Record:
        tenant = (event.get("organization") or {}).get("id") or ""
        level = event["gatebook"]["capture"]["level"]
        bound = associated_data(event["event"]["id"], PRODUCER, tenant, level)
        return {
            **event,
            "content": self.data_key.seal(content, bound),
            "content_encoding": ENCODING,
        }

    def _context(self, private: bool) -> IntakeContext:
        """As a worker begins; what intake remembers of texts, it has not seen yet."""
        subjects = Subjects(self.tags, self.ring) if private else None
        return IntakeContext(CATALOG, self.redactor, 4, subjects=subjects, opener=self.opener)

    def _fetch_keys(self, frames: list[bytes]) -> None:
        for frame in frames:
            while missing := self._process(frame, self._context(True)):
                asyncio.run(self.ring.fetch(missing))

    def _process(self, frame: bytes, context: IntakeContext) -> set[str]:
        result = process_frame(frame, SOURCE, context, self.now)
        if not result.missing_subjects:
            assert len(result.documents) == FRAME_EVENTS, result.dead_letters[:1]
            # The reason is named: failures depend on what an event holds, never on time.
            failures = [result.redaction_failures, result.sealed_failures]
            assert failures == [[], []], failures
            list(document_frames(result, SOURCE, context))
        return result.missing_subjects

    def _timed(self, frames: list[bytes], private: bool) -> float:
        context = self._context(private)
        begun = time.thread_time()
        for frame in frames:
            self._process(frame, context)
        return (time.thread_time() - begun) / len(self.events) * 1e6

    # ---- parts ---------------------------------------------------------------------------------

    def parts(self, load: Load) -> dict[str, Callable[[], float]]:
        """Timers of what is done for an event's content, one by one."""
        cases = [self._case(event, load) for event in self.events]
        steps: dict[str, Callable[[Case], object]] = {
            "open": lambda c: self.opener.open(c.event["content"], c.event, PRODUCER),
            "decode JSON": lambda c: msgspec.json.decode(c.content.original, type=dict[str, Any]),
            "signals": lambda c: signals_of(c.values),
            "redact": lambda c: self.redactor.redact_values(c.values),
            "seal": lambda c: layers.seal_content(c.document, c.content, c.entry, 1),
            "commit": lambda c: layers.commit(
                c.document, {"redacted": c.content.original}, c.entry.key, self.tags
            ),
        }
        return {name: partial(self._timed_part, step, cases) for name, step in steps.items()}

    def _timed_part(self, step: Callable[[Case], object], cases: list[Case]) -> float:
        begun = time.thread_time()
        for case in cases:
            step(case)
        return (time.thread_time() - begun) / len(cases) * 1e6

    def _case(self, plain_event: Event, load: Load) -> Case:
        event = decode_event(encode_event(self.loaded(plain_event, load)))
        document = enrich(to_document("access_event.v2", event), CATALOG)
        original = self.opener.open(event["content"], event, PRODUCER)
        found = msgspec.json.decode(original, type=dict[str, Any])
        tag = self.tags.of(subject_of(document, principal_of))
        document["gatebook"]["subject"] = tag
        asyncio.run(self.ring.fetch([tag]))
        entry = self.ring.get(tag)
        assert entry is not None
        return Case(event, document, found, Content(original, found), entry)


@dataclass(frozen=True)
class Case:
    """An event on its way through intake."""

    event: Record
    document: Document
    values: dict[str, Any]
    content: Content
    entry: layers.KeyEntry


def content_of(seed: str, size: int, with_values: bool) -> bytes:
    """The content of a chat of about that many bytes; never the same twice."""
    draw = Random(seed)
    said = [f"{seed[:8]}:"]
    if with_values:
        said.append(f"I am {values.mail(draw)}, {values.card(draw)}, {values.phone(draw)}.")
    while len(_chat(said)) < size:
        said.append(draw.choice(SENTENCES))
    return _chat(said)


def _chat(said: list[str]) -> bytes:
    half = len(said) // 2
    asked, answered = " ".join(said[:half]), " ".join(said[half:])
    return json.dumps(
        {
            "input_messages": [{"role": "user", "content": asked}],
            "output_messages": [{"role": "assistant", "content": answered}],
        }
    ).encode()
