"""What one event costs in each step of the pipeline: CPU time of the thread, no engines."""

from __future__ import annotations

import copy
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import orjson
from tests.benchmarks.context import Context
from tests.benchmarks.events import events
from tests.benchmarks.report import Figure, compare, interleaved, plain
from tests.sealed import make_keys

from gatebook.processors import render
from gatebook.processors.enrich import Catalog, Directory, Person, ServiceEntry, enrich
from gatebook.processors.intake import (
    BATCH_EVENTS,
    IntakeContext,
    IntakeResult,
    Passing,
    Source,
    document_frames,
    gather_texts,
    open_content,
    process_frame,
    read_content,
    redact_event,
)
from gatebook.processors.opening import ContentOpener
from gatebook.processors.redact import Redactor
from gatebook.producers.config import ProducerSettings
from gatebook.producers.sealer import Sealer
from gatebook.schemas.codec import (
    FrameHeader,
    Record,
    build_frame,
    decode_event,
    encode_event,
    open_frame,
)
from gatebook.schemas.documents import Document, to_document
from gatebook.schemas.keys import FileSource
from gatebook.schemas.registry import load

BENCH = "steps"
EVENTS = 5_000
FRAME_EVENTS = 250
CONTENT_BYTES = 1024
SOURCE = Source("access.v1", 0, 1)
HEADER = FrameHeader("bench", 1, 0, FRAME_EVENTS, 1)
BASELINES = {
    "encode event (producer)": "fastavro.schemaless_writer",
    "decode event": "fastavro.schemaless_reader",
    "render and digest document": "orjson.dumps",
    "intake, all steps": "fastavro.schemaless_reader + orjson.dumps",
}


# A directory that knows half of the users, and the service.
CATALOG = Catalog(
    Directory(
        {f"user-{n}": Person(f"user-{n}", f"User {n}", "", "", ("analyst",)) for n in range(250)}
    ),
    {"support-assistant": ServiceEntry("gateway", "assistants", "production", "high")},
)


class Fixture:
    """The same events in every form a step begins with."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.schema = load("access_event.v2")
        self.now = time.time_ns()
        self.redactor = Redactor.default(b"bench-key-0123456789", "e1")
        self.events = list(events(count))
        self.encoded = [encode_event(event) for event in self.events]
        self.decoded = [decode_event(data) for data in self.encoded]
        self.with_content = [
            decode_event(encode_event(e)) for e in events(count, "chat_with_content")
        ]
        self.frames = [
            build_frame(HEADER, self.encoded[n : n + FRAME_EVENTS])
            for n in range(0, count, FRAME_EVENTS)
        ]
        self.documents = [to_document("access_event.v2", event) for event in self.decoded]
        self._make_sealed()
        context = self.context()
        self.results = [process_frame(f, SOURCE, context, self.now) for f in self.frames]
        assert sum(len(result.documents) for result in self.results) == count
        self.built = [orjson.loads(d.body) for result in self.results for d in result.documents]

    def _make_sealed(self) -> None:
        """Events with 1 KB of content, in the open and sealed, and both sides of the keys."""
        self.home = tempfile.TemporaryDirectory()  # as long as the sealer looks for its key
        files = make_keys(Path(self.home.name))
        settings = ProducerSettings(home=self.home.name, producer_id=HEADER.producer_id)
        self.sealer = Sealer(settings)
        self.opener = ContentOpener(FileSource(files.private))
        self.opener.start(must_exist=True)
        content = b'{"input_messages":"'.ljust(CONTENT_BYTES - 2, b"x") + b'"}'
        self.unsealed = [event | {"content": content} for event in self.events]
        sealed = [self.sealer.seal(event) for event in self.unsealed]
        self.sealed = [decode_event(encode_event(event)) for event in sealed]

    def context(self) -> IntakeContext:
        """As a worker begins: whatever intake remembers, it has seen nothing yet."""
        return IntakeContext(CATALOG, self.redactor, 4)


def run(context: Context) -> list[Figure]:
    """Microseconds an event, each step beside what it could be at least."""
    fixture = Fixture(EVENTS // 5 if context.quick else EVENTS)
    rounds = max(3, context.rounds)
    found = interleaved(
        rounds, {name: _timer(step, fixture) for name, step in (STEPS | BASELINE_STEPS).items()}
    )
    return list(_figures(found))


def _figures(found: Mapping[str, list[float]]) -> Iterator[Figure]:
    for name in STEPS:
        baseline = BASELINES.get(name)
        if baseline:
            yield compare(BENCH, name, "us/event", found[name], found[baseline], baseline)
        else:
            yield plain(BENCH, name, "us/event", found[name])


def _timer(step: Callable[[Fixture], Callable[[], None]], fixture: Fixture) -> Callable[[], float]:
    def timed() -> float:
        work = step(fixture)
        begun = time.thread_time()
        work()
        return (time.thread_time() - begun) / fixture.count * 1e6

    return timed


def _encode(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for event in fixture.events:
            encode_event(event)

    return work


def _fastavro_write(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for event in fixture.events:
            fastavro.schemaless_writer(io.BytesIO(), fixture.schema.parsed, event)

    return work


def _open(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for frame in fixture.frames:
            open_frame(frame)

    return work


def _decode(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for data in fixture.encoded:
            decode_event(data, fixture.schema)

    return work


def _fastavro_read(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for data in fixture.encoded:
            fastavro.schemaless_reader(io.BytesIO(data), fixture.schema.parsed, None)

    return work


def _to_document(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for event in fixture.decoded:
            to_document("access_event.v2", event)

    return work


def _enrich(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for document in fixture.documents:
            enrich(document, CATALOG)

    return work


def _redacting(name: str) -> Callable[[Fixture], Callable[[], None]]:
    def step(fixture: Fixture) -> Callable[[], None]:
        given: list[dict[str, Any]] = getattr(fixture, name)
        documents = [copy.deepcopy(to_document("access_event.v2", event)) for event in given]
        context, result = fixture.context(), IntakeResult()

        def work() -> None:
            for first in range(0, len(given), BATCH_EVENTS):
                part = slice(first, first + BATCH_EVENTS)
                redact(documents[part], given[part])
            assert not result.redaction_failures

        def redact(documents: list[Document], given: list[Record]) -> None:
            batch = [
                Passing(0, b"", event, document)
                for document, event in zip(documents, given, strict=True)
            ]
            for passing in batch:
                open_content(passing, context, result)
                read_content(passing)
                gather_texts(passing, context)
            looks = context.screen.look([passing.texts for passing in batch])
            for passing, passing.look in zip(batch, looks, strict=True):
                redact_event(passing, context, result)

        return work

    return step


def _seal(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for event in fixture.unsealed:
            fixture.sealer.seal(event)

    return work


def _open_content(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for event in fixture.sealed:
            fixture.opener.open(event["content"], event, HEADER.producer_id)

    return work


def _render(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for document in fixture.built:
            render.render(document, fixture.now)

    return work


def _dumps(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for document in fixture.built:
            orjson.dumps(document)

    return work


def _document_frames(fixture: Fixture) -> Callable[[], None]:
    context = fixture.context()

    def work() -> None:
        for result in fixture.results:
            list(document_frames(result, SOURCE, context))

    return work


def _intake(fixture: Fixture) -> Callable[[], None]:
    context = fixture.context()

    def work() -> None:
        for frame in fixture.frames:
            result = process_frame(frame, SOURCE, context, fixture.now)
            list(document_frames(result, SOURCE, context))

    return work


def _least(fixture: Fixture) -> Callable[[], None]:
    def work() -> None:
        for data in fixture.encoded:
            event = fastavro.schemaless_reader(io.BytesIO(data), fixture.schema.parsed, None)
            orjson.dumps(event, default=bytes.decode)

    return work


STEPS: dict[str, Callable[[Fixture], Callable[[], None]]] = {
    "encode event (producer)": _encode,
    "seal 1 KB of content (producer)": _seal,
    "open frame": _open,
    "decode event": _decode,
    "open 1 KB of content": _open_content,
    "to_document": _to_document,
    "enrich": _enrich,
    "redact, metadata only": _redacting("decoded"),
    "redact, with content": _redacting("with_content"),
    "render and digest document": _render,
    "encode document frames": _document_frames,
    "intake, all steps": _intake,
}
BASELINE_STEPS: dict[str, Callable[[Fixture], Callable[[], None]]] = {
    "fastavro.schemaless_writer": _fastavro_write,
    "fastavro.schemaless_reader": _fastavro_read,
    "orjson.dumps": _dumps,
    "fastavro.schemaless_reader + orjson.dumps": _least,
}
