"""The accounts of one producer process: what became of every event that was handed over.

emitted = acknowledged + dropped + still on the way, at every moment, exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gatebook.schemas.errors import GatebookError

DropReason = Literal[
    "buffer_full",  # memory is full, the broker or the disk being too slow
    "spool_full",  # the spool is full, the broker being away
    "spool_unavailable",  # the spool cannot be written, and memory is full or may not be used
    "spool_corrupt",  # spooled, and damaged when it was read back
    "invalid_event",  # does not fit the schema
    "oversize",  # too large for a frame even without content
    "not_durable",  # emit_durable gave up on it and said so to its caller
    "broker_rejected",  # the broker takes it in no form
    "shutdown",  # in memory when the process ended
    "closed",  # emitted after close
]
# These had a number already, so each explains a gap; the others were dropped before they got one.
NUMBERED_DROP_REASONS = frozenset({"spool_corrupt", "broker_rejected"})


class NotDurable(GatebookError):
    """The event was not known to be on disk in time. `reason` is a DropReason. It does not mean
    that the event is lost: where the time ran out during the write, it may still be published."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the event is not durable: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class FlushReport:
    """`complete`: everything emitted before the call is acknowledged or counted as dropped.
    `unspooled` events stand in the queue, `unacknowledged` ones behind it."""

    complete: bool
    unspooled: int
    unacknowledged: int


@dataclass(frozen=True)
class Counters:
    """Totals of this process. `degraded` counts events that stood in memory for want of a spool;
    `reduced` those that lost content or bodies on the ladder (see ladder.py; `step` is where it
    stands); `recovered` those sent from the spools of dead processes (not in `acknowledged`);
    `sealed` those whose content was sealed, `unsealed` those that lost it instead, by reason;
    `captured` those the capture policy judged, by level. `policy_loads` counts policy files taken
    over and found broken, `break_glass` the raises that are active."""

    emitted: int = 0
    spooled: int = 0
    acknowledged: int = 0
    degraded: int = 0
    recovered: int = 0
    frames: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    queued_bytes: int = 0
    spool_bytes: int = 0
    is_degraded: bool = False
    reduced: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    steps_entered: Mapping[str, int] = field(default_factory=dict)
    sealed: int = 0
    unsealed: Mapping[str, int] = field(default_factory=dict)
    captured: Mapping[str, int] = field(default_factory=dict)
    policy_loads: Mapping[str, int] = field(default_factory=dict)
    is_policy_broken: bool = False
    break_glass: int = 0

    @property
    def on_the_way(self) -> int:
        """Events neither acknowledged nor dropped yet."""
        return self.emitted - self.acknowledged - sum(self.dropped.values())


class Accounts:
    """Thread-safe totals. `lock` is the one lock of a recorder: the queue's changes and the counts
    that go with them are one step. Methods that say `held` are called with it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._dropped: dict[str, int] = {}
        self.emitted = self.spooled = self.acknowledged = 0

    def drop_held(self, reason: str, count: int = 1) -> None:
        """Count drops; wakes nobody."""
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    def changed_held(self) -> None:
        """Wake who waits for progress."""
        self._changed.notify_all()

    def settle(self, acknowledged: int, dropped: Mapping[str, int]) -> None:
        """Count what became of numbered events."""
        with self.lock:
            self.acknowledged += acknowledged
            for reason, count in dropped.items():
                self.drop_held(reason, count)
            self.changed_held()

    def losses(self) -> dict[str, int]:
        """Events dropped so far, per reason."""
        with self.lock:
            return self.losses_held()

    def losses_held(self) -> dict[str, int]:
        """The same, with the lock held."""
        return dict(self._dropped)

    def on_the_way_held(self) -> int:
        """Events neither acknowledged nor dropped yet."""
        return self.emitted - self.acknowledged - sum(self._dropped.values())

    def wait_held(self, done: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait for a condition, looked at after each progress."""
        self._changed.wait_for(done, timeout_seconds)

    def wait_for_progress(self, timeout_seconds: float) -> None:
        """Wait for any progress, or the time."""
        with self.lock:
            self._changed.wait(timeout_seconds)
