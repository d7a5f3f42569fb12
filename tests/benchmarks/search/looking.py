"""Time to the first page, to a histogram and to facets, of what people ask every day.

Everything goes through the searches that commands and the service use, pages as `gatebook search`
asks for them; the service's own parts around them (credentials, masks, the record of the look, the
view that further pages read) are not in it. Each round asks at another moment (the end
of the range moves by a second) and, where a query names one, about another person, tenant or
trace, so that no answer is one that Elasticsearch remembers as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.benchmarks.report import percentile
from tests.benchmarks.search.documents import PEOPLE, SERVICES, TENANTS

from gatebook.processors.search.facets import facets
from gatebook.processors.search.histogram import histogram
from gatebook.processors.search.question import ask_for, stamp
from gatebook.processors.search.service import search
from gatebook.processors.sinks.connection import Connection

PAGE = 50
BUCKETS = 60
FACETS = ("event.outcome", "gen_ai.request.model", "service.name", "organization.id",
          "user.id", "http.response.status_code")  # fmt: skip
GOAL_MS = 300.0
WARM_ROUNDS = 3


@dataclass(frozen=True)
class Asked:
    """A query that people ask, over so many hours; `{}` are filled in by the number of a round."""

    name: str
    query: Callable[[int], str]
    hours: int


def _person(number: int) -> str:
    person = number * 7 % 200 if number % 2 else number * 131 % PEOPLE
    return f'user.id:"user-{person:05d}@{TENANTS[person % 40]}.example"'


ASKED = (
    Asked("everything, 24 h", lambda n: "", 24),
    Asked("everything, 30 d", lambda n: "", 720),
    Asked("failures, 7 d", lambda n: "event.outcome:failure", 168),
    Asked("one person, 30 d", _person, 720),
    Asked("a tenant's refused, 30 d", lambda n: f"organization.id:{TENANTS[n % 40]} and "
          "http.response.status_code:(401 or 429)", 720),
    Asked("slow calls of a service, 7 d", lambda n: f"service.name:{SERVICES[n % 24]} and "
          "event.duration >= 2000000000", 168),
    Asked("a network, 30 d", lambda n: f"source.ip:10.{n % 40}.0.0/16", 720),
    Asked("words in an error, 30 d", lambda n: f"limited {SERVICES[n % 24]}", 720),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Milliseconds, of all rounds but the first ones."""

    name: str
    what: str
    milliseconds: list[float]

    @property
    def p50(self) -> float:
        return percentile(self.milliseconds, 0.5)

    @property
    def p95(self) -> float:
        return percentile(self.milliseconds, 0.95)


async def measure(
    connection: Connection, namespace: str, end: datetime, rounds: int
) -> list[Measured]:
    """Every query as page, histogram and facets, `rounds` times when warm."""
    found = []
    for asked in ASKED:
        for what, ask in (("page", _page), ("histogram", _histogram), ("facets", _facets)):
            took = []
            for number in range(-WARM_ROUNDS, rounds):
                now = end - timedelta(seconds=number % 50)
                since = stamp(now - timedelta(hours=asked.hours))
                began = time.perf_counter()
                await ask(connection, namespace, asked.query(number % 997), since, now)
                took.append((time.perf_counter() - began) * 1000)
            found.append(Measured(asked.name, what, took[WARM_ROUNDS:]))
    return found


Ask = Callable[[Connection, str, str, str, datetime], Awaitable[None]]


async def _page(
    connection: Connection, namespace: str, query: str, since: str, now: datetime
) -> None:
    async for _ in search(connection, namespace, query, since, stamp(now), PAGE, now=now):
        return


async def _histogram(
    connection: Connection, namespace: str, query: str, since: str, now: datetime
) -> None:
    question = ask_for(query, since, stamp(now), now=now)
    await histogram(connection, namespace, question, BUCKETS, "event.outcome", now=now)


async def _facets(
    connection: Connection, namespace: str, query: str, since: str, now: datetime
) -> None:
    question = ask_for(query, since, stamp(now), now=now)
    await facets(connection, namespace, question, FACETS, 10)
