"""Legal holds: while one stands, nothing of the subject is erased, and retention leaves it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gatebook.processors.subjects.state import (
    SUBJECT,
    Hold,
    SubjectState,
    change_state,
    job_id,
    read_states,
)
from gatebook.processors.subjects.store import SubjectStore
from gatebook.schemas.errors import GatebookError

EXIT_HELD = 4


class Held(GatebookError):
    """A legal hold stands in the way."""

    exit_code = EXIT_HELD
    next_step = "`gatebook subject list-holds` shows them; `gatebook subject release` ends one"
    what = "the subject is"

    def __init__(self, holds: tuple[Hold, ...]) -> None:
        who = "; ".join(f"{hold.id} by {hold.by} since {hold.at}" for hold in holds)
        super().__init__(f"{self.what} under legal hold ({who})")
        self.holds = holds


class HeldByRetention(Held):
    """A legal hold of retention's covers what the person wrote."""

    next_step = "`gatebook retention holds` shows them; `gatebook retention release` ends one"
    what = "the subject's events are"


class CannotHold(GatebookError):
    """An erasure is under way, and cannot be taken back."""

    exit_code = EXIT_HELD
    next_step = "let the erasure end; what comes in afterwards can be held"


class NoSuchHold(GatebookError):
    """There is no hold with this id on this subject."""

    exit_code = 1
    event_reason = "not_found"
    next_step = "`gatebook subject list-holds` shows the ids"


async def hold(store: SubjectStore, tag: str, new: Hold) -> SubjectState:
    """Put a hold on a subject; the same id again changes nothing. An erasure that was asked for
    and has not begun to erase is refused by it. Raises CannotHold."""
    generation = (await read_states(store, [tag]))[tag].generation
    last = job_id(tag, generation - 1)
    job = (await store.get([last])).get(last)
    if job is not None and not job.source["done"]:
        raise CannotHold("an erasure of this subject is under way")

    def change(state: SubjectState) -> SubjectState:
        if state.generation != generation:
            raise CannotHold("an erasure of this subject has begun")
        if any(held.id == new.id for held in state.holds):
            return state
        return replace(state, holds=(*state.holds, new))

    return await change_state(store, tag, change)


async def release(store: SubjectStore, tag: str, hold_id: str) -> SubjectState:
    """End one hold. Raises NoSuchHold."""

    def change(state: SubjectState) -> SubjectState:
        left = tuple(held for held in state.holds if held.id != hold_id)
        if left == state.holds:
            raise NoSuchHold(f"no hold {hold_id!a} on this subject")
        return replace(state, holds=left)

    return await change_state(store, tag, change)


async def held_subjects(store: SubjectStore) -> dict[str, tuple[Hold, ...]]:
    """Every subject under hold, by tag: what retention has to leave alone."""
    found = await store.find(SUBJECT, held=True)
    states = [SubjectState.of(stored.id, stored) for stored in found]
    return {state.tag: state.holds for state in states}


def refuse_if_held(state: SubjectState) -> SubjectState:
    """The state as it is. Raises Held."""
    if state.holds:
        raise Held(state.holds)
    return state


def described(hold_: Hold) -> dict[str, Any]:
    """A hold as it is printed."""
    return {"id": hold_.id, "reason": hold_.reason, "by": hold_.by, "at": hold_.at}
