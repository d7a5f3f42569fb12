"""A day whose index grows too large goes on in another one, from a full hour on.

The hour lies ahead, so that no event of after it is stored yet, and sinks hear of it in time. An
event whose clock is further ahead than that is the exception: the hour is chosen behind the newest
one. What comes in between the look and the sinks' next reading, from a clock more than
LEAD_SECONDS ahead, may be stored twice when it is replayed.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from gatebook.processors.retention import metrics
from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.policy import Policy, size_bytes
from gatebook.processors.retention.state import State, with_cut

log = logging.getLogger(__name__)

KIND = "access"
LEAD_SECONDS = 600.0
HOUR = timedelta(hours=1)


def next_cut(day: str, now_seconds: float, newest: str) -> str:
    """The full hour from which on a day goes on elsewhere, such as `2026-01-31T14:00:00`; "" where
    it ends before. `newest`: the latest time stored."""
    ahead = datetime.fromtimestamp(now_seconds + LEAD_SECONDS, UTC).replace(tzinfo=None)
    seen = datetime.fromisoformat(newest[:19]) if newest else ahead
    after = max(ahead, seen)
    hour = after.replace(minute=0, second=0, microsecond=0) + HOUR
    return hour.isoformat() if hour.strftime("%Y.%m.%d") == day else ""


async def cut_large_days(
    cluster: Cluster, state: State, policy: Policy, now_seconds: float
) -> list[tuple[str, str]]:
    """Cut today where its newest index is too large; the days and hours that were cut."""
    if not policy.file.size.max_index:
        return []
    limit = size_bytes(policy.file.size.max_index)
    today = datetime.fromtimestamp(now_seconds, UTC).strftime("%Y.%m.%d")
    parts = [one for one in await cluster.indices(KIND) if one.name.day == today]
    cuts = (await state.gates()).cuts.get(KIND, {}).get(today, ())
    if not parts or parts[-1].bytes < limit or parts[-1].name.part <= len(cuts):
        return []  # small, or the next part is announced and has not begun
    await cluster.refresh(parts[-1].name.name)
    at = next_cut(today, now_seconds, await cluster.newest(parts[-1].name.name))
    if not at:
        return []
    await state.change_gates(lambda gates: with_cut(gates, KIND, today, at))
    metrics.CUTS.inc()
    log.info("%s is larger than %s: it goes on in another index from %s on", today, limit, at)
    return [(today, at)]
