"""Whether all details of a range of time are there, or retention took some of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.retention.state import Missing, State, missing_ranges
from gatebook.processors.search.asking import SearchFailed
from gatebook.processors.search.question import moment, stamp
from gatebook.processors.sinks.connection import Connection

FIRST_DAY, LAST_DAY = "0000.00.00", "9999.99.99"


@dataclass(frozen=True, slots=True)
class Gap:
    """A day (`since` inclusive, `until` exclusive) of which details are gone: all of them but
    those under hold, or all but a sample, one in `keep_one_in`. `unknown`: some are gone, and
    whether any of them were of the tenants in question is not known."""

    since: str
    until: str
    keep_one_in: int | None
    all_gone: bool
    unknown: bool = False


async def gaps(
    connection: Connection,
    namespace: str,
    kind: str,
    since: str | None,
    until: str | None,
    tenants: frozenset[str] | None = None,
) -> list[Gap]:
    """What retention took within an absolute range, of these tenants; None: no bound, and all of
    them. Empty: all that was taken in is there, but for what an erasure took. Raises SearchFailed,
    Unreachable."""
    first = since[:10].replace("-", ".") if since else FIRST_DAY
    last = _last_day(until) if until else LAST_DAY
    try:
        state = State(Cluster(connection, namespace))
        found = await missing_ranges(state, kind, first, last, tenants)
    except Away:
        raise SearchFailed(
            "what retention took cannot be found out",
            "try again; if it lasts, see `gatebook doctor`",
        ) from None
    return [_gap(one) for one in found]


def _last_day(until: str) -> str:
    """The day of the last instant before an exclusive end."""
    return (moment(until) - timedelta(microseconds=1)).strftime("%Y.%m.%d")


def _gap(one: Missing) -> Gap:
    day = datetime.fromisoformat(one.slot[:10].replace(".", "-") + "T00:00:00+00:00")
    return Gap(
        since=stamp(day),
        until=stamp(day + timedelta(days=1)),
        keep_one_in=one.keep_one_in or None,
        all_gone=not one.thinned,
        unknown=one.unknown,
    )
