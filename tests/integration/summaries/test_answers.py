"""Questions over long ranges: the same figures as from details, and where they come from."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.integration.summaries.book import DAY_ONE, NOW, Book, documents, event, spread_out

from gatebook.processors.search.query import QueryError
from gatebook.processors.sinks.base import Row
from gatebook.processors.summaries.answer import histogram, totals, values
from gatebook.processors.summaries.erasing import erase
from gatebook.processors.summaries.rollup import erased_name
from gatebook.processors.summaries.store import SummaryStore

HOUR_SECONDS, DAY_SECONDS = 3_600, 86_400
ACME = [{"terms": {"organization.id": ["acme"]}}]


@pytest.fixture
async def rows(book: Book) -> list[Row]:
    """Three days, of which all but the last hours are summed up."""
    written = spread_out(1_200, DAY_ONE, 66)
    await book.write(written)
    await book.run(DAY_ONE + timedelta(hours=60))
    await book.connection.request("POST", f"/{book.namespace}-access/_refresh")
    return written


def matching(rows: list[Row], since: datetime, until: datetime, **equal: str) -> list[Any]:
    """Documents by plain Python."""
    bounds = f"{since:%Y-%m-%dT%H:%M:%S}", f"{until:%Y-%m-%dT%H:%M:%S}"
    return [
        d
        for d in documents(rows)
        if bounds[0] <= d["@timestamp"] < bounds[1]
        and all(d.get(k, {}).get("id") == v for k, v in equal.items())
    ]


@pytest.mark.parametrize(
    ("since", "until", "interval", "source"),
    [
        (0, 48, HOUR_SECONDS, "summaries"),
        (0, 48, DAY_SECONDS, "summaries"),
        (5, 48, DAY_SECONDS, "summaries"),
        (1.5, 40.25, 6 * HOUR_SECONDS, "both"),
        (0, 66, DAY_SECONDS, "both"),
        (61, 66, HOUR_SECONDS, "details"),
        (3.25, 3.75, HOUR_SECONDS, "details"),
    ],
)
async def test_a_histogram_counts_what_details_hold(
    book: Book, rows: list[Row], since: float, until: float, interval: int, source: str
) -> None:
    """Whatever the ends of the range and the width of a bucket, and by parts, too."""
    first, last = (DAY_ONE + timedelta(hours=h) for h in (since, until))
    found = await histogram(
        book.connection, book.namespace, "user.id:ada", first, last, interval, "event.outcome"
    )
    wanted = matching(rows, first, last, user="ada")
    assert found is not None
    assert (found.source, found.total) == (source, len(wanted))
    counted: Counter[int] = Counter()
    for document in wanted:
        at = int(datetime.fromisoformat(document["@timestamp"][:19] + "+00:00").timestamp())
        counted[at // interval * interval] += 1
    assert {int(b.at.timestamp()): b.count for b in found.buckets} == counted
    assert all(sum(b.parts.values()) == b.count for b in found.buckets)
    failures = sum(d["event"]["outcome"] == "failure" for d in wanted)
    assert sum(b.parts.get("failure", 0) for b in found.buckets) == failures


async def test_a_tenant_sees_its_own(book: Book, rows: list[Row]) -> None:
    """The scope is a filter on rows and details alike; events without a tenant are in no scope."""
    last = DAY_ONE + timedelta(hours=66)
    wanted = matching(rows, DAY_ONE, last, organization="acme")
    where = (book.connection, book.namespace)
    found = await histogram(*where, "", None, last, DAY_SECONDS, scope=ACME)
    assert found is not None
    assert (found.total, found.source) == (len(wanted), "both")
    top = await values(*where, "", None, last, "user.id", 2, scope=ACME)
    assert top is not None
    counted = Counter(d["user"]["id"] for d in wanted)
    assert top.values == sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:2]
    assert top.other == len(wanted) - sum(count for _, count in top.values)
    sums = await totals(*where, "", None, last, ["organization.id"], scope=ACME)
    assert sums is not None
    assert [(g.key, g.row.events) for g in sums.groups] == [
        ({"organization.id": "acme"}, len(wanted))
    ]


async def test_values_tell_how_many_have_none(book: Book, rows: list[Row]) -> None:
    """Accesses without a tenant are counted as missing."""
    found = await values(
        book.connection, book.namespace, "not user.id:eve", None, NOW, "organization.id"
    )
    wanted = [d for d in documents(rows) if d["user"]["id"] != "eve"]
    counted = Counter(d.get("organization", {}).get("id", "") for d in wanted)
    assert found is not None
    assert (found.total, found.missing) == (len(wanted), counted.pop(""))
    assert dict(found.values) == counted


@pytest.mark.parametrize(
    "query",
    ["source.ip:10.0.0.1", "password", "http.response.status_code:503", "@timestamp > 2026-11-20",
     "user.id:ada and not error.type:*", "gatebook.phase:intent", "gatebook.subject:x"],
)  # fmt: skip
async def test_what_summaries_do_not_keep_they_do_not_answer(
    book: Book, rows: list[Row], query: str
) -> None:
    """Nobody is given a figure for another question than was asked."""
    where = (book.connection, book.namespace, query, None, NOW)
    assert await histogram(*where, DAY_SECONDS) is None
    assert await totals(*where) is None
    assert await values(*where, "user.id") is None


async def test_nor_other_intervals_and_fields(book: Book, rows: list[Row]) -> None:
    """Minutes, a split by an address; a field that is nowhere is an error, as in a search."""
    where = (book.connection, book.namespace)
    assert await histogram(*where, "", None, NOW, 60) is None
    assert await histogram(*where, "", None, NOW, HOUR_SECONDS, "source.ip") is None
    with pytest.raises(QueryError, match="no field has this name"):
        await histogram(*where, "usr.id:ada", None, NOW, HOUR_SECONDS)


async def test_without_summaries_details_are_asked(book: Book) -> None:
    """Nothing was ever summed up: no answer, not an empty one."""
    await book.write([event(1, DAY_ONE)])
    assert await histogram(book.connection, book.namespace, "", None, NOW, DAY_SECONDS) is None


async def test_a_range_that_begins_where_details_have_gone_says_so(
    book: Book, rows: list[Row]
) -> None:
    """Half an hour of which only the sum is left cannot be told: the whole one is, and named."""
    await book.connection.request("DELETE", f"/{book.namespace}-access-2026.11.20")
    await book.run(DAY_ONE + timedelta(hours=60))
    first, last = DAY_ONE + timedelta(hours=1, minutes=30), DAY_ONE + timedelta(hours=3, minutes=5)
    found = await histogram(book.connection, book.namespace, "", first, last, HOUR_SECONDS)
    assert found is not None
    assert (found.since, found.until) == (
        DAY_ONE + timedelta(hours=1),
        DAY_ONE + timedelta(hours=4),
    )
    assert found.total == len(matching(rows, found.since, found.until))
    assert found.source == "summaries"


async def test_an_erased_person_is_counted_and_not_named(book: Book, rows: list[Row]) -> None:
    """Rows of before say nobody's name: those of details that are there, those of details that
    went, and those that are summed up again; counts and the number of people stay."""
    await book.connection.request("DELETE", f"/{book.namespace}-access-2026.11.20")
    await book.run()
    where = (book.connection, book.namespace)
    before = await totals(*where, "", None, NOW, ["day"])
    tag = "tag-acme-ada-0123456789"
    at_ns = int(NOW.timestamp()) * 10**9
    done = await erase(*where, tag, at_ns)
    assert done["summary_rows"] > 0
    assert await erase(*where, tag, at_ns) | {"summary_indices": []} == done | {
        "summary_indices": []
    }
    assert await totals(*where, "", None, NOW, ["day"]) == before
    await book.write([event(20_000 + n, DAY_ONE + timedelta(hours=25)) for n in range(9)])
    await book.run()
    await book.run(force=True)
    assert (await book.check()).differences == []
    named = await totals(*where, "gatebook.principal:acme\\/user\\:ada", None, NOW)
    assert named is not None
    assert named.groups == []
    hidden = await totals(*where, f'gatebook.principal:"{erased_name(tag)}"', None, NOW)
    assert hidden is not None
    assert hidden.groups[0].principals == 1
    store = SummaryStore(book.connection, book.namespace)
    state = await book.connection.request(
        "POST", f"/{book.namespace}-rollup-state/_search", json={"size": 1_000}
    )
    kept = [h for h in state.body["hits"]["hits"] if h["_source"]["type"] in ("carried", "going")]
    assert kept
    assert not any(tag in str(hit) for hit in kept)
    assert [n.source["tag"] for n in await store.find("erased")] == [tag]
