"""first_seen: an item that a key never showed before, once what is usual is known."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import Common, Rule, Signal
from gatebook.processors.detect.distinct import item_digest
from gatebook.processors.detect.findings import printable
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector

HOUR_NS = 3600 * NANOSECONDS
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class FirstSeenParameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    minimum_accesses: NotNegative = 20
    """Accesses of the key that must be learned before a new item counts ..."""
    minimum_hours: NotNegative = 24
    """... and how old its first one must be."""
    minimum_items: NotNegative = 1
    """... and how many items must be known."""
    maximum_items: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 50
    """A key that shows more than so many items changes all the time: a new one says nothing. The
    one not seen for longest is forgotten."""
    forget_hours: Annotated[int, msgspec.Meta(ge=1)] = 90 * 24
    """An item not seen for so long is new again."""


class FirstSeenState(msgspec.Struct, array_like=True):
    """Items by digest with the hour since 1970 they were last seen, how many accesses there were,
    when the first one was, and whether there were ever too many items."""

    items: dict[int, int] = {}
    accesses: int = 0
    first_ns: int = 0
    unstable: bool = False


class FirstSeen(SimpleDetector):
    """One incident per new item; it is resolved after quiet_seconds (default: an hour)."""

    state_type = FirstSeenState
    parameters_type = FirstSeenParameters

    def __init__(self, rule: Rule, parameters: FirstSeenParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        self.quiet_ns = self.quiet_ns or HOUR_NS

    def apply(self, state: FirstSeenState, access: Access, horizon_ns: int) -> Signal | None:
        """Learn the item of one access."""
        item = self.item(access)
        if not item:
            return None
        hour = access.timestamp_ns // HOUR_NS
        digest = item_digest(item)
        items = state.items
        last = items.get(digest)
        known = last is not None and hour - last <= self.parameters.forget_hours
        if known and last == hour and next(reversed(items)) == digest and state.first_ns:
            state.accesses += 1  # as nearly always: the same as a moment ago
            state.first_ns = min(state.first_ns, access.timestamp_ns)
            return None
        items.pop(digest, None)
        judged = not known and self._settled(state, access.timestamp_ns)
        state.items[digest] = hour if last is None else max(hour, last)
        self._learn(state, access.timestamp_ns)
        return self._signal(state, item, access) if judged else None

    def _settled(self, state: FirstSeenState, at_ns: int) -> bool:
        limits = self.parameters
        return (
            state.accesses >= limits.minimum_accesses
            and len(state.items) >= limits.minimum_items
            and at_ns - state.first_ns >= limits.minimum_hours * HOUR_NS
            and len(state.items) < limits.maximum_items
            and not state.unstable
        )

    def _learn(self, state: FirstSeenState, at_ns: int) -> None:
        state.accesses += 1
        state.first_ns = min(state.first_ns or at_ns, at_ns)
        if len(state.items) > self.parameters.maximum_items:
            state.unstable = True
            del state.items[next(iter(state.items))]

    def _signal(self, state: FirstSeenState, item: str, access: Access) -> Signal:
        return Signal(
            start_ns=access.timestamp_ns,
            end_ns=access.timestamp_ns,
            observed=len(state.items),
            baseline=len(state.items) - 1,
            threshold=len(state.items) - 1,
            evidence=(access.event_id,),
            evidence_count=1,
            group=printable(item),
        )
