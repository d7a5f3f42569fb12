"""Wraps subjects' keys anew, under the wrapping key that is current. Pure but for the store.

A stored key is replaced only where it is still the one that was read: what an erasure deletes
meanwhile stays deleted. Each one is under an old wrapping key or under the new one, never under
none, and workers have both: so it may be interrupted anywhere, and goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gatebook.processors.subjects.state import KEY
from gatebook.processors.subjects.store import Stored, SubjectStore
from gatebook.processors.subjects.wrapping import WrappingKeys

MAX_PASSES = 10
"""Over all keys: a pass finds what others made or changed during the one before."""


@dataclass
class Rewrapped:
    """What was done, and what there was at the last look."""

    wrapping_id: str
    """The key that is current."""
    rewrapped: int = 0
    under: dict[str, int] = field(default_factory=dict)
    """Subjects' keys by the id of the wrapping key they are under, at the last look."""

    @property
    def left(self) -> int:
        """Keys under another wrapping key than the current one."""
        return sum(self.under.values()) - self.under.get(self.wrapping_id, 0)


async def counted(store: SubjectStore) -> dict[str, int]:
    """How many subjects' keys are under each wrapping key. Raises StoreAway."""
    under: Counter[str] = Counter()
    async for page in store.pages(KEY):
        under.update(stored.source["wrapping_id"] for stored in page)
    return dict(under)


async def rewrap(
    store: SubjectStore, wrapping: WrappingKeys, told: Callable[[int], None] = lambda done: None
) -> Rewrapped:
    """Put every key under the current wrapping key; `told` how many are done after each page.

    Returns when a look finds none under another one and the old copies are off the store's own
    disks; or, with some `left`, where others keep making them: a worker there has no part in the
    new key. Raises StoreAway, and Fatal where a key does not unwrap.
    """
    result = Rewrapped(wrapping.newest.id)
    for _ in range(MAX_PASSES):
        async for page in store.pages(KEY):
            result.rewrapped += await _page(store, wrapping, page)
            # If we die here, these pages are done and the rest is as it was.
            told(result.rewrapped)
        result.under = await counted(store)
        if not result.left:
            await store.purge()
            break
    return result


async def rewrap_stored(store: SubjectStore, wrapping: WrappingKeys, ids: Iterable[str]) -> int:
    """Put these keys under the current wrapping key, as far as they are there; how many."""
    return await _page(store, wrapping, list((await store.get(ids)).values()))


async def _page(store: SubjectStore, wrapping: WrappingKeys, page: Sequence[Stored]) -> int:
    current = wrapping.newest.id
    old = [stored for stored in page if stored.source["wrapping_id"] != current]
    return len(await store.rewrite([(stored, _anew(wrapping, stored)) for stored in old]))


def _anew(wrapping: WrappingKeys, stored: Stored) -> dict[str, Any]:
    source = stored.source
    key = wrapping.unwrap(stored.id, source["wrapping_id"], source["wrapped"])
    wrapping_id, wrapped = wrapping.wrap(key)
    return {**source, "wrapping_id": wrapping_id, "wrapped": wrapped}
