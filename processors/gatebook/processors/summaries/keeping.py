"""What has to happen before details go: their hours are summed up, and what goes is carried on.

Whoever takes details away (retention, thinning) calls, in this order:

    await ensure(client, namespace, since, until)      hours are summed up, or it raises
    ... write blocks on; what remains is written into new indices, not searched yet ...
    await freeze(client, namespace, leaving=[old], coming=[new, held])
    ... one aliases call: the old index goes, the new ones take its place ...

The summary of an hour is at all times `carried + details`: the sum of what stood in details that
went, and of the details that are there. `freeze` works out what will be carried once `leaving` is
gone and `coming` is there, and keeps it beside; it counts from the moment the alias does not show
`leaving` any more. So a crash at any step, and a retention that gives up after `freeze`, leave
every count as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gatebook.processors.sinks.connection import Connection
from gatebook.processors.summaries.reading import ONE_HOUR, floor_day, floor_hour
from gatebook.processors.summaries.rollup import EARLIEST, Report, Rollup
from gatebook.processors.summaries.store import SummaryStore

# Another run may be in the middle of a large hour.
WAIT_SECONDS = 300.0


async def ensure(client: Connection, namespace: str, since: datetime, until: datetime) -> Report:
    """Returns when every hour that touches [since, until) is summed up from the details that a
    search finds now. Events that come in later are taken up by the next run. Raises Overtaken,
    Fatal, SearchFailed, Unreachable; then the details must stay."""
    end = floor_hour(until)
    end = end if end == until else end + ONE_HOUR
    store = SummaryStore(client, namespace)
    async with store.lease(WAIT_SECONDS) as lease:
        return await Rollup(store, lease).run(end, floor_hour(since))


async def forget(client: Connection, namespace: str, grain: str, until: datetime) -> None:
    """From now on nothing of before `until` is summed up, by `hour` or by `day`; called before
    such rows go, so that nobody brings them back. Days have taken what their hours say by then,
    and stay as they are: what comes in for them later is not counted. Raises as `ensure` does."""
    store = SummaryStore(client, namespace)
    edge = floor_day(until)
    async with store.lease(WAIT_SECONDS) as lease:
        rollup = Rollup(store, lease)
        await rollup.run(edge, EARLIEST)
        await rollup.forget(grain, edge)


async def freeze(
    client: Connection, namespace: str, leaving: Sequence[str], coming: Sequence[str]
) -> None:
    """Keep what the details in `leaving` say that those in `coming` will not say any more.

    leaving: concrete indices behind the alias that will go. coming: those that take the place of
    a part of them, complete; none where all goes. Neither may be written to from here until the
    alias is changed (put a write block on both). Calling it again with the same `leaving`
    replaces what was kept before. An index of `coming` that a search sees already is fine: an
    event that stands in several indices counts once. Raises as `ensure` does.
    """
    store = SummaryStore(client, namespace)
    async with store.lease(WAIT_SECONDS) as lease:
        await Rollup(store, lease).freeze(leaving, coming)
