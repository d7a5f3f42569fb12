"""`gatebook summary`: accesses summed up by hour and by day, kept when details go."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.cluster import run_on_cluster, run_privileged
from gatebook.cli.privileged import SERVICE_NAME

if TYPE_CHECKING:
    from gatebook.cli.privileged import Witness
    from gatebook.processors.config import WorkerSettings
    from gatebook.processors.sinks.connection import Connection
    from gatebook.processors.summaries.answer import Group, Totals
    from gatebook.processors.summaries.check import Checked
    from gatebook.processors.summaries.rollup import Report

EXIT_NOTHING = 1
EXIT_DIFFERENT = 1
GROUPS = {
    "hour": "hour",
    "day": "day",
    "tenant": "organization.id",
    "service": "service.name",
    "model": "gen_ai.request.model",
    "operation": "gen_ai.operation.name",
    "outcome": "event.outcome",
    "principal": "gatebook.principal",
    "user": "user.id",
}
QUANTILES = (0.5, 0.95, 0.99)
MAX_CELL_CHARACTERS = 48
WAIT_SECONDS = 30.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
since_option = click.option("--since", default="", help="From (7d, 2026-11-01); default: all.")
until_option = click.option("--until", default="", help="Up to, exclusive; default: now.")
settle_option = click.option(
    "--settle-seconds",
    type=click.IntRange(0, 86_400),
    default=120,
    show_default=True,
    help="Sum up hours that ended so long ago.",
)


@click.group()
def summary() -> None:
    """Accesses by hour and by day: counts, tokens, durations, principals.

    \b
      gatebook summary run --watch
      gatebook summary show --since 30d --by day --by model
      gatebook summary check

    Counts are exact and equal those of the events, also when events come in late or twice.
    Durations are kept to 1 %. Summaries stay when details go.
    """


# --- run and rebuild ---------------------------------------------------------------------------


@summary.command()
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C or SIGTERM.")
@click.option(
    "--interval-seconds",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Between two runs of --watch.",
)
@settle_option
@json_option
def run(watch: bool, interval_seconds: float, settle_seconds: int, as_json: bool) -> None:
    """Sum up every hour that is over and not summed up, and those that events came in for since.

    It is a machine's work, which shows nothing of the log but how much was summed up: no look, so
    none is recorded. May be killed at any moment: the next run goes on. Exit codes: 0 done, 1
    another run is at it, 3 Elasticsearch cannot be reached (with --watch it is waited for).
    """
    if not watch:
        _print_report(run_on_cluster(lambda c: _run(c, settle_seconds)), as_json)
        return
    # A run that is interrupted is gone on with by the next one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        while True:
            _try_run(settle_seconds, as_json)
            time.sleep(interval_seconds)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _try_run(settle_seconds: int, as_json: bool) -> None:
    """One run; what may pass is told and tried again later."""
    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.summaries.store import Overtaken

    try:
        report = run_on_cluster(lambda c: _run(c, settle_seconds))
    except (SearchFailed, Overtaken) as error:
        click.echo(f"gatebook: {error}; trying again", err=True)
        return
    if report.hours or report.days:
        _print_report(report, as_json)


async def _run(
    client: Connection, settle_seconds: int, since: datetime | None = None, force: bool = False
) -> Report:
    from gatebook.processors.summaries.rollup import Rollup, settled
    from gatebook.processors.summaries.store import SummaryStore

    store = SummaryStore(client, _namespace())
    until = settled(datetime.now(UTC), settle_seconds)
    async with store.lease(WAIT_SECONDS) as lease:
        return await Rollup(store, lease, _tell).run(until, since, force=force)


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(line, err=True)


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plain(report)))
        return
    until = _minute(report.covered_until) if report.covered_until else "as before"
    speed = f", {report.events / report.seconds:,.0f} events/s" if report.events else ""
    click.echo(
        f"{report.hours} hours and {report.days} days summed up: {report.events:,} events in "
        f"{report.rows:,} rows{speed}; covered until {until}"
    )
    if report.went_unannounced:
        click.echo(
            f"details of {len(report.went_unannounced)} hours had gone without notice; their "
            "sums stay as they were",
            err=True,
        )


@summary.command()
@since_option
@settle_option
@json_option
def rebuild(since: str, settle_seconds: int, as_json: bool) -> None:
    """Sum up every hour since then anew, from the details that are there.

    What was kept of details that went stays. It is recorded before anything is done. Exit codes:
    as `run`; 6 it could not be recorded.
    """
    from gatebook.cli.privileged import act

    first = _time(since)

    async def work(settings: WorkerSettings, connection: Connection, witness: Witness) -> Report:
        told = {"since": _second(first)} if first else {}
        await witness.record(act("summary.rebuild", told))
        return await _run(connection, settle_seconds, first, force=True)

    _print_report(run_privileged(work), as_json)


# --- show --------------------------------------------------------------------------------------


@summary.command()
@click.argument("query", nargs=-1)
@since_option
@until_option
@click.option(
    "--by",
    "groups",
    type=click.Choice(tuple(GROUPS)),
    multiple=True,
    help="Group by; may be given again. Default: day.",
)
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True)
@json_option
def show(
    query: tuple[str, ...],
    since: str,
    until: str,
    groups: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Print traffic, failures, tokens, durations and principals, and how far summaries go.

    A query may name tenant, service, model, operation, outcome, principal and user.
    Exit codes: 0 shown, 1 nothing matched or nothing is summed up yet, 2 the query is wrong or
    asks for what summaries do not keep, 3 Elasticsearch cannot be reached.
    """
    from gatebook.cli.audited import looked
    from gatebook.processors.summaries.answer import is_answerable, totals

    text = " ".join(query)
    if not is_answerable(text):
        raise click.UsageError(
            "summaries do not keep what this query names; `gatebook search` asks the details"
        )
    by = groups or ("day",)
    names = [GROUPS[name] for name in by]
    looked("summary.view", query=text, since=since, until=until, by=",".join(by))
    first, last = _time(since), _time(until)
    found = run_on_cluster(lambda c: totals(c, _namespace(), text, first, last, names))
    if found is None:
        click.echo("nothing is summed up yet; run `gatebook summary run`", err=True)
        sys.exit(EXIT_NOTHING)
    if as_json:
        click.echo(json.dumps(_totals(found)))
    else:
        _print_totals(found, by, limit, text)
    sys.exit(0 if found.groups else EXIT_NOTHING)


def _totals(found: Totals) -> dict[str, Any]:
    return {
        "since": _second(found.since),
        "until": _second(found.until),
        "source": found.source,
        "covered_until": _second(found.covered_until),
        "groups": [_figures(group) for group in found.groups],
    }


def _figures(group: Group) -> dict[str, Any]:
    row = group.row
    spreads = {"duration": row.duration, "first_chunk": row.first_chunk}
    return {
        **group.key,
        **row.counts(),
        "failures": group.failures,
        "principals": group.principals,
        **{
            f"{name}_p{round(q * 100)}_ms": _milliseconds(spread.quantile(q))
            for name, spread in spreads.items()
            for q in QUANTILES
        },
    }


def _milliseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e6, 3)


HEADINGS = ("events", "failures", "in", "out", "p50 ms", "p95 ms", "p99 ms", "principals")


def _print_totals(found: Totals, by: Sequence[str], limit: int, text: str) -> None:
    lines = [[*by, *HEADINGS], *(_cells(group) for group in found.groups[:limit])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            cell.ljust(width) if column < len(by) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
    if len(found.groups) > limit:
        click.echo(f"{limit} of {len(found.groups):,} groups; --limit shows more", err=True)
    click.echo(
        f"from {_minute(found.since)} to {_minute(found.until)} UTC, out of {found.source}; "
        f"summed up until {_minute(found.covered_until)}",
        err=True,
    )
    if "service.name" not in text:
        click.echo(
            f"what people did in Gatebook itself counts, too; not service.name:{SERVICE_NAME} "
            "leaves it out",
            err=True,
        )


def _cells(group: Group) -> list[str]:
    from gatebook.processors.search.display import safe

    row = group.row
    times = [_milliseconds(row.duration.quantile(q)) for q in QUANTILES]
    counts = (row.events, group.failures, row.input_tokens, row.output_tokens)
    return [
        *(safe(value, MAX_CELL_CHARACTERS) or "-" for value in group.key.values()),
        *(f"{count:,}" for count in counts),
        *("-" if at is None else f"{at:,.0f}" for at in times),
        f"{group.principals:,}",
    ]


# --- check -------------------------------------------------------------------------------------


@summary.command()
@since_option
@until_option
@json_option
def check(since: str, until: str, as_json: bool) -> None:
    """Compare summaries with details: count everything anew, and write nothing.

    Exit codes: 0 they are equal, 1 they differ (`gatebook summary run` takes up what came in
    since, `rebuild` repairs the rest), or some hours or all are not summed up yet, 3 Elasticsearch
    cannot be reached.
    """
    from gatebook.processors.summaries.check import check as compare

    first, last = _time(since), _time(until)
    found = run_on_cluster(lambda c: compare(c, _namespace(), first, last))
    if as_json:
        click.echo(json.dumps(_plain(found)))
    else:
        _print_checked(found)
    is_whole = found.covered is not None and not found.waiting
    sys.exit(0 if is_whole and not found.differences else EXIT_DIFFERENT)


def _print_checked(found: Checked) -> None:
    if found.covered is None:
        click.echo("nothing is summed up yet; run `gatebook summary run`", err=True)
        return
    for one in found.differences:
        click.echo(f"{one.grain} {one.at}: {one.what}")
    click.echo(
        f"{found.hours} hours and {found.days} days compared: {found.events:,} events, of which "
        f"{found.carried:,} have no details any more; {len(found.differences)} differences"
    )
    if found.waiting:
        click.echo(
            f"{len(found.waiting)} hours with events are not summed up yet, the first is "
            f"{found.waiting[0]}: run `gatebook summary run`",
            err=True,
        )
    if found.differences:
        click.echo(
            "`gatebook summary run` takes up events that came in since the last run; what still "
            "differs then, `gatebook summary rebuild` repairs",
            err=True,
        )


# --- shared ------------------------------------------------------------------------------------


def _time(text: str) -> datetime | None:
    """A point in time as people write it; None for the empty text and `all`."""
    from gatebook.processors.search.times import parse_time

    if not text or text == "all":
        return None
    found = parse_time(text, datetime.now(UTC))
    return datetime.fromisoformat(found[:26].rstrip("Z") + "+00:00")


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _plain(found: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(found)


def _namespace() -> str:
    from gatebook.processors.config import from_env

    return from_env().namespace


COMMANDS = [summary]
