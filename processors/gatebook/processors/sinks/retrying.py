"""Waiting between tries: backing off from trouble, pausing while writing is blocked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from types import TracebackType

from gatebook.processors.sinks import metrics
from gatebook.processors.sinks.backoff import Backoff
from gatebook.processors.sinks.bulk import Decision, Verdict
from gatebook.processors.sinks.settings import SinkSettings
from gatebook.schemas.errors import Fatal

logger = logging.getLogger(__name__)
_TROUBLE = (Decision.RETRY, Decision.BLOCKED, Decision.NO_INDEX)


class Retrying:
    """The state of one request over its tries."""

    def __init__(self, settings: SinkSettings) -> None:
        self._backoff = Backoff(settings.retry_base_seconds, settings.retry_cap_seconds)
        self._limit_seconds = settings.retry_limit_seconds
        self._started = time.monotonic()
        self.is_paused = False

    def __enter__(self) -> Retrying:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pause(False, "")

    async def after(self, verdicts: Sequence[Verdict]) -> None:
        """Wait as long as the verdicts of the last try ask for; no time where all went well.

        Raises Fatal where retry_limit_seconds is set and has passed.
        """
        trouble = [verdict for verdict in verdicts if verdict.decision in _TROUBLE]
        blocked = [v for v in trouble if v.decision is Decision.BLOCKED]
        self._pause(bool(blocked), blocked[0].detail if blocked else "")
        if not trouble:
            self._backoff.reset()
            return
        self._report(trouble)
        self._check_limit()
        await asyncio.sleep(self._backoff.next_wait_seconds())

    def _pause(self, paused: bool, cause: str) -> None:
        if paused == self.is_paused:
            return
        self.is_paused = paused
        metrics.PAUSED.inc(1 if paused else -1)
        if paused:
            logger.warning("writing to Elasticsearch is blocked (%s): paused", cause)
        else:
            logger.info("writing to Elasticsearch goes on")

    def _report(self, trouble: Sequence[Verdict]) -> None:
        for verdict in trouble:
            metrics.RETRIES.labels(verdict.detail).inc()
        attempts = self._backoff.attempts
        if attempts & (attempts + 1) == 0:  # the tries 1, 2, 4, 8, ...
            logger.warning(
                "%d rows are not written yet (%s), try %d",
                len(trouble),
                trouble[0].detail,
                attempts + 1,
            )

    def _check_limit(self) -> None:
        waited = time.monotonic() - self._started
        if self._limit_seconds and waited >= self._limit_seconds:
            raise Fatal(
                f"Elasticsearch did not take the rows within {self._limit_seconds:g} s",
                "see that it runs and has disk space, then start again",
            )
