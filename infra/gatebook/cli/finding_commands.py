"""`gatebook finding`: what the detectors flagged, and what people say of it."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.audited import looked
from gatebook.cli.cluster import run_on_cluster
from gatebook.cli.columns import print_columns

if TYPE_CHECKING:
    from gatebook.processors.alerts.verdicts import Problem, Word
    from gatebook.processors.sinks.connection import Connection

VERDICTS = ("true_positive", "false_positive", "benign")
STATES = ("open", "firing", "acknowledged", "resolved", "closed", "all")
EXIT_NOTHING = 1

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _not_empty(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.UsageError("the id is empty")
    return value


id_argument = click.argument("finding_id", callback=_not_empty)
by_option = click.option("--by", default="", help="Who says so; default: the user at the terminal.")


@click.group("finding")
def finding() -> None:
    """List findings, show one, and say what became of it."""


@finding.command("list")
@click.option("--since", default="7d", show_default=True, help="How far back.")
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True)
@click.option("--verdict", type=click.Choice(VERDICTS), help="Only those closed so.")
@click.option("--rule", help="Only those of this rule.")
@click.option("--query", default="", help="Only those that match, as in `gatebook search`.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
def list_command(
    since: str,
    state: str,
    verdict: str | None,
    rule: str | None,
    query: str,
    limit: int,
    as_json: bool,
) -> None:
    """List problems, newest first, one line each, and the verdicts so far by rule.

    Exit codes: 0 there are some, 1 there are none, 3 Elasticsearch cannot be reached.
    """
    from gatebook.processors.alerts.verdicts import read_problems, verdict_counts

    looked("finding.list", query=query, state=state, since=since)

    async def read(connection: Connection) -> tuple[list[Problem], dict[str, dict[str, int]]]:
        found = await read_problems(connection, _namespace(), since=since)
        matching = await _matching(connection, query, since) if query else None
        kept = [p for p in found if matching is None or p.finding["event"]["id"] in matching]
        return kept, await verdict_counts(connection, _namespace())

    found, counts = run_on_cluster(read)
    wanted = "closed" if verdict and state == "open" else state
    shown = [p for p in found if _is_shown(p, wanted, verdict, rule)]
    if as_json:
        _print_json({"problems": [_plain(p) for p in shown[:limit]], "verdicts": counts})
    else:
        _print_problems(shown[:limit], len(shown))
        _print_counts(counts)
    sys.exit(0 if shown else EXIT_NOTHING)


async def _matching(connection: Connection, query: str, since: str) -> set[str]:
    from gatebook.processors.search.service import search

    ids: set[str] = set()
    pages = search(connection, _namespace(), query, since=since, size=None, kind="finding")
    async for page in pages:
        ids.update(hit.source["event"]["id"] for hit in page.hits)
    return ids


def verdicts_by_rule() -> dict[str, dict[str, int]]:
    """Rule id to verdict to how many problems were closed so, from the index."""
    from gatebook.processors.alerts.verdicts import verdict_counts

    return run_on_cluster(lambda connection: verdict_counts(connection, _namespace()))


def _is_shown(problem: Problem, state: str, verdict: str | None, rule: str | None) -> bool:
    is_open = problem.state in ("firing", "acknowledged")
    fits = state == "all" or problem.state == state or (state == "open" and is_open)
    right_verdict = verdict is None or problem.verdict == verdict
    return fits and right_verdict and (rule is None or problem.finding["rule"]["id"] == rule)


def _plain(problem: Problem) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(problem))


def _print_problems(shown: list[Problem], total: int) -> None:
    print_columns(
        ("since", "severity", "state", "rule", "principal", "finding", "reason"),
        [_cells(problem) for problem in shown],
    )
    if total > len(shown):
        click.echo(f"{total - len(shown)} more; raise --limit")
    if not total:
        click.echo("no finding", err=True)


def _cells(problem: Problem) -> tuple[str, ...]:
    from gatebook.processors.search.display import render

    document = problem.finding
    ours = document["gatebook"]
    return (
        render("@timestamp", document["@timestamp"]),
        str(ours.get("severity", "")),
        problem.verdict or problem.state,
        str(document["rule"]["id"]),
        str(ours.get("principal", "")),
        str(document["event"]["id"]),
        str(document["event"].get("reason", "")),
    )


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    from gatebook.processors.search.display import safe

    if counts:
        click.echo("verdicts:")
    for rule_id in sorted(counts):
        said = ", ".join(f"{n} {word}" for word, n in sorted(counts[rule_id].items()))
        click.echo(f"  {safe(rule_id, 64)}: {safe(said)}")


@finding.command("show")
@id_argument
@json_option
def show_command(finding_id: str, as_json: bool) -> None:
    """Show a finding, all that was said of it, and where it was delivered.

    FINDING_ID is the id of a finding or of its incident. Exit codes: 0 found, 1 not, 3
    Elasticsearch cannot be reached.
    """
    from gatebook.processors.search.display import flatten, render, safe

    looked("finding.view", finding=finding_id)
    documents = run_on_cluster(lambda connection: _all_of(connection, finding_id))
    if as_json:
        _print_json(documents)
    for document in () if as_json else documents:
        flat = flatten(document)
        width = max(map(len, flat))
        click.echo(safe(str(document["event"].get("action", ""))))
        for name in sorted(flat):
            click.echo(f"  {safe(name):<{width}}  {render(name, flat[name])}")
    if not documents:
        click.echo("no finding has this id", err=True)
        sys.exit(EXIT_NOTHING)


async def _all_of(connection: Connection, finding_id: str) -> list[dict[str, Any]]:
    """Documents of a finding or an incident, oldest first: findings and words, then deliveries."""
    found, keys = await _incident(connection, finding_id)
    if not found:
        return []
    sent = _any_of(("gatebook.finding_id", "gatebook.incident"), keys)
    return found + await _read(connection, sent, "alert")


async def _incident(
    connection: Connection, finding_id: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Findings of an incident and words on them, oldest first; and the ids that they go by. A word
    cites one finding of its incident; whoever asks by another wants it all the same."""
    from gatebook.processors.alerts.verdicts import problem_key

    found = await _findings(connection, [finding_id])
    keys = sorted({finding_id, *(problem_key(document) for document in found)})
    return (await _findings(connection, keys) if found else []), keys


async def _findings(connection: Connection, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Findings and words on them, by ids of findings or incidents, oldest first."""
    names = ("event.id", "gatebook.incident", "labels.finding_id")
    return await _read(connection, _any_of(names, keys), "finding")


def _any_of(names: Sequence[str], values: Sequence[str]) -> str:
    return " or ".join(f"{name}:{_quoted(value)}" for value in values for name in names)


async def _read(connection: Connection, query: str, kind: str) -> list[dict[str, Any]]:
    from gatebook.processors.search.service import search

    documents: list[dict[str, Any]] = []
    pages = search(connection, _namespace(), query, sort="@timestamp:asc", size=1000, kind=kind)
    async for page in pages:
        documents += [hit.source for hit in page.hits]
    return documents


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@finding.command("close")
@id_argument
@click.option("--verdict", type=click.Choice(VERDICTS), required=True, help="What it was.")
@click.option("--reason", default="", help="Why, for whoever looks at it later.")
@by_option
def close_command(finding_id: str, verdict: str, reason: str, by: str) -> None:
    """Say what a finding was. It ends the alert at every target that was told.

    After false_positive and benign the same problem is kept quiet for a while, unless its figure
    is much larger than it was: see noise control in the alerts file. The verdict is kept in the
    index and in Kafka, and that it was given is an event, durable before. Where there is a verdict
    already, the new one replaces it, and says why: --reason. Exit codes: 0 written, 1 no such
    finding, 2 a reason is missing, 3 Elasticsearch cannot be reached, 6 it could not be recorded.
    """
    replaced = _say(finding_id, "closed", verdict=verdict, reason=reason, by=by)
    click.echo(f"closed as {verdict}" + (f", replaces {replaced}" if replaced else ""))


@finding.command("ack")
@id_argument
@by_option
def ack_command(finding_id: str, by: str) -> None:
    """Say that somebody has it in hand; targets that know such a step are told."""
    _say(finding_id, "acknowledged", by=by)
    click.echo("acknowledged")


def _say(finding_id: str, word: Word, *, verdict: str = "", reason: str = "", by: str = "") -> str:
    """Say it; returns the verdict before, and whose it was. UsageError where a verdict would be
    replaced without a reason."""
    from gatebook.processors.alerts.verdicts import newest_firing, send, word_on
    from gatebook.processors.config import from_env, kafka_properties
    from gatebook.schemas.confluent import wire_from_env
    from gatebook.schemas.reason_text import is_stated

    documents, _ = run_on_cluster(lambda connection: _incident(connection, finding_id))
    cited = newest_firing(documents, finding_id)
    if cited is None:
        click.echo("no finding has this id", err=True)
        sys.exit(EXIT_NOTHING)
    before = verdict_before(documents) if word == "closed" else ""
    if before and not is_stated(reason):
        raise click.UsageError(f"this would replace {before}; say why: --reason TEXT")
    settings = from_env()
    who = by or _user()
    said = word_on(cited, word, time.time_ns(), verdict=verdict, reason=reason, by=who)
    properties = kafka_properties(settings.kafka_bootstrap)
    with _recorded(finding_id, word, verdict=verdict, reason=reason, by=who):
        send(said, settings.namespace, properties, wire_from_env(settings.namespace))
    return before


def verdict_before(documents: Sequence[dict[str, Any]]) -> str:
    """The verdict that stands, and whose it is, of findings and words of one incident, oldest
    first; empty where there is none."""
    from gatebook.processors.alerts.verdicts import judged
    from gatebook.processors.search.display import safe

    before = judged(documents)
    return " and ".join(f"{one.verdict} by {safe(one.by, 64) or 'somebody'}" for one in before)


def _recorded(finding_id: str, word: Word, **details: str) -> AbstractContextManager[None]:
    """The word is in the log before it is said. Raises NotRecorded."""
    from gatebook.cli.privileged import act, witnessed

    action = "finding.verdict" if word == "closed" else f"finding.{word}"
    given = {"finding": finding_id, **details}
    return witnessed(act(action, {name: text for name, text in given.items() if text}))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return ""


def _print_json(value: Any) -> None:
    from gatebook.processors.search.display import to_json

    click.echo(to_json(value, indent=2))


def _namespace() -> str:
    from gatebook.processors.config import from_env

    return from_env().namespace


COMMANDS = [finding]
