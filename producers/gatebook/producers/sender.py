"""The sender: from spooled events to acknowledged frames, for this process's spool and for those
that dead processes left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import KafkaPublisher, MessageRefused, Publisher, PublishFailed
from gatebook.producers.shrink import shrink_event
from gatebook.producers.spool import FileSpool, SpooledEvent, abandoned_spools
from gatebook.schemas.codec import FrameHeader, build_frame
from gatebook.schemas.confluent import wire_from_env
from gatebook.schemas.errors import RegistryUnavailable
from gatebook.schemas.wire import WireFormat

log = logging.getLogger("gatebook.producers")

EVENT_OVERHEAD_BYTES = 8  # block count and size of one event in a frame
_WAIT_SLICE_SECONDS = 0.2
BACKOFF_SECONDS = 0.5


class Source(Protocol):
    """Something that has numbered events to send, under one producer id and epoch."""

    @property
    def producer_id(self) -> str: ...

    @property
    def epoch(self) -> int: ...

    def losses(self) -> dict[str, int]:
        """Events dropped in this epoch so far, per reason."""

    def lose(self, reason: str, count: int) -> None:
        """Count events that were numbered and cannot be sent."""

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]: ...

    def acknowledge(self, next_sequence: int) -> None: ...


class FrameSender:
    """Builds frames and has them acknowledged, one at a time. Used by one thread.

    The default wire format is Confluent's where SCHEMA_REGISTRY_URL is set: a registry that
    cannot be asked is waited for like a broker that is away.
    """

    def __init__(
        self, settings: ProducerSettings, publisher: Publisher, wire: WireFormat | None = None
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._wire = wire or wire_from_env(settings.namespace)
        self._max_events = settings.frame_max_events
        self.frames_sent = 0
        self.last_error = ""

    def send(self, source: Source, give_up: Callable[[], bool]) -> int:
        """Send the next frame of a source; the number of events that are acknowledged by it.

        0 means: nothing to send, not acknowledged, or given up; the events are still spooled.
        A frame that is too large for the broker is sent in parts.
        """
        limit = self._settings.event_max_bytes
        found = source.peek(self._max_events, limit)
        events = _fitting(found, limit)
        if not events:
            return 0
        return self._send_events(source, events, give_up)

    def _send_events(
        self, source: Source, events: Sequence[SpooledEvent], give_up: Callable[[], bool]
    ) -> int:
        try:
            if not self.send_frame(source, events[0].sequence, [e.data for e in events], give_up):
                return 0
        except MessageRefused as error:
            return self._refused(source, events, give_up, error)
        # If we die here, the frame is sent again under the same numbers and ids.
        source.acknowledge(events[-1].sequence + 1)
        self._max_events = min(self._max_events * 2, self._settings.frame_max_events)
        return len(events)

    def _refused(
        self, source: Source, events: Sequence[SpooledEvent], give_up: Callable[[], bool],
        error: MessageRefused,
    ) -> int:  # fmt: skip
        """Halve the frame; of a single event, send what can be sent without its content."""
        if len(events) > 1:
            self._max_events = len(events) // 2
            return self._send_events(source, events[: self._max_events], give_up)
        sequence, data = events[0]
        small = shrink_event(data, "broker_limit")
        if small is not None and len(small) < len(data):
            return self._send_events(source, [SpooledEvent(sequence, small)], give_up)
        log.error("the broker refuses event number %d of this epoch: %s", sequence, error)
        source.lose("broker_rejected", 1)
        source.acknowledge(sequence + 1)
        return 0

    def send_frame(
        self, source: Source, first_sequence: int, events: Sequence[bytes],
        give_up: Callable[[], bool], state: str = "open",
    ) -> bool:  # fmt: skip
        """One frame, acknowledged or not. Waits until it is decided or `give_up` says so."""
        header = FrameHeader(
            source.producer_id, source.epoch, first_sequence, len(events), time.time_ns(),
            state, source.losses(),
        )  # fmt: skip
        try:
            message = build_frame(header, events, self._wire)
            self._publisher.submit(message, source.producer_id.encode(), len(events))
            while not self._publisher.wait(_WAIT_SLICE_SECONDS):
                if give_up():
                    return False
        except (PublishFailed, RegistryUnavailable) as error:
            self.last_error = str(error)
            return False
        self.last_error = ""
        self.frames_sent += 1
        return True


def _fitting(events: Sequence[SpooledEvent], max_bytes: int) -> Sequence[SpooledEvent]:
    """As many events as a frame takes with its own overhead; at least one."""
    size = 0
    for index, event in enumerate(events):
        size += len(event.data) + EVENT_OVERHEAD_BYTES
        if size > max_bytes and index:
            return events[:index]
    return events


@dataclass
class AdoptedSpool:
    """The spool of a dead process as a source: sent under its own id, epoch and numbers."""

    spool: FileSpool
    extra_losses: dict[str, int] = field(default_factory=dict)

    @property
    def producer_id(self) -> str:
        """The dead producer's."""
        return self.spool.producer_id

    @property
    def epoch(self) -> int:
        """The dead producer's."""
        return self.spool.epoch

    def losses(self) -> dict[str, int]:
        """What the dead process had noted, and what could not be read back."""
        total = dict(self.spool.state.losses)
        for reason, count in [
            *self.extra_losses.items(),
            ("spool_corrupt", self.spool.corrupt_events),
        ]:
            if count:
                total[reason] = total.get(reason, 0) + count
        return total

    def lose(self, reason: str, count: int) -> None:
        """Count events that cannot be sent."""
        self.extra_losses[reason] = self.extra_losses.get(reason, 0) + count

    def peek(self, max_events: int, max_bytes: int) -> list[SpooledEvent]:
        """See Spool."""
        return self.spool.peek(max_events, max_bytes)

    def acknowledge(self, next_sequence: int) -> None:
        """See Spool."""
        self.spool.acknowledge(next_sequence)


@dataclass(frozen=True)
class RecoveryReport:
    """What became of abandoned spools. `events` counts acknowledged events, `lost` those that
    could not be read back; `left` spools are still there."""

    spools: int = 0
    events: int = 0
    lost: int = 0
    left: int = 0


class Adopter:
    """Finds spools without a living owner, sends what they hold, and deletes them."""

    def __init__(self, settings: ProducerSettings, sender: FrameSender) -> None:
        self._settings = settings
        self._sender = sender
        self._adopted: list[AdoptedSpool] = []
        self.spools = self.events = self.lost = 0

    @property
    def waiting(self) -> int:
        """Adopted spools that are not sent to the end."""
        return len(self._adopted)

    def look(self) -> None:
        """Take over every spool whose owner is dead."""
        for directory in abandoned_spools(self._settings.spool_path):
            try:
                spool = FileSpool.adopt(directory, self._settings.spool_max_bytes)
            except OSError as error:
                log.error("the spool %s cannot be taken over: %s", directory, error.strerror)
                continue
            if spool is not None:
                self._adopted.append(AdoptedSpool(spool))

    def step(self, give_up: Callable[[], bool]) -> bool:
        """Send one frame of an adopted spool. False: nothing was acknowledged."""
        if not self._adopted:
            return False
        source = self._adopted[0]
        sent = self._sender.send(source, give_up)
        self.events += sent
        if not source.spool.drained:
            return sent > 0
        return self._finish(source, give_up)

    def _finish(self, source: AdoptedSpool, give_up: Callable[[], bool]) -> bool:
        """Everything is sent: state the losses and a good end, then delete the spool.

        If we die before the deletion, the next adoption finds it drained and says this again.
        """
        state, losses = source.spool.state, source.losses()
        if (state.closed or losses) and not self._sender.send_frame(
            source, state.acknowledged, [], give_up, "closed" if state.closed else "open"
        ):
            return False
        self._adopted.remove(source)
        self.spools += 1
        self.lost += source.spool.corrupt_events
        source.spool.remove()
        log.info("sent the spool of %s, epoch %d", source.producer_id, source.epoch)
        return True

    def close(self) -> None:
        """Let go of what is not sent; another process may adopt it."""
        for source in self._adopted:
            source.spool.close()
        self._adopted.clear()

    def report(self) -> RecoveryReport:
        """What was done so far."""
        return RecoveryReport(self.spools, self.events, self.lost, self.waiting)


def recover_abandoned(
    settings: ProducerSettings, publisher: Publisher | None = None, deadline_seconds: float = 60.0
) -> RecoveryReport:
    """Send every spool that a dead process left, and delete it. Returns at the deadline at the
    latest; what is left then stays spooled. Sends to Kafka unless a publisher is given; closes
    it."""
    deadline = time.monotonic() + deadline_seconds
    publisher = publisher or KafkaPublisher(settings)
    adopter = Adopter(settings, FrameSender(settings, publisher))

    def give_up() -> bool:
        return time.monotonic() >= deadline

    try:
        adopter.look()
        while adopter.waiting and not give_up():
            if not adopter.step(give_up):
                time.sleep(min(BACKOFF_SECONDS, max(0.0, deadline - time.monotonic())))
        return adopter.report()
    finally:
        adopter.close()
        publisher.close(1.0)
