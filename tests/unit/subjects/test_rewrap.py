"""Keys that are wrapped anew: all of them, whoever else is at work, and none that was destroyed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.keys import SubjectKey
from gatebook.processors.subjects.rewrap import counted, rewrap
from gatebook.processors.subjects.store import MemoryStore, StoreAway, Stored
from gatebook.processors.subjects.wrapping import (
    KeyFolder,
    NamedSources,
    WrappingKey,
    WrappingKeys,
)
from gatebook.schemas.errors import Fatal

TAGS = SubjectTags(b"a tag key for tests")
PEOPLE = [f"person{number}" for number in range(7)]


class Paged(MemoryStore):
    """Gives pages of two, and something happens between them."""

    async def pages(self, kind: str) -> AsyncIterator[list[Stored]]:
        found = await self.find(kind)
        for start in range(0, len(found), 2):
            yield found[start : start + 2]
            await self.meanwhile(start)

    async def meanwhile(self, start: int) -> None:
        """Others at work."""


def ring(store: MemoryStore, wrapping: WrappingKeys) -> KeyRing:
    return KeyRing(store, wrapping, TAGS, 10.0)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "subject-wrapping.key")
    made.first.write_bytes(b"the first wrapping key")
    return made


async def secrets(store: MemoryStore, wrapping: WrappingKeys) -> dict[str, SubjectKey]:
    return await ring(store, wrapping).keys(i for i in store.documents if i.endswith(".0"))


async def test_all_keys_are_under_the_new_one_and_are_the_same(folder: KeyFolder) -> None:
    """Afterwards the new wrapping key alone opens them."""
    store, wrapping = Paged(), WrappingKeys.of(folder)
    await ring(store, wrapping).fetch(PEOPLE)
    before = await secrets(store, wrapping)
    folder.make()
    wrapping.refresh()
    found = await rewrap(store, wrapping)
    assert (found.rewrapped, found.left) == (len(PEOPLE), 0)
    assert found.under == {wrapping.newest.id: len(PEOPLE)}
    assert await secrets(store, WrappingKeys([wrapping.newest])) == before
    assert (await rewrap(store, wrapping)).rewrapped == 0


async def test_interrupted_it_goes_on_where_it_was(folder: KeyFolder) -> None:
    """Half of the keys are under each wrapping key meanwhile, and all of them open."""

    class Breaking(Paged):
        async def meanwhile(self, start: int) -> None:
            if start == 2:
                raise StoreAway("gone")

    store, wrapping = Breaking(), WrappingKeys.of(folder)
    await ring(store, wrapping).fetch(PEOPLE)
    before = await secrets(store, wrapping)
    folder.make()
    wrapping.refresh()
    with pytest.raises(StoreAway):
        await rewrap(store, wrapping)
    assert await secrets(store, WrappingKeys.of(folder)) == before
    rest = Paged(store.documents, store.writes)
    assert sorted((await counted(rest)).values()) == [3, 4]
    assert (await rewrap(rest, wrapping)).rewrapped == 3
    assert await secrets(rest, WrappingKeys([wrapping.newest])) == before


async def test_what_others_do_meanwhile_holds(folder: KeyFolder) -> None:
    """A key that an erasure destroys stays destroyed; one that a worker makes is under the new
    wrapping key, though the worker read its keys before there was a new one."""
    wrapping, workers = WrappingKeys.of(folder), WrappingKeys.of(folder)

    class Busy(Paged):
        async def rewrite(self, changed: Sequence[tuple[Stored, Mapping[str, Any]]]) -> set[str]:
            await self.delete(["person3.0"])
            return await super().rewrite(changed)

        async def meanwhile(self, start: int) -> None:
            await ring(self, workers).fetch([f"late{start}"])

    store = Busy()
    await ring(store, wrapping).fetch(PEOPLE)
    folder.make()
    wrapping.refresh()
    found = await rewrap(store, wrapping)
    assert "person3.0" not in store.documents
    assert found.rewrapped == len(PEOPLE) - 1
    assert found.left == 0
    assert "late0.0" in store.documents


async def test_a_key_stored_as_the_new_one_becomes_current_is_put_right(folder: KeyFolder) -> None:
    """Even where the old one is destroyed by then."""
    workers = WrappingKeys.of(folder)

    class Slow(MemoryStore):
        async def create(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
            created = await super().create(documents)
            if any(document_id.endswith(".0") for document_id in created):
                folder.make()
                folder.first.unlink()
            return created

    store = Slow()
    keys = ring(store, workers)
    await keys.fetch(["ada"])
    newest = WrappingKeys.of(folder)
    assert len(newest.keys) == 1
    assert await counted(store) == {newest.newest.id: 1}
    entry = keys.get("ada")
    assert entry is not None
    assert (await ring(store, newest).keys(["ada.0"]))["ada.0"] == entry.key


async def test_a_key_that_came_since_is_read_when_it_is_named(folder: KeyFolder) -> None:
    """A worker needs no restart for a new wrapping key, and ends where there is none."""
    store, workers = MemoryStore(), WrappingKeys.of(folder)
    made = folder.make()
    await ring(store, WrappingKeys.of(folder)).fetch(["ada"])
    assert await secrets(store, workers)
    made.unlink()
    with pytest.raises(Fatal, match="not among ours"):
        await secrets(store, WrappingKeys.of(folder))


def test_the_newest_key_of_a_folder_wraps(folder: KeyFolder) -> None:
    """By number, not by name; what is no key of ours is passed over."""
    made = [folder.make() for _ in range(10)]
    folder.first.with_name("subject-wrapping.old.key").write_bytes(
        b"somebody's own, no key of ours"
    )
    assert folder.files() == [*reversed(made), folder.first]
    assert made[-1].name == "subject-wrapping.11.key"
    assert WrappingKeys.of(folder).newest.id == folder.id_of(made[-1])
    assert folder.settles_in_seconds(0.0) > 0


def test_sources_that_cannot_be_read_change_nothing(tmp_path: Path) -> None:
    """The keys of before stay; at the start there is none without them."""
    path = tmp_path / "kek"
    path.write_bytes(b"sixteen bytes or more")
    wrapping = WrappingKeys.of(NamedSources.of(f"file:{path},"))
    before = list(wrapping.keys)
    path.unlink()
    wrapping.refresh()
    assert wrapping.keys == before == [WrappingKey.of(b"sixteen bytes or more")]
    with pytest.raises(Fatal, match="no wrapping key"):
        WrappingKeys.of(NamedSources.of(f"file:{path}"))
    with pytest.raises(Fatal, match="no wrapping key"):
        WrappingKeys.of(NamedSources.of(","))
