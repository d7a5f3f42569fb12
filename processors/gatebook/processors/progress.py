"""Which offsets may be committed: only those before which everything is delivered.

Faust's own reckoning can commit past a message in flight (faust-streaming #606) and acknowledges
messages it skips during a rebalance. So it is not asked: the worker admits messages in turn, and
reports an offset only once everything up to it is delivered. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

TopicPartition = tuple[str, int]


class Admission(Enum):
    """What to do with a message that came."""

    PROCESS = auto()
    BEGIN_ANEW = auto()  # process it; what is kept of this partition is of another log
    SKIP = auto()  # it stands behind a gap that is being fetched
    REFETCH = auto()  # one before it has not come yet


@dataclass
class Progress:
    """Per partition: the next offset to admit, the next to commit, and what is committed."""

    next_offset: dict[TopicPartition, int] = field(default_factory=dict)
    delivered: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    refetching: dict[TopicPartition, int] = field(default_factory=dict)

    def assign(self, partition: TopicPartition, start: int | None) -> None:
        """Begin at an offset: the committed one, else the first of the log; None: at whatever
        comes first."""
        self.revoke(partition)
        if start is not None:
            self.next_offset[partition] = start

    def revoke(self, partition: TopicPartition) -> None:
        """Forget a partition. Nothing of it can be committed from here on."""
        self.next_offset.pop(partition, None)
        self.delivered.pop(partition, None)
        self.committed.pop(partition, None)
        self.refetching.pop(partition, None)

    def admit(self, partition: TopicPartition, offset: int) -> Admission:
        """Messages are processed in turn. A gap is fetched again once; where the same message
        comes again, the offsets between do not exist (compaction, transaction markers). An offset
        that is lower than expected says that the log is not the one it was: the topic was deleted
        and made anew, or a broker lost its end. To skip it would lose it; if it was a message
        seen before after all, seeing it twice does no harm."""
        expected = self.next_offset.get(partition)
        if expected is not None and offset > expected and self.refetching.get(partition) != offset:
            if partition not in self.refetching:
                self.refetching[partition] = offset
                return Admission.REFETCH
            return Admission.SKIP  # queued behind the gap; it comes again after the refetch
        self.refetching.pop(partition, None)
        self.next_offset[partition] = offset + 1
        if expected is not None and offset < expected:
            return Admission.BEGIN_ANEW
        return Admission.PROCESS

    def done(self, partition: TopicPartition, offset: int) -> None:
        """Everything up to and including `offset` is delivered. Told in the order of admission."""
        if partition in self.next_offset:
            self.delivered[partition] = offset + 1

    def committable(self, partition: TopicPartition) -> int | None:
        """The offset to commit, or None where there is nothing new to commit."""
        delivered = self.delivered.get(partition)
        return None if delivered == self.committed.get(partition) else delivered

    def note_committed(self, partition: TopicPartition, offset: int) -> None:
        """The broker has taken this commit."""
        if partition in self.next_offset:
            self.committed[partition] = offset
