"""Keys are made once whoever asks, known for a lease, and gone after an erasure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pytest

from gatebook.processors.sinks.base import Row
from gatebook.processors.subjects import holds
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.keys import REDACTED, SubjectKey, packed
from gatebook.processors.subjects.searchable import SearchText
from gatebook.processors.subjects.state import Hold, change_state, job_id, key_id, read_states
from gatebook.processors.subjects.store import MemoryStore, StoreAway, Stored
from gatebook.processors.subjects.wrapping import WrappingKey, WrappingKeys
from gatebook.schemas.errors import Fatal

TAGS = SubjectTags(b"a key of tags, for tests")
WRAPPING = WrappingKeys([WrappingKey.of(b"a wrapping key for tests")])
CASE = Hold(id="case-1", reason="litigation", by="legal", at="2026-11-23T00:00:00Z")


class Clock:
    """A clock that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def ring(store: Any, clock: Clock | None = None, tags: SubjectTags = TAGS) -> KeyRing:
    return KeyRing(store, WRAPPING, tags, 10.0, clock or Clock())


async def test_workers_agree_on_a_key() -> None:
    """Ten workers that ask for the same new subjects at once get the same keys."""
    store = MemoryStore()
    rings = [ring(store) for _ in range(10)]
    await asyncio.gather(*(one.fetch(["ada", "bob"]) for one in rings))
    for tag in ("ada", "bob"):
        found = {entry.key.secret for one in rings if (entry := one.get(tag))}
        assert len(found) == 1


async def test_the_store_holds_no_key_in_the_clear() -> None:
    """What is stored opens nothing without the wrapping key, and is bound to its subject."""
    store = MemoryStore()
    keys = ring(store)
    await keys.fetch(["ada"])
    entry = keys.get("ada")
    assert entry is not None
    assert entry.key.secret.hex() not in str(store.documents)
    source = store.documents["ada.0"][1]
    with pytest.raises(Fatal, match="does not unwrap"):
        WRAPPING.unwrap("bob.0", source["wrapping_id"], source["wrapped"])


async def test_a_lease_ends_and_the_next_look_sees_the_erasure() -> None:
    """Within its lease a worker keeps its key; afterwards it learns of the erasure and gets
    another."""
    store, clock = MemoryStore(), Clock()
    keys = ring(store, clock)
    await keys.fetch(["ada"])
    await change_state(store, "ada", lambda state: state.erased(0, 77))
    await store.delete([key_id("ada", 0)])
    clock.seconds = 9.9
    keys.expire()
    assert keys.get("ada")
    clock.seconds = 10.0
    keys.expire()
    assert keys.get("ada") is None
    await keys.fetch(["ada"])
    entry = keys.get("ada")
    assert entry is not None
    assert (entry.key.id, entry.erased_before_ns) == ("ada.1", 77)


async def test_a_key_of_an_erased_generation_does_not_come_back() -> None:
    """A worker that was about to make the first key while the subject was erased leaves none
    behind."""

    class ErasedMeanwhile(MemoryStore):
        async def create(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
            if "ada.0" in documents:
                await change_state(self, "ada", lambda state: state.erased(0, 5))
            return await super().create(documents)

    store = ErasedMeanwhile()
    keys = ring(store)
    await keys.fetch(["ada"])
    entry = keys.get("ada")
    assert entry is not None
    assert entry.key.id == "ada.1"
    assert "ada.0" not in store.documents


async def test_index_makes_no_keys() -> None:
    """Who only opens learns that there is no key, and none is made by that."""
    store = MemoryStore()
    keys = ring(store)
    await keys.fetch(["ada"], create=False)
    assert keys.has("ada")
    assert keys.get("ada") is None
    assert "ada.0" not in store.documents


async def test_an_outage_of_the_store_is_waited_out() -> None:
    """Fetching goes on until the store answers; nothing is known before."""

    class Flaky(MemoryStore):
        refusals = 3

        async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
            if self.refusals:
                self.refusals -= 1
                raise StoreAway("not now")
            return await super().get(ids)

    keys = ring(Flaky())
    await asyncio.wait_for(keys.fetch(["ada"]), 30)
    assert keys.get("ada")


async def test_more_keys_than_the_limit_are_forgotten_oldest_first() -> None:
    """Memory is bounded; what is forgotten is fetched again, and is the same."""
    store = MemoryStore()
    keys = KeyRing(store, WRAPPING, TAGS, 10.0, Clock(), limit=3)
    for number in range(5):
        await keys.fetch([f"s{number}"])
    first = keys.get("s0")
    keys.expire()
    assert keys.get("s0") is None
    assert keys.get("s4")
    await keys.fetch(["s0"])
    assert keys.get("s0") == first


async def test_workers_with_other_keys_are_refused() -> None:
    """A worker with another key of tags, or without the wrapping key, ends with what to do."""
    store = MemoryStore()
    await ring(store).fetch(["ada"])
    with pytest.raises(Fatal, match="key of subjects' tags"):
        await ring(store, tags=SubjectTags(b"another key of tags")).fetch(["ada"])
    others = WrappingKeys([WrappingKey.of(b"some other wrapping key")])
    with pytest.raises(Fatal, match="not among ours"):
        await KeyRing(store, others, TAGS, 10.0).fetch(["ada"])


async def test_an_older_wrapping_key_still_unwraps() -> None:
    """After a rotation both work: the new one wraps, the old one opens what it wrapped."""
    store = MemoryStore()
    await ring(store).fetch(["ada"])
    rotated = WrappingKeys([WrappingKey.of(b"the newer wrapping key"), *WRAPPING.keys])
    keys = KeyRing(store, rotated, TAGS, 10.0)
    await keys.fetch(["ada", "bob"])
    assert store.documents["bob.0"][1]["wrapping_id"] == rotated.keys[0].id
    assert isinstance(keys.get("ada").key, SubjectKey)  # type: ignore[union-attr]  # just fetched


async def test_holds_come_and_go() -> None:
    """A hold stands until it is released; the same one twice is one; another stays."""
    store = MemoryStore()
    other = Hold(id="case-2", reason="audit", by="audit", at=CASE.at)
    for new in (CASE, CASE, other):
        await holds.hold(store, "ada", new)
    assert await holds.held_subjects(store) == {"ada": (CASE, other)}
    await holds.release(store, "ada", "case-1")
    assert await holds.held_subjects(store) == {"ada": (other,)}
    with pytest.raises(holds.NoSuchHold):
        await holds.release(store, "ada", "case-1")
    await holds.release(store, "ada", "case-2")
    assert await holds.held_subjects(store) == {}


async def test_what_is_being_erased_cannot_be_held() -> None:
    """An erasure that has only been asked for gives way to a hold; once it erases, a hold is
    refused; once it has ended, what comes in anew can be held."""
    store = MemoryStore()
    job = job_id("ada", 0)
    await store.create({job: {"type": "job", "tag": "ada", "done": False}})
    await holds.hold(store, "ada", CASE)
    await holds.release(store, "ada", CASE.id)
    await change_state(store, "ada", lambda state: state.erased(0, 5))
    with pytest.raises(holds.CannotHold):
        await holds.hold(store, "ada", CASE)
    stored = (await store.get([job]))[job]
    await store.replace(stored, {**stored.source, "done": True})
    state = await holds.hold(store, "ada", CASE)
    assert state.holds == (CASE,)


async def test_changes_of_one_subject_do_not_undo_each_other() -> None:
    """Many operators at once: every hold is there in the end."""
    store = MemoryStore()
    many = [Hold(id=f"case-{n}", reason="r", by="b", at=CASE.at) for n in range(20)]
    await asyncio.gather(*(holds.hold(store, "ada", one) for one in many))
    state = (await read_states(store, ["ada"]))["ada"]
    assert {hold.id for hold in state.holds} == {hold.id for hold in many}


async def test_index_looks_again_for_a_key_made_since() -> None:
    """A subject without a key a moment ago may have one now: text is not lost to search by what
    index remembers; without the key the document is passed on as it is."""
    store = MemoryStore()
    index, intake = SearchText(ring(store)), ring(store)
    gone = SubjectKey("ada.0", b"k" * 32)
    assert await index.fill([row_of("old", gone)]) == [row_of("old", gone)]
    await intake.fetch(["ada"])
    entry = intake.get("ada")
    assert entry is not None
    fresh, finding = row_of("new", entry.key), Row("finding", "2026.11.23", "f", "", b"{}")
    filled = await index.fill([fresh, finding, row_of("old", gone)])
    assert b"hello" in filled[0].body
    assert filled[1:] == [finding, row_of("old", gone)]


def row_of(event_id: str, key: SubjectKey) -> Row:
    """A document with sealed text that may be searched."""
    sealed = key.seal(REDACTED, event_id, packed({"input_messages": "hello"}))
    ours = {
        "subject": "ada",
        "capture": {"level": "redacted"},
        "sealed": {"key_id": key.id, "redacted": sealed},
    }
    document = {"event": {"id": event_id}, "gatebook": ours}
    return Row("access", "2026.11.23", event_id, "", orjson.dumps(document))
