"""What is kept of a subject besides keys: how often content was erased, and legal holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gatebook.processors.subjects.store import Stored, SubjectStore
from gatebook.schemas.errors import GatebookError

SUBJECT = "subject"
KEY = "key"
JOB = "job"
MAX_TRIES = 50


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A legal hold: while it stands, nothing of the subject is erased or dropped by retention."""

    id: str
    reason: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class SubjectState:
    """Generation n: content was erased n times, and the key in use is the one after that."""

    tag: str
    generation: int = 0
    erased_before_ns: int = 0
    holds: tuple[Hold, ...] = ()

    @classmethod
    def of(cls, tag: str, stored: Stored | None) -> SubjectState:
        """From the store's document, where there is one."""
        if stored is None:
            return cls(tag)
        source = stored.source
        holds = msgspec.convert(source["holds"], tuple[Hold, ...])
        return cls(tag, source["generation"], source["erased_before_ns"], holds)

    def source(self) -> dict[str, Any]:
        """The store's document."""
        return {
            "type": SUBJECT,
            "tag": self.tag,
            "generation": self.generation,
            "erased_before_ns": self.erased_before_ns,
            "held": bool(self.holds),
            "holds": msgspec.to_builtins(self.holds),
        }

    def erased(self, generation: int, before_ns: int) -> SubjectState:
        """The state after the erasure of a generation; the same where that is done already."""
        if self.generation > generation:
            return self
        before = max(before_ns, self.erased_before_ns)
        return replace(self, generation=generation + 1, erased_before_ns=before)


class TooBusy(GatebookError):
    """Others kept changing the same subject."""


def key_id(tag: str, generation: int) -> str:
    """The id of a subject's key, on events and in the store."""
    return f"{tag}.{generation}"


def is_key_id(document_id: str) -> bool:
    """Whether a document of the store is a key."""
    return "." in document_id and not document_id.startswith("job.")


def job_id(tag: str, generation: int) -> str:
    """The id of the job that erases a generation: there is one, however often it is asked for."""
    return f"job.{tag}.{generation}"


async def read_states(store: SubjectStore, tags: Iterable[str]) -> dict[str, SubjectState]:
    """The state of each subject; a new one has none stored yet."""
    wanted = list(tags)
    stored = await store.get(wanted)
    return {tag: SubjectState.of(tag, stored.get(tag)) for tag in wanted}


async def change_state(
    store: SubjectStore, tag: str, change: Callable[[SubjectState], SubjectState]
) -> SubjectState:
    """Apply a change to a subject's state, whoever else changes it; the state afterwards. What
    `change` raises goes on to the caller, and nothing is changed. Raises StoreAway, TooBusy."""
    for _ in range(MAX_TRIES):
        stored = (await store.get([tag])).get(tag)
        before = SubjectState.of(tag, stored)
        after = change(before)
        if after == before:
            return after
        if stored is None:
            done = bool(await store.create({tag: after.source()}))
        else:
            done = await store.replace(stored, after.source())
        if done:
            return after
    raise TooBusy("the subject keeps being changed by others; try again")
