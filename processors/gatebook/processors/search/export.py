"""Exports: documents in order of time as NDJSON or CSV, in chunks, resumable at any line.

The order is (@timestamp, event.id), and only documents taken in up to `taken_in_until` count: what
comes in while an export is read is not in it. So a line says where it stands, and whoever has the
lines up to it gets the rest, the same bytes that an undisturbed export has. Not covered: a document
that was taken in before and reached its index only after the export began, or that retention or
an erasure took meanwhile; `done_before` counts again, so that a resumed export can tell.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gatebook.processors.search.asking import TIME_FORMAT, BadRequest, ask
from gatebook.processors.search.display import safe, to_json, value_at
from gatebook.processors.search.dsl import Dsl
from gatebook.processors.search.histogram import aggregate
from gatebook.processors.search.question import Question
from gatebook.processors.sinks.connection import Connection

NDJSON, CSV = "ndjson", "csv"
Format = Literal["ndjson", "csv"]
POSITION_FIELDS = ("@timestamp", "event.id")
NOT_EXPORTED = ("gatebook.sealed.redacted", "gatebook.sealed.full")
FIRST_PAGE, MIN_PAGE, MAX_PAGE = 200, 20, 2_000
CHUNK_BYTES = 2 * 1024 * 1024
FORMULA_CHARACTERS = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # full-width ones, too
BLANK_BEGINNINGS = ("\t", "\r", "\n")
SEPARATORS = frozenset(";,|\t\r\n")  # a spreadsheet may cut a line at any of them
_GAP = r"[;,|\s\"]"  # what may stand before the beginning of a cell
_BEGINNING = re.compile(rf"(?:^{_GAP}*+|(?<!{_GAP}){_GAP}++)(?=[{FORMULA_CHARACTERS}])")
_TO_QUOTE = re.compile(r"[\",;|]")
LIST_SEPARATOR = " / "  # no spreadsheet cuts there
NO_HITS: Dsl = {"hits": {"hits": []}}
# Columns of a CSV where none were chosen.
COLUMNS: dict[str, tuple[str, ...]] = {
    "access": (
        "user.id",
        "gatebook.principal",  # who it was also where there is no user: key:…, ip:…
        "organization.id",
        "service.name",
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "event.action",
        "event.outcome",
        "event.reason",
        "http.response.status_code",
        "event.duration",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "source.ip",
        "trace.id",
        "gen_ai.conversation.id",
    ),
    "finding": (
        "event.action",
        "gatebook.severity",
        "rule.id",
        "rule.name",
        "gatebook.principal",
        "event.reason",
        "event.start",
        "event.end",
        "gatebook.observed",
        "gatebook.threshold",
        "gatebook.unit",
        "gatebook.incident",
        "gatebook.verdict",
    ),
    "deadletter": (
        "event.reason",
        "gatebook.stage",
        "gatebook.count",
        "error.type",
        "error.message",
        "gatebook.event_id",
        "gatebook.producer_id",
        "gatebook.sequence",
    ),
    "alert": (
        "event.action",
        "event.outcome",
        "event.reason",
        "rule.id",
        "gatebook.target",
        "gatebook.finding_id",
        "gatebook.attempts",
    ),
}


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported. Times are absolute: the same spec means the same documents tomorrow."""

    query: str
    kind: str
    format: Format
    since: str | None
    until: str | None
    taken_in_until: str
    fields: list[str] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of a CSV, or the fields of a picked NDJSON; the position comes first."""
        chosen = COLUMNS[self.kind] if self.fields is None else self.fields
        return list(dict.fromkeys([*POSITION_FIELDS, *chosen]))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines, how many, and the position after the last of them."""

    data: bytes
    lines: int
    position: str


def bounded(question: Question, spec: Spec) -> Question:
    """The question of a spec: its range, and only what was taken in before it was made."""
    taken_in = {"lte": spec.taken_in_until, "format": TIME_FORMAT}
    asked = question.within(spec.since, spec.until)
    return asked.narrowed({"range": {"event.ingested": taken_in}})


def position_of(source: Mapping[str, Any]) -> str:
    """The position of a line, from its own document."""
    return f"{value_at(source, '@timestamp')},{value_at(source, 'event.id')}"


def parse_position(text: str) -> tuple[str, str]:
    """Time and id of a position; the `'` that a CSV puts before an id is none of it, for no id
    has one. Raises BadRequest."""
    at, comma, event_id = text.partition(",")
    event_id = event_id.removeprefix("'")
    is_time = at[:4].isdigit() and at.endswith("Z") and len(at) <= 30 and at.isascii()
    if not (comma and is_time and event_id and len(event_id) <= 512 and event_id.isprintable()):
        raise BadRequest(
            "this is no position of an export",
            "give @timestamp and event.id of the last whole line: 2026-11-23T10:15:00.1Z,ID",
        )
    return at, event_id


async def count(client: Connection, namespace: str, question: Question) -> int:
    """How many lines there are. Raises SearchFailed, Unreachable."""
    found = await aggregate(client, f"{namespace}-{question.kind}", question, {}, total=True)
    return int(found["total"])


async def done_before(client: Connection, namespace: str, question: Question, position: str) -> int:
    """How many lines there are up to a position and with it."""
    at, event_id = parse_position(position)
    same = [{"term": {"@timestamp": {"value": at}}}, {"range": {"event.id": {"lte": event_id}}}]
    upto: Dsl = {
        "bool": {
            "should": [
                {"range": {"@timestamp": {"lt": at, "format": TIME_FORMAT}}},
                {"bool": {"filter": same}},
            ],
            "minimum_should_match": 1,
        }
    }
    return await count(client, namespace, question.narrowed(upto))


async def chunks(
    client: Connection,
    namespace: str,
    question: Question,
    spec: Spec,
    after: str = "",
    mask: Any = dict,
) -> AsyncIterator[Chunk]:
    """The lines after a position, from the first one without. Never more than one page of
    documents is held. `mask` gives what may be shown of a document.
    Raises BadRequest, SearchFailed, Unreachable; what was given before stays good."""
    write = _csv_lines if spec.format == CSV else _json_lines
    if not after and spec.format == CSV:
        yield Chunk(_csv_heading(spec.columns), 0, "")
    size, place = FIRST_PAGE, list(parse_position(after)) if after else None
    while True:
        hits = await _page(client, namespace, question, spec, size, place)
        if hits:
            sources = [hit["_source"] for hit in hits]
            data = write([mask(source) for source in sources], spec)
            yield Chunk(data, len(hits), position_of(sources[-1]))
            place = hits[-1]["sort"]
        if len(hits) < size:
            return
        size = _next_size(len(data), len(hits))


def _next_size(data_bytes: int, lines: int) -> int:
    """So many that a page is about CHUNK_BYTES: documents may hold whole conversations."""
    return max(MIN_PAGE, min(MAX_PAGE, CHUNK_BYTES * lines // max(1, data_bytes)))


async def _page(
    client: Connection,
    namespace: str,
    question: Question,
    spec: Spec,
    size: int,
    place: Sequence[str] | None,
) -> list[dict[str, Any]]:
    asked = question.within(place[0], question.until) if place else question
    source: Dsl = {"excludes": list(NOT_EXPORTED)}
    if spec.fields is not None or spec.format == CSV:
        source["includes"] = spec.columns
    body: Dsl = {
        "size": size,
        "query": asked.dsl,
        "sort": [
            {"@timestamp": {"order": "asc", "format": TIME_FORMAT}},
            {"event.id": {"order": "asc"}},
        ],
        "_source": source,
        "track_total_hits": False,
    }
    if place:
        body["search_after"] = list(place)
    path = f"/{namespace}-{question.kind}/_search"
    found = await ask(client, path, absent=NO_HITS, json=body)
    return list(found["hits"]["hits"])


def _json_lines(sources: Sequence[Mapping[str, Any]], _spec: Spec) -> bytes:
    """Printable ASCII, without loss."""
    return "".join(to_json(source) + "\n" for source in sources).encode()


def _csv_lines(sources: Sequence[Mapping[str, Any]], spec: Spec) -> bytes:
    columns = spec.columns
    return b"".join(_csv_row([value_at(s, name) for name in columns]) for s in sources)


def _csv_row(values: Sequence[Any]) -> bytes:
    return _csv_line([cell(value) for value in values])


def _csv_heading(columns: Sequence[str]) -> bytes:
    """Names of fields as they are: they are ours (a spec names no others), and scripts look for
    `@timestamp`."""
    return _csv_line([safe(name) for name in columns])


def _csv_line(cells: Sequence[str]) -> bytes:
    return (",".join(map(_quoted, cells)) + "\n").encode()


def _quoted(text: str) -> str:
    if not _TO_QUOTE.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def cell(value: Any) -> str:
    """A value for a spreadsheet: nothing that it would run as a formula, and control and bidi
    characters as escapes (CSV is for people; NDJSON is without loss)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return safe(_disarmed(value if isinstance(value, str) else _joined(value)))


def _disarmed(text: str) -> str:
    """Text with `'` before each =, +, - or @ that would begin a cell. A spreadsheet may cut lines
    at another character than our comma, in many countries at the semicolon, and where the cell
    then begins is inside of ours."""
    shown = _BEGINNING.sub(_with_mark, text)
    return f"'{shown}" if text.startswith(BLANK_BEGINNINGS) else shown


def _with_mark(gap: re.Match[str]) -> str:
    begins = not gap.start() or not SEPARATORS.isdisjoint(gap[0])
    return f"{gap[0]}'" if begins else gap[0]


def _joined(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return LIST_SEPARATOR.join(str(item) for item in value)
    return to_json(value)
