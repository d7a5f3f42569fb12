"""Keys at hand: fetched before they are needed, kept for as long as a lease, then asked for again.

An erasure waits for a lease to end before it destroys keys, so no worker goes on with an old one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gatebook.processors import metrics
from gatebook.processors.sinks.backoff import Backoff
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keys import KEY_BYTES, SubjectKey
from gatebook.processors.subjects.layers import KeyEntry
from gatebook.processors.subjects.rewrap import rewrap_stored
from gatebook.processors.subjects.state import KEY, SubjectState, key_id, read_states
from gatebook.processors.subjects.store import StoreAway, Stored, SubjectStore
from gatebook.processors.subjects.wrapping import WrappingKeys
from gatebook.schemas.errors import Fatal

log = logging.getLogger(__name__)

MAX_ENTRIES = 50_000
FETCH_AT_ONCE = 500
CHECK_ID = "tag-key"
CHECK_TYPE = "check"


@dataclass(slots=True)
class _Leased:
    entry: KeyEntry | None
    until: float


class KeyRing:
    """Subjects' keys by tag. `get` never waits; `fetch` waits for as long as the store is away."""

    def __init__(
        self,
        store: SubjectStore,
        wrapping: WrappingKeys,
        tags: SubjectTags,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        limit: int = MAX_ENTRIES,
    ) -> None:
        self._store = store
        self._wrapping = wrapping
        self._tags = tags
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._limit = limit
        self._leased: dict[str, _Leased] = {}
        self._checked = False

    def get(self, tag: str) -> KeyEntry | None:
        """The entry, where it was leased and `expire` has not dropped it since."""
        found = self._leased.get(tag)
        return found.entry if found else None

    def has(self, tag: str) -> bool:
        """Whether it is known of this tag what there is; that may be: no key."""
        return tag in self._leased

    def expire(self) -> None:
        """Forget what is older than its lease, and the oldest beyond the limit. Called between
        batches: within one, what was fetched stays."""
        now = self._clock()
        for tag in [t for t, leased in self._leased.items() if leased.until <= now]:
            del self._leased[tag]
        while len(self._leased) > self._limit:
            del self._leased[next(iter(self._leased))]

    async def fetch(self, tags: Iterable[str], create: bool = True) -> None:
        """Returns when `get` knows all of these; with `create`, when all of them have a key, made
        where there was none. Waits for as long as the store is away. Raises Fatal."""
        wanted = sorted(set(tags))
        backoff = Backoff(0.1, 5.0)
        for start in range(0, len(wanted), FETCH_AT_ONCE):
            part = wanted[start : start + FETCH_AT_ONCE]
            await self._fetch_patiently(part, create, backoff)

    async def _fetch_patiently(self, tags: list[str], create: bool, backoff: Backoff) -> None:
        while True:
            try:
                return await self._fetch(tags, create)
            except StoreAway as error:
                metrics.SUBJECT_WAITS.inc()
                if backoff.attempts & (backoff.attempts + 1) == 0:  # the tries 1, 2, 4, 8, ...
                    log.warning("keys of subjects cannot be fetched (%s): waiting", error)
            await asyncio.sleep(backoff.next_wait_seconds())

    async def _fetch(self, tags: list[str], create: bool) -> None:
        await self._check()
        until = self._clock() + self._lease_seconds  # from before we asked: rather too short
        left = set(tags)
        while left:
            found = await self._entries(left)
            missing = left - found.keys()
            if not create:
                found |= dict.fromkeys(missing)
            for tag, entry in found.items():
                self._leased.pop(tag, None)
                self._leased[tag] = _Leased(entry, until)
            left -= found.keys()
            if left:
                await self._create(left)

    async def _entries(self, tags: Iterable[str]) -> dict[str, KeyEntry | None]:
        """Entries of the subjects that have a key."""
        states = await read_states(self._store, tags)
        ids = {tag: key_id(tag, state.generation) for tag, state in states.items()}
        stored = await self._store.get(ids.values())
        return {
            tag: KeyEntry(self._unwrapped(stored[ids[tag]]), states[tag].erased_before_ns)
            for tag in ids
            if ids[tag] in stored
        }

    async def _create(self, tags: Iterable[str]) -> None:
        """Make keys. Whoever is first wins: we read again afterwards what there is.

        An erasure may have ended between our look and now: a key of a generation that is over by
        now is taken away again. If we die before that, it stays and nothing is sealed under it.
        """
        self._wrapping.refresh()
        newest = self._wrapping.newest
        states = await read_states(self._store, tags)
        fresh = {key_id(t, s.generation): self._fresh(t, s) for t, s in states.items()}
        created = await self._store.create(fresh)
        now = await read_states(self._store, tags)
        over = [t for t, state in states.items() if now[t].generation != state.generation]
        stale = {key_id(tag, states[tag].generation) for tag in over}
        await self._store.delete(stale & created)
        self._wrapping.refresh()
        if self._wrapping.newest != newest:  # another became current meanwhile
            # If we die here, a key is left under the one before: the next rewrap finds it.
            await rewrap_stored(self._store, self._wrapping, created - stale)

    def _fresh(self, tag: str, state: SubjectState) -> dict[str, str | int]:
        key = SubjectKey(key_id(tag, state.generation), os.urandom(KEY_BYTES))
        wrapping_id, wrapped = self._wrapping.wrap(key)
        return {
            "type": KEY,
            "tag": tag,
            "generation": state.generation,
            "wrapping_id": wrapping_id,
            "wrapped": wrapped,
        }

    def _unwrapped(self, stored: Stored) -> SubjectKey:
        source = stored.source
        return self._wrapping.unwrap(stored.id, source["wrapping_id"], source["wrapped"])

    async def keys(self, ids: Iterable[str]) -> dict[str, SubjectKey]:
        """Those of these keys that still exist, unwrapped. Raises StoreAway, Fatal."""
        stored = await self._store.get(ids)
        return {key: self._unwrapped(document) for key, document in stored.items()}

    async def _check(self) -> None:
        """Workers with different keys for tags would each know half of a person."""
        if self._checked:
            return
        ours = self._tags.digest("check", b"").hex()
        if not await self._store.create({CHECK_ID: {"type": CHECK_TYPE, "digest": ours}}):
            stored = (await self._store.get([CHECK_ID])).get(CHECK_ID)
            if stored is not None and stored.source["digest"] != ours:
                raise Fatal(
                    "the key of subjects' tags is not the one this namespace was begun with",
                    "give all workers the same file: GATEBOOK_SUBJECT_TAG_KEY_FILE",
                )
        self._checked = True
