"""The pure half of writing in bulk: rows to request bodies, answers to verdicts.

Elasticsearch answers 200 to a bulk request whose items failed, so every item is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import Any

import orjson

from gatebook.processors.sinks.base import KINDS, Row
from gatebook.processors.subjects.layers import ERASABLE, SUBJECT_ERASED, value_at, without

MAX_ID_BYTES = 512
# What a bulk answer is cut down to; without it an answer repeats ids and shard counts.
FILTER_PATH = (
    "errors,items.*.status,items.*.failure_store,items.*.error.type,items.*.error.reason,"
    "items.*.error.caused_by.type"
)
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")
_DAY = re.compile(r"\d{4}\.\d{2}\.\d{2}")


class Decision(Enum):
    """What one answer means for one row."""

    INDEXED = "indexed"
    EXISTS = "exists"  # a document has this id; whether it is the same one has to be looked up
    DUPLICATE = "duplicate"  # looked up: it is the same one
    RETRY = "retry"  # the server's trouble: overload, a shard that is not there, a lost answer
    BLOCKED = "blocked"  # writing is switched off (disk full, index closed): pause, then go on
    NO_INDEX = "no_index"  # the index vanished: create it, then go on
    REJECTED = "rejected"  # the row's own fault
    FORBIDDEN = "forbidden"  # our credentials do not suffice


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision; `detail` names an error type and perhaps a field, never a value. `reason` is
    the dead letter's, for a row that is rejected."""

    decision: Decision
    detail: str = ""
    reason: str = "index_rejected"


INDEXED = Verdict(Decision.INDEXED)
EXISTS = Verdict(Decision.EXISTS)
_CREATED = {"create": {"status": 201}}
DUPLICATE = Verdict(Decision.DUPLICATE)
CONFLICT = Verdict(Decision.REJECTED, "another document has this id", "id_conflict")
PAST = Verdict(Decision.REJECTED, "past its retention: what it belongs to was deleted")


SlotOf = Callable[[Row], str]


def day_of(row: Row) -> str:
    """The slot of a row whose day was never cut: the day itself."""
    return row.day


def index_name(namespace: str, row: Row, slot_of: SlotOf = day_of) -> str:
    """The dated index a row belongs to, or the alias that stands for it: see slots.py."""
    return f"{namespace}-{row.kind}-{slot_of(row)}"


def fault_of(row: Row, max_row_bytes: int) -> tuple[str, str] | None:
    """Reason and detail where a row can be refused without asking the store; else None.

    Without this check one row could fail a whole request: an id that is too long or a line feed
    in a body makes Elasticsearch refuse its neighbours too.
    """
    if row.kind not in KINDS or not _is_day(row.day):
        return "index_rejected", "unknown kind or malformed day"
    if len(row.body) > max_row_bytes:
        return "oversize", f"{len(row.body)} bytes, limit {max_row_bytes}"
    if not row.id or len(row.id.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        return "index_rejected", "the id is empty or too long"
    if not row.id.isprintable() or b"\n" in row.body or b"\r" in row.body:
        return "index_rejected", "a control character in the id, or a line break in the body"
    if not (row.body.startswith(b"{") and row.body.endswith(b"}")):
        return "index_rejected", "the body is not a JSON object"
    return None


@lru_cache(maxsize=1024)
def _is_day(day: str) -> bool:
    if not _DAY.fullmatch(day):
        return False
    try:
        date.fromisoformat(day.replace(".", "-"))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def _action_start(namespace: str, kind: str, slot: str) -> bytes:
    return f'{{"create":{{"_index":"{namespace}-{kind}-{slot}","_id":'.encode()


def _parts(namespace: str, row: Row, slot_of: SlotOf = day_of) -> tuple[bytes, ...]:
    quoted = f'"{row.id}"'.encode() if _PLAIN_ID.fullmatch(row.id) else orjson.dumps(row.id)
    return _action_start(namespace, row.kind, slot_of(row)), quoted, b"}}\n", row.body, b"\n"


def lines(namespace: str, row: Row) -> bytes:
    """The action line and the body of one row, as the bulk API reads them."""
    return b"".join(_parts(namespace, row))


def body(namespace: str, rows: Iterable[Row], slot_of: SlotOf = day_of) -> bytes:
    """A whole bulk request."""
    return b"".join(part for row in rows for part in _parts(namespace, row, slot_of))


def chunks(rows: Sequence[Row], max_bytes: int, max_documents: int) -> Iterator[list[Row]]:
    """Rows in order, cut where a request would pass a bound. A row larger than max_bytes gets a
    request of its own."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        row_size = len(row.body) + len(row.id) + 64  # the action line, roughly
        if chunk and (size + row_size > max_bytes or len(chunk) >= max_documents):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_size
    if chunk:
        yield chunk


def verdicts(answer: Any, count: int) -> list[Verdict] | None:
    """One verdict per row of a bulk request that was answered with 200, in order; None where the
    answer is not one to that request (cut, or from something else than Elasticsearch)."""
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list) or len(items) != count:
        return None
    return [_item_verdict(item) for item in items]


def _item_verdict(item: Any) -> Verdict:
    if item == _CREATED:
        return INDEXED
    result = item.get("create") if isinstance(item, dict) else None
    if not isinstance(result, dict) or not isinstance(result.get("status"), int):
        return Verdict(Decision.RETRY, "unreadable item")
    if result.get("failure_store") == "used":
        return Verdict(Decision.REJECTED, "went to the failure store")
    return classify(result["status"], result.get("error"))


_BLOCK_TYPES = frozenset(
    {
        "cluster_block_exception",  # flood stage, read-only, no master yet
        "index_closed_exception",
        "validation_exception",  # no room for another shard
    }
)
_INDEXED_STATUS = (200, 201)
_UNAUTHORIZED_STATUS = (401, 403)


def classify(status: int, error: Any) -> Verdict:
    """What an item's (or a whole request's) status and error mean.

    Only a plain 400 is the row's fault. Whatever is not known is tried again: a retry can be
    seen in the metrics and undone, a dropped row cannot. So is a 500, of which the row may or
    may not be the cause.
    """
    error_type = safe_error_type(error)
    if status in _INDEXED_STATUS:
        return INDEXED
    if error_type in _BLOCK_TYPES:
        return Verdict(Decision.BLOCKED, error_type)
    if status == 409 and error_type in ("", "version_conflict_engine_exception"):
        return EXISTS
    if status in _UNAUTHORIZED_STATUS:
        return Verdict(Decision.FORBIDDEN, error_type)
    if status == 404 and error_type == "index_not_found_exception":
        return Verdict(Decision.NO_INDEX, error_type)
    if status == 400:
        return Verdict(Decision.REJECTED, _describe(error, error_type))
    return Verdict(Decision.RETRY, error_type or f"status_{status}")


_TYPE = re.compile(r"[a-z][a-z0-9_]{0,99}")
_FIELD_NAME = re.compile(r"@?[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63}){0,9}")
# Where Elasticsearch names a field in its text; what follows there may quote the value.
_FIELD_IN_REASON = re.compile(
    r"(?:failed to parse field \[|tried to parse field \[|dynamic introduction of \["
    r"|in field=\"|object mapping for \[|failed to parse: \[)([^\]\"]{1,200})[\]\"]"
)
_WITHIN = re.compile(r"dynamic introduction of \[[^\]]*\] within \[([^\]]{1,200})\]")


def safe_error_type(error: Any) -> str:
    """An error's type where it looks like one; never its reason."""
    found = error.get("type") if isinstance(error, Mapping) else None
    return found if isinstance(found, str) and _TYPE.fullmatch(found) else ""


def _describe(error: Any, error_type: str) -> str:
    cause = safe_error_type(error.get("caused_by")) if isinstance(error, Mapping) else ""
    field = _field(error)
    text = error_type or "status_400"
    text += f" ({cause})" if cause and cause != error_type else ""
    return f"{text} at {field}" if field else text


def _field(error: Any) -> str:
    """The field an error is about, where its name looks like one of ours. Only the name is taken
    out of the reason: the rest of it may quote what a user wrote."""
    reason = error.get("reason") if isinstance(error, Mapping) else None
    if not isinstance(reason, str):
        return ""
    found = _FIELD_IN_REASON.search(reason)
    if found is None:
        return ""
    within = _WITHIN.search(reason)
    parent = within.group(1) if within and within.group(1) != "_doc" else ""
    name = f"{parent}.{found.group(1)}" if parent else found.group(1)
    return name if _FIELD_NAME.fullmatch(name) else ""


# Errors of a whole request that come from what one row holds, not from how we were called.
_ROW_ERRORS = frozenset(
    {
        "action_request_validation_exception",
        "document_parsing_exception",
        "illegal_argument_exception",
        "json_parse_exception",
        "mapper_parsing_exception",
        "parse_exception",
        "parsing_exception",
        "x_content_parse_exception",
    }
)


class Whole(Enum):
    """What a status other than 200 means for a whole bulk request."""

    SPLIT = "split"  # too large, or one row spoils it: send halves
    RETRY = "retry"
    BLOCKED = "blocked"
    FORBIDDEN = "forbidden"
    WRONG_SERVER = "wrong_server"  # this is not Elasticsearch, or not one that we can talk to


def classify_request(status: int, answer: Any) -> tuple[Whole, str]:
    """How to go on after a bulk request as a whole was answered with `status`."""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    error_type = safe_error_type(error)
    label = error_type or f"status_{status}"
    if error_type in _BLOCK_TYPES:
        return Whole.BLOCKED, label
    if status == 413 or (status == 400 and error_type in _ROW_ERRORS):
        return Whole.SPLIT, label
    if status in _UNAUTHORIZED_STATUS:
        return Whole.FORBIDDEN, label
    if status in (408, 409, 425, 429) or status >= 500:
        return Whole.RETRY, label
    return Whole.WRONG_SERVER, label


def stored_hash(stored: Mapping[str, Any]) -> str:
    """event.hash of a stored document, or ""."""
    event = stored.get("event")
    found = event.get("hash") if isinstance(event, Mapping) else None
    return found if isinstance(found, str) else ""


# How and when an event came, not what it says. A client that heard no answer sends its event again
# under the same id: that copy has another number, and another digest for it.
DELIVERY_FIELDS = (
    ("event", ("created", "hash", "ingested")),
    ("gatebook", ("producer_id", "epoch", "sequence")),
)


SEALED_FAILED = ("gatebook", "sealed", "failed")
OF_CONTENT = (
    *ERASABLE,
    ("gatebook", "sealed", "key_id"),
    SEALED_FAILED,
    ("gatebook", "content", "commitment"),
)


def content_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without how and when it was delivered."""
    found = dict(document)
    for group, names in DELIVERY_FIELDS:
        inner = found.get(group)
        if isinstance(inner, Mapping):
            found[group] = {name: value for name, value in inner.items() if name not in names}
    return found


def is_same_document(row: Row, stored: Mapping[str, Any]) -> bool:
    """Whether the stored source is this row's document: by event.hash, else by content."""
    if row.hash and stored_hash(stored) == row.hash:
        return True
    try:
        document = orjson.loads(row.body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(document, dict):
        return False
    if value_at(document, SEALED_FAILED) == SUBJECT_ERASED:
        # Read again after its subject was erased: the first copy says more, or said so once.
        document, stored = without(document, OF_CONTENT), without(stored, OF_CONTENT)
    return content_of(document) == content_of(stored)
