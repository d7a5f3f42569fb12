"""Windows of event time over a key's accesses: tumbling, hopping, session and sliding.

A window holds aggregates, not accesses: a sum, a share or a count of different things. Tumbling and
hopping windows are made of panes: a window of 60 s that hops by 10 s is six panes side by side, so
an access is added once whatever the overlap. What lies behind the horizon, before which no access
will come any more, is dropped when a new pane begins; so the size of a state depends on window and
lateness alone, not on how many accesses there were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from gatebook.processors.detect.access import NANOSECONDS
from gatebook.processors.detect.base import MAX_EVIDENCE
from gatebook.processors.detect.distinct import Distinct

Stamp = tuple[int, str]
# A sliding window keeps its accesses one by one; what is beyond this many is not counted.
MAX_SLIDING = 2000


class Session(msgspec.Struct, array_like=True):
    """Accesses with no gap between them that is as long as the session's."""

    start_ns: int
    end_ns: int
    total: Any


class WindowState(msgspec.Struct, array_like=True):
    """Open windows of one key, and the ids of its latest accesses with their times."""

    panes: dict[int, Any] = {}
    sessions: list[Session] = []
    evidence: list[Stamp] = []


class SumState(WindowState, array_like=True):
    """Windows of sums; `stamps` are the accesses of a sliding window: time, id, value."""

    panes: dict[int, float] = {}
    stamps: list[tuple[int, str, float]] = []


class ShareState(WindowState, array_like=True):
    """Windows of [how many match, how many there are]."""

    panes: dict[int, list[int]] = {}


class DistinctState(WindowState, array_like=True):
    """Windows of counts of different items."""

    panes: dict[int, Distinct] = {}


class Aggregate(NamedTuple):
    """How a window counts: an empty total, adding to one, and joining several."""

    empty: Callable[[], Any]
    add: Callable[[Any, Any], Any]
    join: Callable[[Sequence[Any]], Any]


def _add_share(total: list[int], matched: bool) -> list[int]:
    total[0] += matched
    total[1] += 1
    return total


def _join_shares(totals: Sequence[list[int]]) -> list[int]:
    return [sum(total[0] for total in totals), sum(total[1] for total in totals)]


def _add_item(total: Distinct, digest: int) -> Distinct:
    total.add(digest)
    return total


SUM = Aggregate(float, lambda total, value: total + value, sum)
SHARE = Aggregate(lambda: [0, 0], _add_share, _join_shares)
DISTINCT = Aggregate(Distinct, _add_item, Distinct.union)


class Window(NamedTuple):
    """A window as it stands now."""

    start_ns: int
    total: Any


class Paned:
    """Tumbling windows, and hopping ones of several panes."""

    def __init__(self, aggregate: Aggregate, window_seconds: int, step_seconds: int) -> None:
        self._aggregate = aggregate
        self._step_ns = step_seconds * NANOSECONDS
        self._panes = -(-window_seconds // step_seconds)

    def add(self, state: WindowState, at_ns: int, value: Any, horizon_ns: int) -> list[Window]:
        """Count an access; the windows it is in, the first one first. Empty windows after the
        latest access are left out: they hold no more than the one before."""
        return self.around(state, self.put(state, at_ns, value, horizon_ns))

    def put(self, state: WindowState, at_ns: int, value: Any, horizon_ns: int) -> int:
        """Count an access; the number of its pane."""
        number = at_ns // self._step_ns
        panes = state.panes
        total = panes.get(number)
        if total is None:
            self._forget(panes, horizon_ns)
            total = self._aggregate.empty()
        panes[number] = self._aggregate.add(total, value)
        return number

    def around(self, state: WindowState, number: int) -> list[Window]:
        """The windows that an access of this pane is in."""
        panes = state.panes
        if self._panes == 1 or len(panes) == 1:
            return [Window((number - self._panes + 1) * self._step_ns, panes[number])]
        last = max(panes)
        if number == last:
            return [self._window(panes, number)]
        ends = range(number, min(number + self._panes - 1, max(last, number)) + 1)
        return [self._window(panes, end) for end in ends]

    def number(self, at_ns: int) -> int:
        """The pane of a time."""
        return at_ns // self._step_ns

    def _window(self, panes: dict[int, Any], end: int) -> Window:
        first = end - self._panes + 1
        totals = [total for number, total in panes.items() if first <= number <= end]
        return Window(first * self._step_ns, self._aggregate.join(totals))

    def _forget(self, panes: dict[int, Any], horizon_ns: int) -> None:
        oldest = horizon_ns // self._step_ns - self._panes + 1
        for number in [n for n in panes if n < oldest]:
            del panes[number]


class Sessions:
    """Windows that last for as long as accesses come within `gap_seconds` of each other."""

    def __init__(self, aggregate: Aggregate, gap_seconds: int) -> None:
        self._aggregate = aggregate
        self._gap_ns = gap_seconds * NANOSECONDS

    def add(self, state: WindowState, at_ns: int, value: Any, horizon_ns: int) -> list[Window]:
        """Count an access in the session it falls into; it may join two."""
        total = self._aggregate.add(self._aggregate.empty(), value)
        merged = Session(at_ns, at_ns, total)
        apart = []
        for session in state.sessions:
            near = session.start_ns - self._gap_ns <= at_ns <= session.end_ns + self._gap_ns
            if near:
                merged.start_ns = min(merged.start_ns, session.start_ns)
                merged.end_ns = max(merged.end_ns, session.end_ns)
                merged.total = self._aggregate.join([session.total, merged.total])
            elif session.end_ns + self._gap_ns >= horizon_ns:
                apart.append(session)
        state.sessions = [*apart, merged]
        return [Window(merged.start_ns, merged.total)]


def add_evidence(state: WindowState, at_ns: int, event_id: str) -> None:
    """Keep the latest ids."""
    evidence = state.evidence
    evidence.append((at_ns, event_id))
    if len(evidence) > MAX_EVIDENCE:
        del evidence[0]


def evidence_since(state: WindowState, start_ns: int) -> list[str]:
    """Ids of accesses at or after a time."""
    return [event_id for at_ns, event_id in state.evidence if at_ns >= start_ns]
