"""Summaries equal their details: late, doubled, announced, killed, and when details go."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.summaries.book import (
    DAY_ONE,
    NOW,
    Book,
    by_day,
    documents,
    event,
    spread_out,
)

from gatebook.processors.sinks.connection import Answer, Connection
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.processors.summaries.answer import totals
from gatebook.processors.summaries.keeping import ensure, freeze
from gatebook.processors.summaries.reading import ONE_DAY
from gatebook.processors.summaries.rollup import Rollup
from gatebook.processors.summaries.rows import DAY, HOUR, Key, Row
from gatebook.processors.summaries.store import Overtaken, SummaryStore


async def test_days_equal_hours_equal_details(book: Book) -> None:
    """In every count, for every combination of fields, over days with full and empty hours."""
    await book.write(spread_out(3_000, DAY_ONE, 60))
    report = await book.run()
    assert (report.events, report.days, report.covered_until) == (3_000, 3, NOW)
    await book.assert_equal()


async def test_late_events_are_counted(book: Book) -> None:
    """An event of an hour long summed up changes that hour and its day, and nothing else is done
    again; without new events nothing is."""
    await book.write(spread_out(500, DAY_ONE, 48))
    await book.run()
    await book.write([event(9_001, DAY_ONE + timedelta(hours=3)), event(9_002, DAY_ONE)])
    again = await book.run()
    assert (again.hours, again.days) == (2, 1)
    await book.assert_equal()
    assert (await book.run()).hours == 0


async def test_an_hour_that_is_not_over_waits(book: Book) -> None:
    """It is summed up by the first run after it ended, with its day."""
    await book.write(spread_out(300, DAY_ONE, 24))
    noon = DAY_ONE + timedelta(hours=12)
    assert (await book.run(noon)).days == 0
    assert max(int(key[0]) for key in await book.summed(HOUR)) < noon.timestamp() * 1000
    await book.run()
    await book.assert_equal()


async def test_doubled_events_and_intents_count_once(book: Book) -> None:
    """A replay meets its first copy; what announces an access is no access."""
    rows = spread_out(200, DAY_ONE, 5)
    await book.write(rows)
    await book.write(rows)
    intent = {"gatebook": {"phase": "intent"}, "event": {"id": "event-000001:intent"}}
    await book.write([event(1, DAY_ONE, **intent)])
    assert (await book.run()).events == 200
    await book.assert_equal()


async def test_durations_and_principals_are_right_to_their_bounds(book: Book) -> None:
    """Quantiles of a whole day, merged from its hours, to 1 %; few principals exactly."""
    rows = spread_out(2_000, DAY_ONE, 24)
    await book.write(rows)
    await book.run()
    end = DAY_ONE + timedelta(days=1)
    found = await totals(book.connection, book.namespace, "", DAY_ONE, end, ["day"])
    assert found is not None
    assert found.source == "summaries"
    (group,) = found.groups
    durations = sorted(d["event"]["duration"] for d in documents(rows))
    for fraction in (0.5, 0.95, 0.99):
        exact = durations[int(fraction * (len(durations) - 1))]
        assert group.row.duration.quantile(fraction) == pytest.approx(exact, rel=0.011)
    assert group.row.duration.sum_ns == sum(durations)
    assert group.principals == len({d["gatebook"]["principal"] for d in documents(rows)})


class Cut(Exception):
    """The power went."""


class Failing(Connection):
    """Ends for good at the nth request, before or after it was carried out."""

    def __init__(self, url: str, requests: int, carried_out: bool) -> None:
        super().__init__(ElasticsearchSettings(url=url))
        self._left = requests
        self._carried_out = carried_out

    async def request(self, method: str, path: str, **given: Any) -> Answer:
        self._left -= 1
        if self._left < 0:
            raise Cut
        if self._left == 0:
            if self._carried_out:
                await super().request(method, path, **given)
            raise Cut
        return await super().request(method, path, **given)


@pytest.mark.parametrize("carried_out", [False, True])
async def test_whoever_runs_next_goes_on_where_one_died(book: Book, carried_out: bool) -> None:
    """A run that ends at any request, before or after the server did it, leaves nothing that the
    next run does not make right: again and again, with late events in between."""
    await book.write(spread_out(60, DAY_ONE, 3))
    await book.run()
    for requests in range(1 + carried_out, 200, 3):
        hour = DAY_ONE + timedelta(hours=requests % 4)
        await book.write([event(10_000 + requests, hour)])
        dying = Failing(book.url, requests, carried_out)
        store = SummaryStore(dying, book.namespace, lease_seconds=0.05)
        try:
            async with store.lease(5) as lease:
                await Rollup(store, lease).run(NOW)
        except Cut:
            continue
        finally:
            await dying.close()
        break
    else:
        pytest.fail("a run never came to its end")
    assert requests > 20, "it died at too few places to show anything"
    await book.run()
    await book.assert_equal()


async def test_a_run_that_stood_still_cannot_overwrite(book: Book) -> None:
    """Who writes rows of an older revision is refused, and two runs do not work at once."""
    await book.write(spread_out(50, DAY_ONE, 1))
    await book.run()
    await book.run(force=True)
    store = SummaryStore(book.connection, book.namespace)
    with pytest.raises(Overtaken):
        await store.write(HOUR, DAY_ONE, {key: Row() for key in (await _rows(book))[0]}, 1, True)
    async with store.lease():
        with pytest.raises(Overtaken):
            async with SummaryStore(book.connection, book.namespace).lease():
                pytest.fail("two at once")
    await book.assert_equal()


async def _rows(book: Book) -> list[dict[Key, Row]]:
    store = SummaryStore(book.connection, book.namespace)
    await store.refresh()
    return list((await store.read(HOUR, DAY_ONE, DAY_ONE + timedelta(hours=1))).values())


# --- details that go ---------------------------------------------------------------------------


async def _rewritten(book: Book, day: str, keep: Any) -> tuple[str, str]:
    """An index that holds a part of a day's documents and is not searched yet; old and new."""
    old, new = f"{book.namespace}-access-{day}", f"{book.namespace}-access-{day}-r1"
    connection = book.connection
    await connection.request("PUT", f"/{new}", json={})
    actions = [{"remove": {"index": new, "alias": f"{book.namespace}-access"}}]
    await connection.request("POST", "/_aliases", json={"actions": actions})
    found = await connection.request("POST", f"/{old}/_search", json={"size": 10_000})
    for hit in found.body["hits"]["hits"]:
        if keep(hit["_id"]):
            await connection.request("PUT", f"/{new}/_doc/{hit['_id']}", json=hit["_source"])
    await connection.request("POST", f"/{new}/_refresh")
    return old, new


async def _swap(book: Book, old: str, new: str) -> None:
    actions = [
        {"remove_index": {"index": old}},
        {"add": {"index": new, "alias": f"{book.namespace}-access"}},
        {"add": {"index": new, "alias": old}},
    ]
    answer = await book.connection.request("POST", "/_aliases", json={"actions": actions})
    assert answer.status == 200, answer.body


async def _everything(book: Book) -> list[Counter[tuple[str, ...]]]:
    return [await book.summed(grain) for grain in (HOUR, DAY)]


async def test_summaries_stay_when_a_part_of_the_details_goes(book: Book) -> None:
    """Two of three events of a day are taken away, one after the other retention; late events of
    that day are added to what is kept, and every count stays exact."""
    rows = spread_out(400, DAY_ONE, 24)
    await book.write(rows)
    await book.run()
    await ensure(book.connection, book.namespace, DAY_ONE, DAY_ONE + timedelta(days=1))
    rows += (unseen := spread_out(20, DAY_ONE, 24, first=4_000))
    await book.write(unseen)  # before the index was closed to them
    old, new = await _rewritten(book, "2026.11.20", lambda i: int(i[-6:]) % 3 == 0)
    details = await book.details()
    await freeze(book.connection, book.namespace, [old], [new])
    before = await _everything(book)
    assert before[0] == details
    assert before[1] == by_day(*before)
    await book.run()  # the old index is still there: nothing may be counted twice
    assert await _everything(book) == before
    await _swap(book, old, new)
    checked = await book.check()  # what went is accounted for, though no run has been since
    assert (checked.differences, checked.events, checked.waiting) == ([], 420, [])
    report = await book.run()
    assert report.went_unannounced == []
    assert await _everything(book) == before
    assert (await book.check()).differences == []

    late = spread_out(30, DAY_ONE, 24, first=5_000)
    await book.write(late)  # they go to the new index, by the old one's name
    await book.run()
    total = await totals(book.connection, book.namespace, "", DAY_ONE, NOW)
    assert total is not None
    assert total.groups[0].row.events == 450
    tokens = sum(d["gen_ai"]["usage"]["input_tokens"] for d in documents([*rows, *late]))
    assert total.groups[0].row.input_tokens == tokens

    # All of it goes: nothing but summaries is left.
    await freeze(book.connection, book.namespace, [new], [])
    await book.connection.request("DELETE", f"/{new}")
    await book.run()
    await book.run(force=True)
    gone = await totals(book.connection, book.namespace, "", DAY_ONE, NOW)
    assert gone is not None
    assert gone.groups[0].row == total.groups[0].row
    checked = await book.check()
    assert (checked.differences, checked.carried) == ([], 450)


async def test_freezing_may_die_anywhere(book: Book) -> None:
    """A freeze that ends at any request, and one whose retention gives up, change no count."""
    await book.write(spread_out(40, DAY_ONE, 2))
    await book.run()
    before = await _everything(book)
    old, new = await _rewritten(book, "2026.11.20", lambda i: int(i[-6:]) % 2 == 0)
    for requests in range(1, 200, 3):
        dying = Failing(book.url, requests, carried_out=True)
        store = SummaryStore(dying, book.namespace, lease_seconds=0.05)
        try:
            async with store.lease(5) as lease:
                await Rollup(store, lease).freeze([old], [new])
        except Cut:
            await book.run(force=True)
            assert await _everything(book) == before
            continue
        finally:
            await dying.close()
        break
    await _swap(book, old, new)
    for requests in range(2, 200, 3):  # and so may the run that finds the details gone
        dying = Failing(book.url, requests, carried_out=True)
        store = SummaryStore(dying, book.namespace, lease_seconds=0.05)
        try:
            async with store.lease(5) as lease:
                await Rollup(store, lease).run(NOW, force=True)
        except Cut:
            continue
        finally:
            await dying.close()
        break
    await book.run(force=True)
    assert await _everything(book) == before
    assert (await book.check()).differences == []


async def test_an_index_deleted_by_hand_takes_no_sum_with_it(book: Book) -> None:
    """Nobody told us; the run says so, keeps what was summed up, and counts on."""
    await book.write(spread_out(100, DAY_ONE, 30))
    await book.run()
    before = await _everything(book)
    await book.connection.request("DELETE", f"/{book.namespace}-access-2026.11.20")
    report = await book.run()
    assert report.went_unannounced
    assert await _everything(book) == before
    await book.write([event(7_000, DAY_ONE + timedelta(hours=1))])
    await book.run()
    total = await totals(book.connection, book.namespace, "", DAY_ONE, NOW)
    assert total is not None
    assert total.groups[0].row.events == 101


async def test_the_check_finds_what_was_tampered_with(book: Book) -> None:
    """A row that somebody changed, one that is missing, and events that came in since."""
    await book.write(spread_out(100, DAY_ONE, 30))
    await book.run()
    index = f"{book.namespace}-summary-hour-2026.11"
    found = await book.connection.request("POST", f"/{index}/_search", json={"size": 1})
    hit = found.body["hits"]["hits"][0]
    hit["_source"]["summary"]["events"] += 1
    params = {"refresh": "true"}
    path = f"/{index}/_doc/{hit['_id']}"
    await book.connection.request("PUT", path, params=params, json=hit["_source"])
    assert any(one.grain == HOUR for one in (await book.check()).differences)
    await book.run(force=True)
    await book.assert_equal()
    await book.connection.request("DELETE", path, params=params)
    assert (await book.check()).differences
    await book.run(force=True)
    await book.write([event(8_000, DAY_ONE)])
    (difference, *_) = (await book.check()).differences
    assert (difference.grain, difference.at) == (HOUR, "2026-11-20T00:00:00Z")
    assert "events" in difference.what
    await book.run()
    await book.assert_equal()


async def test_hours_that_no_run_has_seen_are_no_difference(book: Book) -> None:
    """They are named, for the next run; an hour that was summed up and has more since differs."""
    await book.write(spread_out(20, DAY_ONE, 1) + spread_out(20, DAY_ONE + ONE_DAY, 1, first=100))
    await book.run()
    unseen = DAY_ONE + timedelta(hours=5)
    await book.write([event(9_000, unseen)])
    checked = await book.check()
    assert (checked.differences, checked.waiting) == ([], ["2026-11-20T05:00:00Z"])
    assert checked.events == 40
    await book.write([event(9_001, DAY_ONE)])
    assert {one.at for one in (await book.check()).differences} == {"2026-11-20T00:00:00Z"}
    await book.run()
    await book.assert_equal()
    assert (await book.check()).waiting == []
