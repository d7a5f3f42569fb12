"""Pages of one point in time, one at a time: whoever asks comes back with where they were."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gatebook.processors.search.asking import Hit, ask, hit_of
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.question import Question
from gatebook.processors.search.spelling import spelled_out
from gatebook.processors.sinks.connection import Connection, Unreachable


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the view, and the sort values of its last hit."""

    view: str
    after: list[Any]
    total: int


@dataclass(frozen=True, slots=True)
class PageOf:
    """A page. `place` None: there is no other after it, and its view is closed."""

    total: int
    hits: list[Hit]
    place: Place | None


async def first_page(
    client: Connection,
    namespace: str,
    question: Question,
    sort: list[Dsl],
    size: int,
    *,
    keep_seconds: float,
    source: Any = True,
) -> PageOf:
    """The first page. Indices that hold nothing of the range take no part in the view.
    Raises SearchFailed, Unreachable."""
    given = {"index_filter": question.dsl}
    found = await ask(
        client,
        f"/{namespace}-{question.kind}/_pit",
        params={"keep_alive": _keep(keep_seconds)},
        json=given,
    )
    if found is None:
        return PageOf(0, [], None)
    # If we die here, the server drops the view by itself after keep_seconds.
    start = Place(str(found["id"]), [], -1)
    return await next_page(
        client, question, sort, size, start, keep_seconds=keep_seconds, source=source
    )


async def next_page(
    client: Connection,
    question: Question,
    sort: list[Dsl],
    size: int,
    place: Place,
    *,
    keep_seconds: float,
    source: Any = True,
) -> PageOf:
    """The page after a place. Raises ViewGone, SearchFailed, Unreachable."""
    is_first = place.total < 0
    question = await spelled_out(client, question, view=place.view)
    body: Dsl = {
        "query": question.dsl,
        "sort": sort,
        "size": size,
        "pit": {"id": place.view, "keep_alive": _keep(keep_seconds)},
        "track_total_hits": is_first,
        "_source": source,
    }
    if place.after:
        body["search_after"] = place.after
    found = await ask(client, "/_search", json=body)
    hits = found["hits"]["hits"]
    total = int(found["hits"]["total"]["value"]) if is_first else place.total
    view = str(found.get("pit_id") or place.view)
    if len(hits) < size or (is_first and total <= size):
        await close_view(client, view)
        return PageOf(total, [hit_of(hit) for hit in hits], None)
    return PageOf(total, [hit_of(hit) for hit in hits], Place(view, hits[-1]["sort"], total))


async def close_view(client: Connection, view: str) -> None:
    """Close a view; where that does not succeed, it ends by itself."""
    with suppress(Unreachable):
        await client.request("DELETE", "/_pit", json={"id": view})


def _keep(seconds: float) -> str:
    return f"{max(1, int(seconds))}s"
