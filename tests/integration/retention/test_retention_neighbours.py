"""Search and erasure go on working over days that were rewritten, held or cut."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson
from tests.integration.retention.retention_tools import POLICY, Store, day, document

from gatebook.processors.retention.state import missing_ranges, thinned_ranges
from gatebook.processors.search import service
from gatebook.processors.subjects.documents import Documents, Person
from gatebook.processors.subjects.erasure import stripped_of
from gatebook.processors.summaries import keeping
from gatebook.processors.summaries.check import check
from gatebook.processors.summaries.rollup import Rollup, settled
from gatebook.processors.summaries.store import SummaryStore


async def test_searches_find_what_is_left_by_any_way(store: Store) -> None:
    """By query over a point in time, by id, and by count; of held days as of rewritten ones."""
    events = [document(n, 12, level="full") for n in range(7)]
    old = [document(n, 40) for n in range(7)]
    await store.write(*events, *old)
    store.held = {"tag-2": ()}
    await store.manager().apply("ada", "policy")
    pages = service.search(store.connection, store.namespace, "gatebook.subject: tag-2", size=None)
    found = [hit.id async for page in pages for hit in page.hits]
    assert sorted(found) == ["acme-12-00002", "acme-40-00002"]
    (hit,) = await service.find(store.connection, store.namespace, "acme-12-00003")
    assert hit.index == f"{store.namespace}-access-{day(12)}-r1"
    assert await service.existing(store.connection, store.namespace, ["acme-40-00003"]) == set()


async def test_a_person_can_be_erased_after_a_rewrite(store: Store) -> None:
    """Their documents are found, stripped, and expunged from the indices they stand in now; an
    index that went meanwhile is no obstacle."""
    await store.write(*(document(n, 7, level="full") for n in range(7)))
    await store.manager().apply("ada", "policy")
    documents = Documents(store.connection, store.namespace)
    await documents.refresh()
    person = Person("tag-4")
    batch = []
    async for found in documents.scan(person.query()):
        stripped = stripped_of(found.source, "tag-4", {"tag-4.0"}, 0, names=False)
        assert stripped is not None
        batch.append((found, stripped))
    assert (await documents.rewrite(batch)).done == 1
    await documents.expunge([f"{store.namespace}-access-{day(7)}-r1", f"{store.namespace}-gone"])
    hit = (await store.hits())["acme-7-00004"]
    assert b"walrus" not in orjson.dumps(hit["_source"])
    assert len(await store.hits()) == 7


async def test_what_a_search_does_not_see_any_more_can_be_told(store: Store) -> None:
    """Days that are gone and days that are thinned are named, for whoever shows results."""
    await store.write(
        *(document(n, 40) for n in range(2)),
        *(document(n, 5, tenant="noise") for n in range(30)),
    )
    await store.manager().apply("ada", "policy")
    found = await missing_ranges(store.state, "access", day(60), day(0))
    assert [(one.slot, one.thinned) for one in found] == [(day(40), False), (day(5), True)]
    (thinned,) = await thinned_ranges(store.state)
    assert (thinned.slot, thinned.keep_one_in) == (day(5), 4)


class Kept:
    """Summaries of a store, as the command gives them to a run."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ensure(self, since: datetime, until: datetime) -> None:
        await keeping.ensure(self._store.connection, self._store.namespace, since, until)

    async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
        await keeping.freeze(self._store.connection, self._store.namespace, leaving, coming)

    async def run(self) -> None:
        """As `gatebook summary run`."""
        summaries = SummaryStore(self._store.connection, self._store.namespace)
        async with summaries.lease(10) as lease:
            await Rollup(summaries, lease).run(settled(datetime.now(UTC)) - timedelta(hours=1))


async def test_summaries_hold_right_after_a_run_that_left_what_is_held(store: Store) -> None:
    """The check finds no difference before the next `gatebook summary run`, nor after it, and
    counts what went; and so again when the rest goes."""
    await store.write(*(document(n, 40) for n in range(70)))
    kept = Kept(store)
    await kept.run()
    policy = POLICY.replace(b"summaries = false", b"summaries = true")
    store.held = {"tag-2": ()}
    for held in (10, 0):
        await store.manager(policy, summaries=kept).apply("ada", "policy")
        assert len(await store.hits()) == held
        for _ in range(2):
            checked = await check(store.connection, store.namespace)
            assert (checked.differences, checked.waiting) == ([], [])
            assert (checked.events, checked.carried) == (70, 70 - held)
            await kept.run()
        store.held = {}
