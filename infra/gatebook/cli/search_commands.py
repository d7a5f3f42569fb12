"""`gatebook setup`, `search`, `tail` and `show`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.acts import stated_if_given
from gatebook.cli.audited import looked
from gatebook.cli.cluster import run_on_cluster
from gatebook.cli.whole import detail_of, gaps_of, tell_gaps

if TYPE_CHECKING:
    from gatebook.processors.retention.missing import Gap
    from gatebook.processors.search.service import Hit, Page
    from gatebook.processors.setup import SetupReport
    from gatebook.processors.sinks.connection import Connection

KINDS = ("access", "finding", "deadletter", "alert")
EXIT_NO_MATCH = 1
DEFAULT_SIZE = 100
MAX_CELL_CHARACTERS = 60
TAIL_RETRY_SECONDS = 2.0
MAIL_ADDRESS = re.compile(r"[^\s\"':()@]+@[^\s\"':()@]+\.[^\s\"':()@.]+")
PRINCIPAL = re.compile(r"\buser\.id\s*:\s*\"?((?:[^\s\"/]+/)?(?:key|ip|producer):[^\s\"()]+)")
# Fields of few values, all of them. A word that is none of these finds nothing.
VALUES = {
    "event.outcome": ("success", "failure", "unknown"),
    "gatebook.severity": ("info", "warning", "error", "critical"),
    "gatebook.verdict": ("true_positive", "false_positive", "benign"),
    "gatebook.capture.level": ("none", "metadata", "redacted", "full"),
}
COMPARED = re.compile(r"(?<![\w.])([a-z_.]+)\s*:\s*\"?(\w+)(?![\w*.:])")

# What a table shows, in this order; where the terminal is narrow, the last of DROPPED_FIRST
# stays longest.
COLUMNS = {
    "access": (
        "@timestamp",
        "user.id",
        "service.name",
        "gen_ai.request.model",
        "event.action",
        "event.outcome",
        "event.reason",
        "http.response.status_code",
        "event.duration",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "source.ip",
        "event.id",
    ),
    "finding": (
        "@timestamp",
        "gatebook.severity",
        "event.action",
        "rule.id",
        "gatebook.principal",
        "event.reason",
        "event.id",
    ),
    "deadletter": (
        "@timestamp",
        "event.reason",
        "gatebook.stage",
        "gatebook.count",
        "error.type",
        "error.message",
        "gatebook.producer_id",
        "gatebook.sequence",
        "event.id",
    ),
    "alert": (
        "@timestamp",
        "event.action",
        "event.outcome",
        "rule.id",
        "gatebook.target",
        "event.reason",
        "gatebook.attempts",
        "event.id",
    ),
}
DROPPED_FIRST = (
    "gatebook.sequence",
    "gatebook.producer_id",
    "service.name",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "error.type",
    "source.ip",
    "event.duration",
    "http.response.status_code",
    "gatebook.attempts",
    "event.reason",
    "event.action",
    "event.id",
)
HEADINGS = {
    "@timestamp": "time (UTC)",
    "event.duration": "duration",
    "event.id": "id",
    "gatebook.principal": "principal",
    "gatebook.severity": "severity",
    "gen_ai.request.model": "model",
    "gen_ai.usage.input_tokens": "in",
    "gen_ai.usage.output_tokens": "out",
    "http.response.status_code": "status",
    "rule.id": "rule",
    "service.name": "service",
    "source.ip": "address",
    "user.id": "user",
}

kind_option = click.option(
    "--kind", type=click.Choice(KINDS), default="access", show_default=True, help="What to look in."
)
fields_option = click.option("--fields", default="", help="Fields to show, separated by commas.")


# --- setup -------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--replicas", type=click.IntRange(0, 10), help="Copies of each index.")
@click.option(
    "--best-compression/--no-best-compression",
    default=None,
    help="Smaller indices (codec best_compression), or not. Default: where the cluster has it.",
)
def setup(as_json: bool, replicas: int | None, best_compression: bool | None) -> None:
    """Create topics and index templates; report what differs from what is wanted.

    Running it again changes nothing that is right. Exit codes: 0 all is as wanted, 1 something
    differs in a way that does harm, or a server does not answer.
    """
    from gatebook.processors.config import from_env, kafka_properties
    from gatebook.processors.setup import setup as run_setup
    from gatebook.processors.sinks.settings import elasticsearch_settings

    settings = from_env()
    report = run_setup(
        settings.kafka_bootstrap,
        settings.elasticsearch_url,
        settings.namespace,
        replicas=replicas,
        best_compression=best_compression,
        kafka_properties=kafka_properties(settings.kafka_bootstrap),
        elasticsearch=elasticsearch_settings(),
    )
    _print_report(report, as_json)
    sys.exit(1 if report.problems else 0)


def _print_report(report: SetupReport, as_json: bool) -> None:
    if as_json:
        import msgspec

        found = {**msgspec.to_builtins(report), "problems": report.problems}
        click.echo(msgspec.json.encode(found).decode())
        return
    for topic in report.topics:
        click.echo(f"topic     {topic.name:<32} {topic.state}, {topic.partitions} partitions")
        for note in topic.notes:
            click.echo(f"            note: {note}")
    for template in report.templates:
        click.echo(f"template  {template.name:<32} {template.state}, codec {template.codec}")
    for problem in report.problems:
        click.echo(f"problem   {problem}", err=True)


# --- search ------------------------------------------------------------------------------------


@click.command()
@click.argument("query", nargs=-1)
@click.option("--since", default="24h", show_default=True, help="From (15m, 7d, 2026-11-23, all).")
@click.option("--until", default="", help="Up to, exclusive (now-1d, 2026-11-23T10:15:00Z).")
@kind_option
@click.option("--size", type=click.IntRange(1), default=DEFAULT_SIZE, show_default=True)
@click.option("--all", "all_", is_flag=True, help="Every match, however many.")
@click.option("--sort", default="@timestamp:desc", show_default=True, help="field:asc|desc,...")
@fields_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object: total and events.")
@click.option("--ndjson", is_flag=True, help="One JSON document per line.")
@click.option("--list-fields", is_flag=True, help="Show the fields a query may name.")
@click.option("--histogram", is_flag=True, help="How many over time, instead of events.")
@click.option("--split-by", help="With --histogram: counts by value of this field, too.")
@click.option("--facets", help="Most frequent values of these fields, instead of events.")
@click.option("--restored", is_flag=True, help="Look in what `archive restore` brought back.")
def search(query: tuple[str, ...], kind: str, fields: str, list_fields: bool, **given: Any) -> None:
    """Find events, newest first.

    \b
      gatebook search 'user.id:alice and event.outcome:failure' --since 1h
      gatebook search 'http.response.status_code >= 500 and not service.name:test'
      gatebook search 'source.ip:10.0.0.0/8 and url.path:/v1/*' --ndjson --all
      gatebook search --since 7d --histogram --split-by event.outcome
      gatebook search event.outcome:failure --facets user.id,gen_ai.request.model

    A query compares fields (field:value, field:"two words", field:ab*, field >= 10, field:*),
    joined by and, or, not and parentheses. Words without a field are looked for in prompts,
    answers and reasons. Times are in UTC.

    Counts of long ranges (GATEBOOK_SERVE_SUMMARIES_AFTER_DAYS), and of days whose details are
    gone, are of hourly summaries where these can answer; the answer says which were counted.

    Exit codes: 0 something matched, 1 nothing matched, 2 the query or an option is wrong,
    3 Elasticsearch cannot be reached or did not answer in full.
    """
    from gatebook.processors.search import service
    from gatebook.processors.search.question import ask_for

    if list_fields:
        _list_fields(kind)
        return
    if given["as_json"] and given["ndjson"]:
        raise click.UsageError("--json and --ndjson are two forms; give one of them")
    text = " ".join(query)
    looked("search", query=text, kind=kind, since=given["since"], until=given["until"])
    if given["histogram"] or given["facets"] is not None or given["split_by"]:
        _count(text, kind, given)
        return
    shown = _columns(kind, fields)
    size = None if given["all_"] else given["size"]
    since = "" if given["since"] == "all" else given["since"]

    async def work(connection: Connection) -> tuple[int, int, list[Gap] | None]:
        namespace, now = _namespace(given["restored"]), datetime.now(UTC)
        pages = service.search(
            connection, namespace, text, since, given["until"], size, given["sort"], kind, now
        )
        asked = ask_for(text, since, given["until"], kind, now=now)
        if given["ndjson"]:
            counts = await _stream(pages, bool(fields), shown)
            return *counts, await gaps_of(connection, namespace, asked)
        found = [page async for page in pages]
        gaps = await gaps_of(connection, namespace, asked)
        return *_print_found(found, gaps, shown, bool(fields), given["as_json"]), gaps

    total, printed, gaps = run_on_cluster(work)
    tell_gaps(gaps)
    if printed < total and not given["ndjson"]:
        click.echo(f"{printed:,} of {total:,} shown; --size or --all shows more", err=True)
    if not total:
        if not (given["as_json"] or given["ndjson"]):
            _say_no_match(given["since"], kind, text)
        sys.exit(EXIT_NO_MATCH)


def _count(query: str, kind: str, given: dict[str, Any]) -> None:
    """Counts over time or by value, instead of events."""
    from gatebook.cli.counts_page import counted, of_details, print_counts

    histogram, facets, gaps = run_on_cluster(
        lambda connection: counted(
            connection,
            _namespace(given["restored"]),
            query,
            kind,
            since=given["since"],
            until=given["until"],
            is_over_time=given["histogram"] or bool(given["split_by"]),
            split_by=given["split_by"],
            facets=given["facets"],
        )
    )
    print_counts(histogram, facets, gaps, given["as_json"])
    if of_details(histogram, facets):
        tell_gaps(gaps)
    found = histogram or facets
    if found is None or not found.total:
        sys.exit(EXIT_NO_MATCH)


def _say_no_match(since: str, kind: str, query: str) -> None:
    if since.strip() == "all":
        click.echo("no match in all that is kept", err=True)
    else:
        click.echo(f"no match since {since}; --since all looks further back", err=True)
    for hint in _hints(query):
        click.echo(hint, err=True)
    if kind == "access" and MAIL_ADDRESS.search(query):
        click.echo(
            "a mail address is stored as a pseudonym, also as a user id: `gatebook subject status "
            "ADDRESS --tenant TENANT` prints the tag of the person, and "
            "`gatebook search gatebook.subject:TAG` finds the events",
            err=True,
        )


def _hints(query: str) -> Iterator[str]:
    """What may be meant by a query that found nothing."""
    from gatebook.processors.search.display import safe

    if found := PRINCIPAL.search(query):
        yield (
            "who has no user id is known by key, address or producer alone, which is in another "
            f'field: gatebook.principal:"{safe(found[1], 200)}"'
        )
    for name, value in COMPARED.findall(query):
        if name in VALUES and value.lower() not in VALUES[name]:
            yield f"{name} is never {value[:40]}; it is one of {', '.join(VALUES[name])}"


async def _stream(pages: Any, only: bool, shown: Sequence[str]) -> tuple[int, int]:
    from gatebook.processors.search.display import to_json

    total = printed = 0
    # Where the reader goes away, the view is closed here, while there is a connection.
    async with aclosing(pages):
        async for page in pages:
            total = page.total
            printed += len(page.hits)
            for hit in page.hits:
                click.echo(to_json(_picked(hit.source, shown) if only else hit.source))
    return total, printed


def _print_found(
    pages: list[Page], gaps: list[Gap] | None, shown: Sequence[str], only: bool, as_json: bool
) -> tuple[int, int]:
    from gatebook.processors.search.display import to_json

    total = pages[0].total
    hits = [hit for page in pages for hit in page.hits]
    if as_json:
        events = [_picked(hit.source, shown) if only else hit.source for hit in hits]
        told = {"total": total, "shown": len(hits), "detail": detail_of(gaps), "events": events}
        click.echo(to_json(told))
    elif hits:
        _print_table(hits, shown, keep_all=only)
    return total, len(hits)


def _picked(source: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    from gatebook.processors.search.display import value_at

    return {name: value_at(source, name) for name in fields}


def _columns(kind: str, fields: str) -> list[str]:
    """The fields to show. An unknown one is a usage error that names those close to it."""
    from gatebook.processors.search.fields import fields_of
    from gatebook.processors.search.service import BadRequest

    known = fields_of(kind)
    chosen = [name.strip() for name in fields.split(",") if name.strip()]
    for name in chosen:
        if known.type_of(name) is None:
            close = " or ".join(known.close_to(name)) or "`gatebook search --list-fields`"
            raise BadRequest(f"no field is named {name[:80]!a}", f"try {close}")
    return chosen or list(COLUMNS[kind])


def _list_fields(kind: str) -> None:
    from gatebook.processors.search.fields import fields_of

    known = fields_of(kind)
    for name, type_ in sorted(known.types.items()):
        note = "" if known.has_values(name) else "  (no sorting, no counting)"
        note = note if known.is_searchable(name) else "  (only shown: not searched either)"
        click.echo(f"{name:<44} {type_}{note}")


def _print_table(
    hits: Sequence[Hit], fields: Sequence[str], keep_all: bool, marked: Hit | None = None
) -> None:
    """A line each; `>` stands before the marked one."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[_cell(hit.source, f) for f in fields] for hit in hits]
    widths = {
        f: max(len(HEADINGS.get(f, f)), *(len(r[i]) for r in rows)) for i, f in enumerate(fields)
    }
    used = [f for i, f in enumerate(fields) if keep_all or any(row[i] for row in rows)]
    console = Console(highlight=False)
    if console.is_terminal:
        used = used if keep_all else _fitting(used, widths, console.width - 3 * bool(marked))
    else:  # a pipe or a file: nothing is cut
        console.width = sum(widths.values()) + 2 * len(widths) + 5
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if marked:
        table.add_column("")
    for name in used:
        table.add_column(_heading(name), no_wrap=True, overflow="ellipsis")
    for hit, row in zip(hits, rows, strict=True):
        mark = [Text(">" if hit is marked else "")] if marked else []
        cells = (Text(row[list(fields).index(name)]) for name in used)
        table.add_row(*mark, *cells, style="bold" if hit is marked else "")
    console.print(table)


def _cell(source: dict[str, Any], name: str) -> str:
    """A field for the table. Who is known by key or address alone shows as that."""
    from gatebook.processors.search.display import render, value_at

    value = value_at(source, name)
    if name == "user.id" and not value:
        value = value_at(source, "gatebook.principal")
    return render(name, value, MAX_CELL_CHARACTERS)


def _heading(name: str) -> str:
    return HEADINGS.get(name, name.rpartition(".")[2])


def _fitting(fields: list[str], widths: dict[str, int], width: int) -> list[str]:
    """Leave out columns until the rest fits."""
    left = list(fields)
    for name in DROPPED_FIRST:
        if sum(widths[f] + 2 for f in left) <= width:
            break
        if name in left:
            left.remove(name)
    return left


# --- tail --------------------------------------------------------------------------------------


@click.command()
@click.argument("query", nargs=-1)
@kind_option
@fields_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--since", default="now", show_default=True, help="Begin with what came in since.")
@click.option(
    "--window-seconds",
    type=click.IntRange(1, 3600),
    default=10,
    show_default=True,
    help="Longest way from intake to index that is waited for.",
)
@click.option("--interval-seconds", type=click.FloatRange(0.05), default=1.0, show_default=True)
def tail(
    query: tuple[str, ...],
    kind: str,
    fields: str,
    as_json: bool,
    count: int | None,
    since: str,
    window_seconds: int,
    interval_seconds: float,
) -> None:
    """Print events as they come in, until Ctrl-C.

    An event that takes longer than the window from intake to index is not printed; `gatebook
    search` finds it. Exit codes: 0 ended by Ctrl-C or --count, 2 the query is wrong,
    3 Elasticsearch cannot be reached at the start (later it is waited for).
    """
    from datetime import timedelta

    from gatebook.processors.search import service

    shown = _columns(kind, fields)
    text = " ".join(query)
    looked("search.tail", query=text, kind=kind)
    window = timedelta(seconds=window_seconds)

    async def work(connection: Connection) -> None:
        following = service.Tail(connection, _namespace(), text, kind, since, window)
        left = count
        async for hit in _patiently(following, interval_seconds):
            _print_line(hit, shown, as_json, bool(fields))
            left = left - 1 if left is not None else None
            if left == 0:
                return

    try:
        run_on_cluster(work)
    except KeyboardInterrupt:
        click.echo("", err=True)


async def _patiently(following: Any, interval_seconds: float) -> Any:
    """Hits without end. An outage at the first poll is raised; a later one is waited for."""
    import asyncio

    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.sinks.connection import Unreachable

    has_worked = is_down = False
    while True:
        try:
            hits = await following.poll()
        except (Unreachable, SearchFailed):
            if not has_worked:
                raise
            if not is_down:
                click.echo("gatebook: Elasticsearch does not answer; waiting", err=True)
            is_down = True
            await asyncio.sleep(TAIL_RETRY_SECONDS)
            continue
        has_worked, is_down = True, False
        for hit in hits:
            yield hit
        await asyncio.sleep(interval_seconds)


def _print_line(hit: Hit, shown: Sequence[str], as_json: bool, only: bool) -> None:
    from gatebook.processors.search.display import render, to_json, value_at

    if as_json:
        click.echo(to_json(_picked(hit.source, shown) if only else hit.source))
    else:
        cells = (render(f, value_at(hit.source, f), MAX_CELL_CHARACTERS) for f in shown)
        click.echo("  ".join(cell or "-" for cell in cells))
    sys.stdout.flush()


# --- show --------------------------------------------------------------------------------------


@click.command()
@click.argument("event_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all documents.")
@click.option(
    "--reveal",
    type=click.Choice(("redacted", "full")),
    help="Open the sealed content, too. Privileged: it is recorded first, with --reason.",
)
@click.option(
    "--reason",
    callback=stated_if_given,
    help="Why content is opened; stands in the recorded event.",
)
def show(event_id: str, as_json: bool, reveal: str | None, reason: str) -> None:
    """Print everything about one event: its document, and the findings that cite it.

    Says whether the document's digest holds, which it does after an erasure, too.

    Exit codes: 0 found, 1 no document has this id, 2 the id is empty, 3 Elasticsearch cannot be
    reached, 6 content was to be opened and that cannot be recorded.
    """
    from gatebook.processors.search import service
    from gatebook.processors.search.display import safe, to_json

    if not event_id.strip():
        raise click.UsageError("the id is empty")
    if reveal and not reason:
        raise click.UsageError("--reveal needs --reason: say why")
    if not reveal:  # which is recorded before anything is opened
        looked("event.view", event=event_id)
    hits = run_on_cluster(lambda connection: service.find(connection, _namespace(), event_id))
    if reveal and not hits:
        _refused_reveal(event_id, reveal, reason)
    content = _reveal(hits, event_id, reveal, reason) if reveal and hits else None
    if as_json:
        documents = [
            {"index": h.index, "id": h.id, "document": h.source, **_checked(h)} for h in hits
        ]
        found = {"id": event_id, "documents": documents}
        click.echo(to_json({**found, "content": content} if reveal else found))
    elif hits:
        for hit in sorted(hits, key=lambda hit: hit.id != event_id):
            _print_document(hit)
        _print_content(content)
    else:
        click.echo(f"no document has the id {safe(event_id, 80)}", err=True)
    if not hits:
        sys.exit(EXIT_NO_MATCH)


def _checked(hit: Hit) -> dict[str, Any]:
    """What an access document says of itself; nothing of other kinds."""
    from gatebook.processors.subjects.verify import verify_document

    if "-access-" not in hit.index:
        return {}
    found = verify_document(hit.source)
    return {"digest_holds": found.digest_holds, "content_is": found.content}


def _reveal(hits: Sequence[Hit], event_id: str, layer: str, reason: str) -> dict[str, Any]:
    """The sealed content of the event, opened; recorded before."""
    from gatebook.cli.subject_commands import Desk, run_at_desk

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.processors.subjects import reveal
        from gatebook.processors.subjects.erasures import erasures_of, tag_of

        await desk.record("event.reveal", reason, event=event_id, reveal=layer)
        document = next((h.source for h in hits if "-access-" in h.index), {})
        wanted = ("redacted", "full") if layer == "full" else ("redacted",)
        key = await reveal.key_of(desk.ring, document)
        erasures = await erasures_of(desk.store, tag_of(document))
        return reveal.opened(document, key, wanted, erasures)

    return run_at_desk(work)


def _refused_reveal(event_id: str, layer: str, reason: str) -> None:
    """Record that content was asked for of an event that is not there."""
    from gatebook.cli.privileged import act, refuse

    details = {"event": event_id, "reveal": layer, "reason": reason}
    refuse(act("event.reveal", details), "not_found")


def _print_content(content: dict[str, Any] | None) -> None:
    from gatebook.processors.search.display import safe, to_json

    for layer, found in (content or {}).items():
        click.echo(f"content, {layer}: {_state_of(found)}")
        for name, value in sorted(found.get("content", {}).items()):
            click.echo(f"  {safe(name)}  {to_json(value)}")


def _state_of(found: dict[str, Any]) -> str:
    """A layer's state; of one that was erased, when and by which job, too."""
    if "job" not in found:
        return str(found["state"])
    return f"{found['state']} ({found['erased_at']}, {found['job']})"


def _print_document(hit: Hit) -> None:
    from gatebook.processors.search.display import flatten, render, safe

    click.echo(f"{safe(hit.index)}  {safe(hit.id)}")
    if checked := _checked(hit):
        holds = "holds" if checked["digest_holds"] else "DOES NOT HOLD: it was changed"
        click.echo(f"  its digest {holds}; content: {checked['content_is']}")
    flat = flatten(hit.source)
    width = max(len(safe(name)) for name in flat)
    for name in sorted(flat):
        click.echo(f"  {safe(name):<{width}}  {render(name, flat[name])}")


# --- shared ------------------------------------------------------------------------------------


def _namespace(restored: bool = False) -> str:
    """The live namespace, or that of what archives were restored into."""
    from gatebook.processors.archive.restore import restored_namespace
    from gatebook.processors.config import from_env

    found = from_env().namespace
    return restored_namespace(found) if restored else found


COMMANDS = [setup, search, tail, show]
