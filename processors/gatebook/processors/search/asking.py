"""One question to Elasticsearch: its whole answer, or an error; never a part of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from gatebook.processors.sinks.connection import Answer, Connection
from gatebook.schemas.errors import GatebookError

TIME_FORMAT = "strict_date_optional_time_nanos"
TRANSIENT_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


class SearchFailed(GatebookError):
    """Elasticsearch answered, but not with hits."""

    exit_code = 3

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class BadRequest(GatebookError):
    """A field, kind or sort order that does not exist, or a range that holds no time."""

    exit_code = 2

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class ViewGone(GatebookError):
    """The point in time that pages were read from is not open any more."""

    exit_code = 3
    next_step = "ask for the first page again; an absolute range shows the same documents"

    def __init__(self) -> None:
        super().__init__("the cursor is not open any more")


@dataclass(frozen=True, slots=True)
class Hit:
    """One document that matched."""

    index: str
    id: str
    source: dict[str, Any]


def hit_of(found: dict[str, Any]) -> Hit:
    """A hit of an answer."""
    return Hit(found["_index"], found["_id"], found["_source"])


async def ask(
    client: Connection, path: str, *, absent: Any = None, method: str = "POST", **given: Any
) -> Any:
    """The JSON of a search; `absent` where there is no such index.

    An index that was created this moment (each midnight there is one) has no shard ready yet and
    fails a search for an instant: that is tried again before it counts as a failure.
    Raises SearchFailed, ViewGone, Unreachable.
    """
    answer = await client.request(method, path, **given)
    for wait_seconds in TRANSIENT_WAITS_SECONDS:
        if not answer.is_transient or _view_is_gone(answer):
            break
        await asyncio.sleep(wait_seconds)
        answer = await client.request(method, path, **given)
    if answer.status == 404 and answer.error_type == "index_not_found_exception":
        return absent
    if _view_is_gone(answer):
        raise ViewGone
    found = _good(answer)
    _check_shards(found)
    return found


def _view_is_gone(answer: Answer) -> bool:
    """Whether a point in time ended; shards say so each, or all of them together."""
    if answer.error_type == "search_context_missing_exception":
        return True
    body = answer.body if isinstance(answer.body, dict) else {}
    error = body.get("error")
    causes = error.get("root_cause") if isinstance(error, dict) else None
    shards = body.get("_shards")
    failures = shards.get("failures") if isinstance(shards, dict) else None
    reasons = [*(causes or ()), *(f.get("reason") for f in failures or ())]
    gone = "search_context_missing_exception"
    return any(isinstance(r, dict) and r.get("type") == gone for r in reasons)


def _good(answer: Answer) -> dict[str, Any]:
    if answer.status == 200 and isinstance(answer.body, dict):
        return answer.body
    if answer.status in (401, 403):
        raise SearchFailed(
            "Elasticsearch refuses our credentials", "check GATEBOOK_ELASTICSEARCH_API_KEY"
        )
    label = answer.error_type or f"status {answer.status}"
    raise SearchFailed(
        f"Elasticsearch could not search ({label})", "try again; if it lasts, see its log"
    )


def _check_shards(found: dict[str, Any]) -> None:
    """A search that some shards did not answer would silently leave events out."""
    shards = found.get("_shards")
    failed = shards.get("failed", 0) if isinstance(shards, dict) else 0
    if failed or found.get("timed_out"):
        raise SearchFailed(
            f"{failed} shards did not answer: the result would not be complete",
            "wait until the cluster is green, then try again",
        )
