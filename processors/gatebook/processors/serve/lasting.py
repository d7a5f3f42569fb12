"""What of the details is gone by policy, and how retention stands, as the service tells it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.retention.state import RUN, Missing, State, missing_ranges
from gatebook.processors.search.asking import SearchFailed
from gatebook.processors.search.question import moment, stamp
from gatebook.processors.serve.models import Detail, Thinned
from gatebook.processors.sinks.connection import Connection

FIRST_DAY, LAST_DAY = "0000.00.00", "9999.99.99"
SHOWN_OF_RUN = ("run", "by", "reason", "policy_digest", "completed_at", "totals", "signature")


async def detail(
    connection: Connection, namespace: str, kind: str, since: str | None, until: str | None
) -> Detail:
    """Whether all details of a range are there. Raises SearchFailed, Unreachable."""
    first = since[:10].replace("-", ".") if since else FIRST_DAY
    last = _last_day(until) if until else LAST_DAY
    try:
        state = State(Cluster(connection, namespace))
        found = await missing_ranges(state, kind, first, last)
    except Away:
        raise SearchFailed(
            "what retention took cannot be found out",
            "try again; if it lasts, see `gatebook doctor`",
        ) from None
    return Detail(complete=not found, thinned=[_told(one) for one in found])


def _last_day(until: str) -> str:
    """The day of the last instant before an exclusive end."""
    return (moment(until) - timedelta(microseconds=1)).strftime("%Y.%m.%d")


def _told(one: Missing) -> Thinned:
    """A day of which details are gone: all of them, or all but a sample (keep_one_in)."""
    day = datetime.fromisoformat(one.slot[:10].replace(".", "-") + "T00:00:00+00:00")
    return Thinned(
        since=stamp(day),
        until=stamp(day + timedelta(days=1)),
        keep_one_in=one.keep_one_in or None,
        all_gone=not one.thinned,
    )


async def retention(connection: Connection, namespace: str) -> dict[str, Any]:
    """The last run's certificate in short, and days of which details are gone. The policy itself
    is a file of whoever runs retention; the certificate has its digest."""
    state = State(Cluster(connection, namespace))
    try:
        done = await state.find(RUN, done=True)
    except Away:
        raise SearchFailed("retention's state cannot be read", "try again") from None
    last = max(done, key=lambda one: one.source["at_ns"], default=None)
    certificate = last.source["certificate"] if last else {}
    gone = await detail(connection, namespace, "access", None, None)
    return {
        "configured": last is not None,
        "last_run": {n: certificate[n] for n in SHOWN_OF_RUN if n in certificate} or None,
        "thinned": gone.thinned,
    }
