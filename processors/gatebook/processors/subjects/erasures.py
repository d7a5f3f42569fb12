"""Which erasure took the content of an event: "never kept" and "destroyed" are not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatebook.processors.subjects import layers
from gatebook.processors.subjects.keys import FULL
from gatebook.processors.subjects.state import JOB
from gatebook.processors.subjects.store import SubjectStore
from gatebook.schemas.documents import timestamp_text

KEY_ID = ("gatebook", "sealed", "key_id")
FAILED = ("gatebook", "sealed", "failed")


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure that has begun to erase. `completed_at` is empty while it is under way."""

    job: str
    generation: int
    before_ns: int
    completed_at: str = ""

    def told(self) -> dict[str, str]:
        """As a manifest says it."""
        return {
            "job": self.job,
            "content_of_before": timestamp_text(self.before_ns),
            "completed_at": self.completed_at,
        }


async def erasures_of(store: SubjectStore, tag: str) -> list[Erasure]:
    """A subject's erasures, oldest first, those under way included once they destroy anything.
    Raises StoreAway."""
    jobs = await store.find(JOB, tag=tag) if tag else []
    begun = [
        Erasure(
            job.id,
            int(job.source["generation"]),
            int(job.source["before_ns"]),
            str(job.source["steps"].get("certificate", {}).get("completed_at", "")),
        )
        for job in jobs
        if "tombstone" in job.source["steps"]
    ]
    return sorted(begun, key=lambda one: one.generation)


def tag_of(document: Mapping[str, Any]) -> str:
    """The subject's tag on a document; empty where there is none."""
    key = str(layers.value_at(document, KEY_ID) or "")
    return str(layers.value_at(document, ("gatebook", "subject")) or key.rpartition(".")[0])


def is_erased(document: Mapping[str, Any], layer: str, erasures: Sequence[Erasure] = ()) -> bool:
    """Whether a layer that the document does not hold was there, or came in, and was destroyed."""
    if layer == FULL and layers.level_of(document) != FULL:
        return False
    if layers.value_at(document, KEY_ID):
        return True
    if layers.value_at(document, FAILED) == layers.SUBJECT_ERASED:
        return True
    untagged = not layers.value_at(document, ("gatebook", "subject"))
    return untagged and _was_text(document) and erasure_of(document, erasures) is not None


def _was_text(document: Mapping[str, Any]) -> bool:
    """Whether a document of before there were tags had content, and has none now."""
    had = layers.level_of(document) in layers.STORED_LEVELS
    return had and not any(layers.value_at(document, at) for at in layers.SEARCHED.values())


def erasure_of(document: Mapping[str, Any], erasures: Sequence[Erasure]) -> Erasure | None:
    """The first erasure that took this document's content; None where it is not known."""
    key = str(layers.value_at(document, KEY_ID) or "")
    if key:
        number = int(key.rpartition(".")[2])
        return next((one for one in erasures if one.generation >= number), None)
    at = str(document["@timestamp"])
    return next((one for one in erasures if at < timestamp_text(one.before_ns)), None)


def told(document: Mapping[str, Any], erasures: Sequence[Erasure]) -> dict[str, str]:
    """What is known of the erasure: its job, and when it was complete."""
    found = erasure_of(document, erasures)
    if found is None:
        return {}
    return {"job": found.job, "erased_at": found.completed_at or "under way"}
