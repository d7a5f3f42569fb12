"""Dated indices: created before they are written to, and never without bound.

Creation is explicit because a cluster may have auto-creation switched off, and because an index
that came to be without its template would take any field and guess its type.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime

from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.bulk import Decision, Verdict, classify
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.sinks.settings import SinkSettings
from gatebook.schemas.errors import Fatal

HOUR_SECONDS = 3600.0
READY = Verdict(Decision.INDEXED)
TOO_MANY = Verdict(Decision.REJECTED, "too many new indices for days out of range")


class OddIndexBudget:
    """How many indices for days out of range may still be created this hour.

    Counts in memory, per process: a restart starts anew.
    """

    def __init__(self, per_hour: int, clock: Callable[[], float]) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._taken: deque[float] = deque()

    def take(self) -> bool:
        """Take one; False where the hour's share is used up."""
        now = self._clock()
        while self._taken and now - self._taken[0] >= HOUR_SECONDS:
            self._taken.popleft()
        if len(self._taken) >= self._per_hour:
            return False
        self._taken.append(now)
        return True


def is_in_range(day: str, now_seconds: float, max_age_days: int, max_future_days: int) -> bool:
    """Whether a day `YYYY.MM.DD` is one that events are expected from."""
    today = datetime.fromtimestamp(now_seconds, UTC).date()
    age_days = (today - date.fromisoformat(day.replace(".", "-"))).days
    return -max_future_days <= age_days <= max_age_days


class Indices:
    """Makes sure that the index of a row exists.

    Events go to the index of their own day, however old, so that a replay meets its first copy.
    A day out of range costs a share of a budget when its index does not exist yet; without one
    left its rows are rejected, so that clocks gone wrong cannot fill the cluster with shards.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        settings: SinkSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        self._known: set[str] = set()
        self._templates: set[str] = set()
        self._budget = OddIndexBudget(settings.max_odd_indices_per_hour, clock)

    def forget(self, name: str) -> None:
        """This index is gone: look again before the next write."""
        self._known.discard(name)

    async def ready(self, row: Row, name: str) -> Verdict:
        """INDEXED where `name`, the index of this row, exists now or is an alias; else why not
        (retry, blocked, rejected).

        Raises Unreachable, and Fatal where the template is missing.
        """
        if name in self._known:
            return READY
        await self._require_template(row.kind)
        verdict = await self._create(name, row.day)
        if verdict.decision is Decision.INDEXED:
            self._known.add(name)
        return verdict

    async def exists(self, name: str) -> bool:
        """Whether there is an index or alias of this name. Raises Unreachable."""
        found = await self._connection.request("GET", f"/{name}/_alias")
        if found.status in (200, 404):
            return found.status == 200
        raise Unreachable(found.error_type or f"status {found.status}")

    async def _create(self, name: str, day: str) -> Verdict:
        if not self._in_range(day):
            # Two workers may both find it missing and each spend a share; that errs to the safe
            # side.
            found = await self._connection.request("GET", f"/{name}/_alias")
            if found.status == 200:
                return READY
            if found.status != 404:
                return classify(found.status, _error(found))
            if not self._budget.take():
                return TOO_MANY
        answer = await self._connection.request("PUT", f"/{name}", json={})
        if answer.error_type == "invalid_index_name_exception" and await self.exists(name):
            return READY  # retention rewrote the index: the name is an alias now
        return _created(answer)

    def _in_range(self, day: str) -> bool:
        limits = self._settings.max_age_days, self._settings.max_future_days
        return is_in_range(day, self._clock(), *limits)

    async def _require_template(self, kind: str) -> None:
        if kind in self._templates:
            return
        name = f"{self._namespace}-{kind}"
        answer = await self._connection.request("GET", f"/_index_template/{name}")
        if answer.status == 404:
            raise Fatal(f"the index template {name} is not installed", "run `gatebook setup`")
        if answer.status == 200:
            self._templates.add(kind)


def _error(answer: Answer) -> object:
    return answer.body.get("error") if isinstance(answer.body, dict) else None


def _created(answer: Answer) -> Verdict:
    """A refusal to create an index is never the row's fault: it is tried again."""
    if answer.error_type == "resource_already_exists_exception":
        return READY
    if answer.error_type == "invalid_index_name_exception":
        raise Fatal(
            "the namespace is not valid in an index name",
            "choose a GATEBOOK_NAMESPACE of lower-case letters, digits and _",
        )
    verdict = classify(answer.status, _error(answer))
    if verdict.decision is Decision.REJECTED:
        return Verdict(Decision.BLOCKED, verdict.detail)
    return verdict
