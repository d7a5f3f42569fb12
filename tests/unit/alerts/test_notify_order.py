"""What the notify worker stores first: the record of a delivery, then that it was made."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.alerts.desks import Room
from tests.unit.alerts.findings import finding

from gatebook.processors.alerts.desk import Desk
from gatebook.processors.config import WorkerSettings
from gatebook.processors.delivery import Outgoing
from gatebook.processors.stages.notify import NotifyStage


async def test_a_delivery_that_is_settled_meanwhile_is_made_again_where_its_record_is_lost() -> (
    None
):
    """Another delivery ends while the records of the first are on their way. A worker that dies
    right after that leaves a state in which the second was not made: else its record, which the
    worker still had in memory, would be missing for good."""
    room = Room()
    room.take(finding("acme/a"), finding("acme/b"))
    first, second = room.due()
    stage = NotifyStage(WorkerSettings(), room.plan)
    stage._desks[0] = room.desk
    batches: list[list[Outgoing]] = []

    class Broker:
        """Slow: while it takes the first batch, the second delivery ends."""

        async def deliver(self, messages: Sequence[Outgoing]) -> None:
            if not batches:
                await stage._deliver(room.desk, second)
            batches.append(list(messages))

    stage._deliverer = Broker()  # type: ignore[assignment]  # all that is asked of it
    await stage._deliver(room.desk, first)
    await stage._store()
    records, state = batches
    assert len(records) == 1
    other = Desk(room.plan)
    other.load([*room.stored, *((m.key or b"", m.value) for m in state)])
    assert [job.key for job in other.tick(room.now_ns)] == [second.key]

    await stage._store()
    assert len(batches[2]) == 1
    other = Desk(room.plan)
    stored = [*state, *batches[3]]
    other.load([*room.stored, *((m.key or b"", m.value) for m in stored)])
    assert other.tick(room.now_ns) == []
