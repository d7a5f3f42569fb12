"""intake: raw frames in, document frames and dead letters out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path

from gatebook.processors import metrics
from gatebook.processors.config import WorkerSettings, kafka_properties
from gatebook.processors.delivery import Deliverer, Outgoing
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import (
    IntakeContext,
    IntakeResult,
    SequenceLedger,
    Source,
    document_frames,
    loss_letters,
    loss_reason,
    process_frame,
)
from gatebook.processors.opening import ContentOpener
from gatebook.processors.redact import Redactor, RuleInvalid, build_redactor
from gatebook.processors.stages.base import Held, Incoming
from gatebook.processors.stages.frames import FrameReports
from gatebook.processors.subjects.layers import Subjects
from gatebook.processors.subjects.ring import WorkerKeys
from gatebook.schemas.codec import MAX_EVENTS_PER_FRAME, SINGLE_OBJECT, Record, encode
from gatebook.schemas.errors import WrongSetting
from gatebook.schemas.keys import KeysUnavailable
from gatebook.schemas.topics import ACCESS, COUNT_HEADER, DEAD_LETTER, EVENT, topic_name
from gatebook.schemas.wire import WireFormat

log = logging.getLogger(__name__)

Statement = tuple[str, int, str, int]
MAX_STATEMENTS = 10_000
KEYS_PAUSE_SECONDS = 1.0


def redactor_of(settings: WorkerSettings) -> Redactor:
    """The redactor with the operator's rules and exceptions. Raises WrongSetting for bad ones."""
    try:
        return build_redactor(
            settings.redaction_key(),
            settings.redaction_epoch,
            rules_folder=Path(settings.redaction_rules) if settings.redaction_rules else None,
            policy_file=Path(settings.redaction_policy) if settings.redaction_policy else None,
            ner_module=settings.redaction_ner,
        )
    except RuleInvalid as error:
        raise WrongSetting(
            f"redaction: {error}",
            "correct what is named, then try it with `gatebook rules redaction test`",
        ) from None


class IntakeStage:
    """Decode, check the sequence, enrich, redact, render, pass on."""

    def __init__(
        self,
        settings: WorkerSettings,
        catalog: Catalog,
        event_partitions: int,
        wire: WireFormat = SINGLE_OBJECT,
    ) -> None:
        self._settings = settings
        self.topics = (topic_name(settings.namespace, ACCESS),)
        self._event_topic = topic_name(settings.namespace, EVENT)
        self._dead_letter_topic = topic_name(settings.namespace, DEAD_LETTER)
        redactor = redactor_of(settings)
        opener = ContentOpener(settings.private_key_source())
        opener.start(must_exist=bool(settings.sealing_keys))
        self._keys = WorkerKeys(settings)
        subjects = Subjects(self._keys.tags, self._keys.ring)
        self._context = IntakeContext(
            catalog,
            redactor,
            event_partitions,
            wire,
            redaction_version=redactor.policy_version,
            subjects=subjects,
            opener=opener,
        )
        self._ledger = SequenceLedger()
        self._reports = FrameReports(settings)
        # Loss statements that are dead letters by now, oldest first, and those of this batch.
        self._stated: dict[Statement, None] = {}
        self._stating: dict[Statement, None] = {}

    async def start(self) -> None:
        self._deliverer = Deliverer(kafka_properties(self._settings.kafka_bootstrap))
        await self._reports.start()

    async def process(self, batch: Sequence[Incoming]) -> None:
        outgoing: list[Outgoing] = []
        self._stating = {}
        self._context.opener.refresh()  # forgets keys that were destroyed
        self._keys.ring.expire()
        for message in batch:
            outgoing += await self._process_one(message)
            await asyncio.sleep(0)  # let heartbeats through between frames
        # If we die here, the frames are read again: the event ids are the producer's, so the
        # index takes each event once.
        await self._deliverer.deliver(outgoing + self._reports.take())
        self._stated |= self._stating
        while len(self._stated) > MAX_STATEMENTS:
            self._stated.pop(next(iter(self._stated)))  # stated anew, it is the same dead letter

    async def _process_one(self, message: Incoming) -> list[Outgoing]:
        source = Source(message.topic, message.partition, message.offset, message.timestamp_ms)
        result = await self._result(message, source)
        self._count(result)
        if result.header is not None:
            self._reports.note(result.header, message)
        frames = document_frames(result, source, self._context)
        outgoing = [Outgoing(self._event_topic, body, None, number) for number, body, _ in frames]
        letters = result.dead_letters + self._losses(result, source)
        return outgoing + [self._dead_letter(letter) for letter in letters]

    async def _result(self, message: Incoming, source: Source) -> IntakeResult:
        """The frame processed with the keys of everybody in it, fetched where they are new."""
        declared = declared_count(message)
        while True:
            try:
                result = process_frame(
                    message.value, source, self._context, time.time_ns(), declared
                )
            except KeysUnavailable as error:  # of a key we do not have: it may be among them
                log.warning("the private keys cannot be read, waiting: %s", error)
                await asyncio.sleep(KEYS_PAUSE_SECONDS)
                continue
            if not result.missing_subjects:
                return result
            # Waits for as long as Elasticsearch is away: nothing is stored unsealed meanwhile.
            await self._keys.ring.fetch(result.missing_subjects)

    def _losses(self, result: IntakeResult, source: Source) -> list[Record]:
        if result.header is None:
            return []
        found = loss_letters(result.header, source, ChainMap(self._stated, self._stating))
        self._stating |= dict.fromkeys(found)
        return list(found.values())

    def _dead_letter(self, letter: Record) -> Outgoing:
        body = encode("dead_letter.v2", letter, self._context.wire)
        return Outgoing(self._dead_letter_topic, body, letter["event"]["id"].encode())

    def _count(self, result: IntakeResult) -> None:
        metrics.FRAMES.inc()
        metrics.EVENTS.inc(len(result.documents))
        for letter in result.dead_letters:
            label = metrics.DEAD_LETTERS.labels("intake", letter["event"]["reason"])
            label.inc(letter["gatebook"]["count"])
        for reason in result.redaction_failures:
            metrics.REDACTION_FAILED.labels(reason).inc()
        metrics.SUBJECT_ERASED.inc(result.erased)
        for reason in result.sealed_failures:
            metrics.SEALED_FAILED.labels(reason).inc()
        if result.header is not None:
            missing, repeated = self._ledger.observe(result.header)
            metrics.SEQUENCE_GAPS.inc(missing)
            metrics.SEQUENCE_REPEATS.inc(repeated)
            for reason, number in self._ledger.new_losses(result.header).items():
                metrics.PRODUCER_LOSSES.labels(loss_reason(reason)).inc(number)

    async def tick(self, held: Sequence[Held]) -> None:
        await self._deliverer.deliver(await self._reports.passing_of_time(held))

    async def revoke(self, partitions: Sequence[tuple[str, int]]) -> None:
        self._ledger.expected.clear()  # another worker goes on counting; losses told stay told

    async def stop(self) -> None:
        await self._keys.close()


def declared_count(message: Incoming) -> int:
    """What the header says, within what a frame may hold; 1 where it says nothing usable."""
    try:
        declared = int(message.headers.get(COUNT_HEADER, b"1"))
    except (TypeError, ValueError):  # a header may be null
        return 1
    return min(max(0, declared), MAX_EVENTS_PER_FRAME)
