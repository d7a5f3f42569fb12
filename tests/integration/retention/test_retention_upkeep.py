"""Cold days, large days, full disks, topics and concurrent runs, on real engines."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.retention.retention_tools import POLICY, TODAY, Store, day, document

from gatebook.processors.retention.disk import DiskKeeper
from gatebook.processors.retention.holds import put
from gatebook.processors.retention.lock import Busy, Lock
from gatebook.processors.retention.policy import Policy
from gatebook.processors.retention.rollover import cut_large_days
from gatebook.processors.sinks.base import BulkOutcome
from gatebook.processors.sinks.codec import BEST

COMPRESSED = POLICY + b'\n[cold]\nafter = "1d"\nbest_compression = true\n'


async def test_cold_days_become_one_segment_with_the_best_codec_there_is(
    store: Store, engines: Any
) -> None:
    """Written anew with best_compression where this cluster has it, else merged as they are; the
    same documents either way, and nothing to do the second time."""
    for n in range(3):
        await store.write(document(n, 2))
        await store.cluster.refresh(f"{store.namespace}-access")
    before = {i: hit["_source"] for i, hit in (await store.hits()).items()}
    certificate = await store.manager(COMPRESSED).apply("ada", "policy")
    assert certificate is not None
    (index,) = await store.cluster.indices("access")
    assert index.segments == 1
    assert (index.codec == BEST) is engines.best_compression_available
    assert {i: hit["_source"] for i, hit in (await store.hits()).items()} == before
    assert await store.manager(COMPRESSED).apply("ada", "policy") is None


async def test_a_large_day_goes_on_in_another_index(store: Store) -> None:
    """From a coming full hour on, by the event's own time: replays of either part meet their first
    copies, and a search sees one day."""
    policy = Policy.read(POLICY + b'\n[size]\nmax_index = "1kb"\n')
    start = TODAY
    noon = start + timedelta(hours=12)

    def at(hour: int) -> dict[str, Any]:
        text = (start + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
        return {**document(hour, 0), "@timestamp": text}

    early = [at(hour) for hour in (1, 12)]
    await store.write(*early)
    await store.cluster.refresh(f"{store.namespace}-access")
    cuts = await cut_large_days(store.cluster, store.state, policy, noon.timestamp())
    assert cuts == [(day(0), (start + timedelta(hours=13)).strftime("%Y-%m-%dT%H:%M:%S"))]
    assert await cut_large_days(store.cluster, store.state, policy, noon.timestamp()) == []
    late = [at(hour) for hour in (13, 20)]
    assert await store.write(*late, at(11)) == BulkOutcome(indexed=3)
    store.sink = store.new_sink()
    assert await store.write(*early, *late) == BulkOutcome(duplicates=4)
    assert await store.indices() == [f"access-{day(0)}", f"access-{day(0)}-p2"]
    assert len(await store.hits()) == 5


async def test_full_disks_take_the_policys_steps_in_order_and_never_what_is_held(
    store: Store,
) -> None:
    """Content first, then the oldest days, until enough is free; nothing young, nothing held."""
    text = POLICY.replace(b'"30d"', b'"400d"').replace(b'"10d"', b'"400d"')
    text = text.replace(b'full = "5d"', b'full = "400d"')
    text += b'\n[disk]\nwarn_percent = 50\nact_percent = 60\nkeep_at_least = "7d"\n'
    text += b'order = ["strip_full", "delete_oldest"]\n'
    policy = Policy.read(text)
    await store.write(
        *(document(n, days, level="full") for days in (3, 20, 30) for n in range(3)),
        *(document(n, 30, tenant="bank") for n in range(2)),
    )
    await put(store.state, store.hold("case", tenant="bank"))
    manager = store.manager(text)
    used = {"bytes": 55}

    async def usage() -> tuple[int, int]:
        return used["bytes"], 100

    async def large() -> tuple[int, int]:
        return 9 * 10**12, 10**13

    assert (
        await DiskKeeper(manager, policy, usage).forces(
            await DiskKeeper(manager, policy, usage).look()
        )
        == {}
    )
    keeper = DiskKeeper(manager, policy, large)
    forces = await keeper.forces(await keeper.look())
    names = {f"{store.namespace}-access-{day(n)}" for n in (20, 30)}
    assert set(forces) == names  # the young day is not in it
    assert all(force.strip == ("full",) for force in forces.values())
    await manager.apply("ada", "disks are full", forces)
    hits = (await store.hits()).values()
    full = [h["_index"] for h in hits if "full" in h["_source"]["gatebook"].get("sealed", {})]
    assert set(full) == {f"{store.namespace}-access-{day(3)}"}

    forces = await keeper.forces(await keeper.look())
    assert all(force.drop for force in forces.values())
    certificate = await manager.apply("ada", "disks are full", forces)
    assert certificate is not None
    assert {one["why"] for one in certificate["indices"]} == {"disk"}
    tenants = sorted(h["_source"]["organization"]["id"] for h in (await store.hits()).values())
    assert tenants == ["acme"] * 3 + ["bank"] * 2
    assert await keeper.forces(await keeper.look()) == {}  # nothing more may go


FULL_DISKS = POLICY.replace(b'"30d"', b'"400d"') + (
    b'\n[disk]\nwarn_percent = 50\nact_percent = 60\nkeep_at_least = "7d"\n'
    b'order = ["delete_oldest"]\n'
)


async def test_what_full_disks_take_is_found_out_with_few_requests_for_each_day(
    store: Store,
) -> None:
    """Each day is looked at once, however many there are: disks fill up while it is found out."""
    policy = Policy.read(FULL_DISKS)
    manager = store.manager(FULL_DISKS)
    asked, request = [], store.connection.request

    async def counted(method: str, path: str, **given: Any) -> Any:
        asked.append(path)
        return await request(method, path, **given)

    async def large() -> tuple[int, int]:
        return 9 * 10**12, 10**13

    async def requests() -> int:
        asked.clear()
        keeper = DiskKeeper(manager, policy, large)
        forces = await keeper.forces(await keeper.look())
        assert len(forces) == len(await store.indices())
        return len(asked)

    store.connection.request = counted  # type: ignore[method-assign]  # passes all of them on
    try:
        await store.write(*(document(1, 20 + n) for n in range(4)))
        few = await requests()
        await store.write(*(document(1, 30 + n) for n in range(8)))
        assert await requests() <= 3 * few
    finally:
        store.connection.request = request  # type: ignore[method-assign]


async def test_full_disks_take_no_more_than_it_needs(store: Store) -> None:
    """After each index it is measured again: a guess that was too high costs no day."""
    await store.write(*(document(1, 20 + n) for n in range(4)))

    async def usage() -> tuple[int, int]:
        return (9 * 10**12, 10**13) if len(await store.indices()) > 2 else (4, 10)

    await DiskKeeper(store.manager(FULL_DISKS), Policy.read(FULL_DISKS), usage).free("ada")
    assert await store.indices() == [f"access-{day(21)}", f"access-{day(20)}"]
    assert [act.details["indices"] for act in store.acts if act.action == "retention.apply"] == [
        "1",
        "1",
    ]


async def test_one_run_at_a_time_and_a_dead_one_is_taken_over(store: Store) -> None:
    """A second process is refused while the first may live; once its lease has ended it is not."""
    now = [time.time()]
    first = Lock(store.state, 60, lambda: now[0])
    second = Lock(store.state, 60, lambda: now[0])
    second._owner = {**second._owner, "host": "elsewhere"}
    await first.take()
    await first.take()
    with pytest.raises(Busy):
        await second.take()
    now[0] += 61
    await second.take()
    with pytest.raises(Busy):
        await first.take()
    await second.release()
    await first.take()


async def test_a_hold_that_comes_in_during_a_run_is_in_force_at_once(store: Store) -> None:
    """Put after the copy is made and before the old index goes: the copy is made again."""
    await store.write(*(document(n, 40) for n in range(4)))
    tasks: list[asyncio.Task[None]] = []

    def told(item: str, step: str) -> None:
        if step == "fill" and not tasks:
            hold = store.hold("late", query='event.id: "acme-40-00002"')
            tasks.append(asyncio.get_running_loop().create_task(put(store.state, hold)))

    manager = store.manager(told=told)
    await manager.apply("ada", "policy")
    await tasks[0]
    assert set(await store.hits()) <= {"acme-40-00002"}
    # It was put before the swap was noted, or waited for it: either way it tells the truth.
    held = await store.cluster.indices("access")
    assert [one.name.is_held for one in held] == [True]
