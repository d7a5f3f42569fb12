"""`gatebook backtest`: what a rule would have found in what was recorded."""

from __future__ import annotations

import asyncio
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.processors.detect.backtest import Backtest, Example, Known, Report, Verdicts
    from gatebook.processors.detect.base import Detector
    from gatebook.processors.detect.limits import Limits
    from gatebook.processors.history import Batch
    from gatebook.processors.sinks.connection import Connection

EXIT_NOTHING = 1
TELL_SECONDS = 1.0
BAR_CHARACTERS = 40
# What of the accesses is looked at; stands in the recorded event.
RECORDED = ("query", "since", "until", "learn", "source")
FILE = click.Path(dir_okay=False, exists=True)


@click.command("backtest")
@click.option("--rule", "rule_id", required=True, help="Id of the rule.")
@click.option("--since", default="7d", show_default=True, help="From (12h, 7d, 2026-11-23).")
@click.option("--until", default="", help="Up to, exclusive; default: now.")
@click.option(
    "--learn",
    default="",
    help="Begin to read here, earlier than --since: what learns has learned, and is not reported.",
)
@click.option(
    "--source",
    type=click.Choice(("index", "kafka")),
    default="index",
    show_default=True,
    help="Where the history is read: Kafka has what its retention left, in the order it came.",
)
@click.option("--query", default="", help="Only accesses that match; --source index.")
@click.option(
    "--detectors-file",
    envvar="GATEBOOK_DETECTORS_FILE",
    type=FILE,
    help="TOML file with the parameters in force.",
)
@click.option("--against", type=FILE, help="TOML file with other parameters to compare with.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter to compare with, such as threshold=20; may be given again.",
)
@click.option(
    "--rules-path",
    envvar="GATEBOOK_RULES_PATH",
    default="",
    type=click.Path(file_okay=False),
    help="Folder with rules of your own.",
)
@click.option(
    "--labels",
    type=FILE,
    help="What is known of the past: a JSON object a line with `verdict` (true_positive, "
    "false_positive, benign) and `event`, `incident`, or `principal` with `since` and `until`.",
)
@click.option("--examples", type=click.IntRange(0, 1000), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backtest(**given: Any) -> None:
    """Replay recorded accesses through one rule; nothing is alerted, nothing is stored.

    Prints findings a day, the busiest identities, examples, and precision where people closed
    findings with a verdict or --labels says what happened. With --against or --set it is done for
    both at once, and what only one of them finds is listed.

    Exit codes: 0 done, 1 there was nothing to replay, 2 wrong usage, 3 the index or Kafka cannot be
    read.
    """
    from gatebook.processors.detect.backtest import only_in

    replayed, reports = asyncio.run(_replayed(given))
    gone = new = list[Any]()
    if len(replayed.trials) == 2:
        before, after = replayed.trials
        gone, new = only_in(before, after), only_in(after, before)
    if given["as_json"]:
        _print_json(reports, gone[: given["examples"]], new[: given["examples"]])
    else:
        _print_text(reports, gone, new, given["examples"])
    sys.exit(0 if replayed.accesses else EXIT_NOTHING)


async def _replayed(given: Mapping[str, Any]) -> tuple[Backtest, list[Report]]:
    from gatebook.cli.audited import looked
    from gatebook.processors.detect.access import parse_time_ns
    from gatebook.processors.search.times import parse_time

    now = datetime.now(UTC)
    since = parse_time(given["since"], now)
    begin = parse_time(given["learn"], now) if given["learn"] else since
    until = parse_time(given["until"], now) if given["until"] else parse_time("now", now)
    if not min(begin, since).rstrip("Z") < until.rstrip("Z"):
        raise click.UsageError("the time range is empty: give an --until later than --since")
    begin = min(begin, since)
    compared = _compared(given)  # what is wrong is told before the index is asked
    looked("rule.backtest", rule=given["rule_id"], **{name: given[name] for name in RECORDED})
    replay = _backtest(compared, parse_time_ns(since), await _verdicts(given, begin))
    told = _Progress(quiet=given["as_json"])
    async for batch in _history(given, begin, until):
        replay.take(batch.documents, batch.written_ns)
        told.tell(replay)
    told.end()
    return replay, replay.finish(given["examples"])


def _compared(given: Mapping[str, Any]) -> list[tuple[str, Detector, Limits]]:
    """The rule as it is now and, where asked for, with other parameters. Fatal says what is
    wrong with them."""
    from gatebook.processors.detect.registry import load_detector, load_limits, load_overrides

    rules_path, rule_id = given["rules_path"], given["rule_id"]

    def named(name: str, tables: Mapping[str, Mapping[str, Any]]) -> tuple[str, Detector, Limits]:
        own = {**tables.get(rule_id, {}), "enabled": True}
        return name, load_detector(rule_id, own, rules_path), load_limits(tables)

    now = load_overrides(given["detectors_file"], rules_path)
    found = [named("now", now)]
    if given["against"] or given["changes"]:
        other = load_overrides(given["against"], rules_path) if given["against"] else now
        changed = {**other.get(rule_id, {}), **_changes(given["changes"])}
        found.append(named("against", {**other, rule_id: changed}))
    return found


def _backtest(
    compared: Sequence[tuple[str, Detector, Limits]], since_ns: int, verdicts: Verdicts
) -> Backtest:
    from gatebook.processors.detect.backtest import Backtest, Trial

    return Backtest(
        [Trial(name, [rule], verdicts, since_ns, limits) for name, rule, limits in compared]
    )


def _changes(changes: Sequence[str]) -> dict[str, Any]:
    try:
        return tomllib.loads("\n".join(changes))
    except tomllib.TOMLDecodeError:
        raise click.UsageError("--set wants NAME=VALUE, texts in quotes") from None


# ---- what is replayed --------------------------------------------------------------------------


async def _history(given: Mapping[str, Any], since: str, until: str) -> AsyncIterator[Batch]:
    if given["source"] == "index":
        async for batch in _of_index(given, since, until):
            yield batch
        return
    from gatebook.processors.config import from_env, kafka_properties
    from gatebook.processors.detect.access import parse_time_ns
    from gatebook.processors.history import from_kafka
    from gatebook.schemas.confluent import wire_from_env

    if given["query"]:
        raise click.UsageError("--query is for --source index")
    settings = from_env()
    wire = wire_from_env(settings.namespace)
    first_ms, end_ms = (parse_time_ns(text) // 1_000_000 for text in (since, until))
    properties = kafka_properties(settings.kafka_bootstrap)
    for batch in from_kafka(properties, settings.namespace, first_ms, end_ms, wire):
        yield batch


async def _of_index(given: Mapping[str, Any], since: str, until: str) -> AsyncIterator[Batch]:
    from gatebook.processors.history import from_index
    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.sinks.connection import Unreachable

    connection = _connection()
    try:
        async for batch in from_index(connection, _namespace(), since, until, given["query"]):
            yield batch
    except Unreachable as error:
        raise SearchFailed(
            f"Elasticsearch does not answer at {connection.address} ({error})",
            "start it (`gatebook up`), or use --source kafka",
        ) from None
    finally:
        await connection.close()


def _connection() -> Connection:
    from gatebook.processors.config import from_env
    from gatebook.processors.sinks.connection import Connection
    from gatebook.processors.sinks.settings import elasticsearch_settings

    return Connection(elasticsearch_settings(url=from_env().elasticsearch_url))


def _namespace() -> str:
    from gatebook.processors.config import from_env

    return from_env().namespace


async def _verdicts(given: Mapping[str, Any], since: str) -> Verdicts:
    """What people closed, and what the labels file says; the index's are not asked for where the
    history comes from Kafka and the index is away."""
    from gatebook.processors.detect.backtest import Verdicts

    labels = _labels(given["labels"]) if given["labels"] else []
    return Verdicts(labels, await _closed(given, since))


def _labels(path: str) -> list[Any]:
    import msgspec

    from gatebook.processors.detect.backtest import Label
    from gatebook.schemas.errors import Fatal

    lines = Path(path).read_bytes().splitlines()
    try:
        return [msgspec.json.decode(line, type=Label) for line in lines if line.strip()]
    except msgspec.MsgspecError as error:
        raise Fatal(f"--labels: {error}", "a JSON object a line; see --help") from None


async def _closed(given: Mapping[str, Any], since: str) -> list[Known]:
    from gatebook.processors.alerts.verdicts import read_problems
    from gatebook.processors.detect.access import parse_time_ns
    from gatebook.processors.detect.backtest import VERDICTS, Known
    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.sinks.connection import Unreachable

    connection = _connection()
    try:
        query = f"rule.id:{given['rule_id']}"
        problems = await read_problems(connection, _namespace(), query, since)
    except (Unreachable, SearchFailed):
        if given["source"] == "index":
            raise SearchFailed(
                f"Elasticsearch does not answer at {connection.address}",
                "start it (`gatebook up`), or use --source kafka",
            ) from None
        click.echo("the index is away: no verdicts but those of --labels", err=True)
        return []
    finally:
        await connection.close()
    return [
        Known(
            problem.finding["gatebook"]["dedup_key"],
            parse_time_ns(problem.finding["event"]["start"]),
            parse_time_ns(problem.finding["event"]["end"]),
            problem.verdict,
        )
        for problem in problems
        if problem.verdict in VERDICTS
    ]


class _Progress:
    """How far it is, to a terminal's standard error."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._told_at = time.monotonic()
        self._dirty = False

    def tell(self, replay: Backtest) -> None:
        if not self._shown or time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at, self._dirty = time.monotonic(), True
        line = f"{replay.accesses:,} accesses, up to {_time(replay.last_ns)}"
        click.echo(f"\r{line:<70}", nl=False, err=True)

    def end(self) -> None:
        if self._dirty:
            click.echo(f"\r{'':<70}\r", nl=False, err=True)


# ---- what is printed ---------------------------------------------------------------------------


def _time(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"


def _print_json(reports: Sequence[Report], gone: Sequence[Example], new: Sequence[Example]) -> None:
    import msgspec

    found: dict[str, Any] = {report.name: msgspec.to_builtins(report) for report in reports}
    for report in found.values():
        report["verdicts"]["none"] = report["verdicts"].pop("")
    if len(reports) == 2:
        found["only_now"], found["only_against"] = map(msgspec.to_builtins, (gone, new))
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


def _print_text(
    reports: Sequence[Report], gone: Sequence[Example], new: Sequence[Example], examples: int
) -> None:
    first = reports[0]
    if not first.accesses:
        click.echo("nothing to replay: no access was recorded in this time", err=True)
        return
    click.echo(
        f"{first.rule} (version {first.version}) over {first.accesses:,} accesses, "
        f"{_time(first.first_ns)} to {_time(first.last_ns)} UTC\n"
    )
    _print_figures(reports)
    _print_days(reports)
    for report in reports[:1] if len(reports) == 1 else reports:
        _print_busiest(report, len(reports) > 1)
    if len(reports) == 2:
        _print_examples("found only now", gone, examples)
        _print_examples("found only against", new, examples)
    else:
        _print_examples("examples", first.examples, examples)


def _print_figures(reports: Sequence[Report]) -> None:
    rows: list[tuple[str, Callable[[Report], str]]] = [
        ("", lambda r: r.name),
        ("incidents", lambda r: f"{r.incidents:,}"),
        ("a day", lambda r: f"{r.a_day:.2f}"),
        *((word, _of_severity(word)) for word in ("critical", "error", "warning", "info")),
        ("identities", lambda r: f"{len(r.busiest)}{'+' if len(r.busiest) == 10 else ''}"),
        ("precision", _precision),
        ("late accesses", lambda r: f"{r.late:,}"),
    ]
    for name, cell in rows:
        click.echo(f"{name:<16}" + "".join(f"{cell(report):>28}" for report in reports))


def _of_severity(word: str) -> Callable[[Report], str]:
    return lambda report: f"{report.by_severity.get(word, 0):,}"


def _precision(report: Report) -> str:
    if report.precision is None:
        return "no verdicts"
    judged = report.incidents - report.verdicts[""]
    return f"{report.precision:.2f} of {judged} judged"


def _print_days(reports: Sequence[Report]) -> None:
    days = sorted({day for report in reports for day in report.by_day})
    most = max((n for report in reports for n in report.by_day.values()), default=1)
    if days:
        click.echo("\nincidents a day")
    for day in days:
        for report in reports:
            count = report.by_day.get(day, 0)
            bar = "#" * round(BAR_CHARACTERS * count / most)
            name = f" {report.name:<8}" if len(reports) > 1 else ""
            click.echo(f"  {day}{name} {count:>6,} {bar}")


def _print_busiest(report: Report, named: bool) -> None:
    from gatebook.processors.search.display import safe

    if report.busiest:
        click.echo(f"\nbusiest identities{f' ({report.name})' if named else ''}")
    for who, count in report.busiest:
        click.echo(f"  {count:>6,}  {safe(who, 80)}")


def _print_examples(title: str, examples: Sequence[Example], limit: int) -> None:
    from gatebook.processors.search.display import safe

    if not examples or not limit:
        return
    click.echo(f"\n{title} ({min(limit, len(examples))} of {len(examples):,})")
    for example in examples[:limit]:
        verdict = f" [{example.verdict}]" if example.verdict else ""
        click.echo(f"  {_time(example.at_ns)}  {example.severity}  {safe(example.reason)}{verdict}")
        ids = ", ".join(example.evidence[-3:])
        click.echo(f"    {example.evidence_count} events, the last: {safe(ids)}")


COMMANDS = [backtest]
