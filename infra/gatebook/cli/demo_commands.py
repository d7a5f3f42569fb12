"""`gatebook demo`: run the main job once on this machine and say what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.cli.demo.picture import Picture
    from gatebook.cli.demo.run import DemoReport
    from gatebook.cli.demo.scenario import StepResult


class Told:
    """Narrates on standard error, so that standard output holds the result alone."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._megabytes = -1

    def step(self, message: str) -> None:
        """A new step begins."""
        self._console.print(f"[bold]>[/] {message}")

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        """A line whenever another tenth is here."""
        tenth = 10 * done_bytes // max(1, total_bytes)
        if tenth != self._megabytes:
            self._megabytes = tenth
            done, total = done_bytes / 1e6, total_bytes / 1e6
            self._console.print(f"    downloaded {done:.0f} of {total:.0f} MB")

    def request(self, result: StepResult) -> None:
        """A step of the scenario is over."""
        mark = "[green]ok[/]" if result.ok else "[red]!![/]"
        self._console.print(f"    {mark} {result.user:8} {result.name}: {result.observed}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
@click.option("--scale", default=1, show_default=True, help="Repeat the ordinary traffic.")
def demo(as_json: bool, scale: int) -> None:
    """Run the main job on real input: a llama.cpp server, the openai client, Kafka, Faust,
    Elasticsearch and an alert receiver.

    Exit 0 only where every request is accounted for (emitted = indexed + dead-lettered) and no
    planted secret stands in the index; else 1. The engines stay up: `gatebook down` stops them.
    """
    from gatebook.cli.demo.run import run_demo

    report, picture = run_demo(Told(quiet=as_json), scale)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        show(report, picture)
    sys.exit(0 if report.ok else 1)


def show(report: DemoReport, picture: Picture) -> None:
    """The readable summary."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print()
    console.print(_accounts(report))
    console.print(_answers(picture))
    if picture.findings:
        console.print(_findings(picture))
    for problem in report.problems:
        console.print(f"[red]not as promised:[/] {problem}", markup=True)
    if report.ok:
        console.print(
            f"[green]Every one of {report.emitted} accesses is accounted for, and none of the "
            "planted secrets is in the index.[/]"
        )
    console.print(_next_steps(report.exports), soft_wrap=True)


def _table(title: str, *columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _accounts(report: DemoReport) -> Any:
    table = _table("Accounts", "what", "count", "meaning")
    table.add_row("requests", str(report.requests_sent), "sent by the openai client")
    table.add_row("emitted", str(report.emitted), "events recorded by the middleware")
    table.add_row("acknowledged", str(report.acknowledged), "of them delivered to Kafka, acks=all")
    table.add_row("indexed", str(report.indexed), "of them found in Elasticsearch")
    table.add_row("dead-lettered", str(report.dead_lettered), "of them rejected, with a reason")
    table.add_row("findings", str(report.findings), "flagged by the detectors")
    table.add_row("alerts", str(report.alerts), "received by the alert receiver")
    table.add_row("elapsed", f"{report.elapsed_seconds:g} s", "from start to here")
    return table


def _answers(picture: Picture) -> Any:
    table = _table("What was recorded", "user", "outcome", "reason", "events")
    rows: dict[tuple[str, str, str], int] = {}
    for event in picture.events:
        user = event.get("user", {}).get("id") or "(not identified)"
        outcome = event.get("event", {})
        key = (user, outcome.get("outcome", ""), outcome.get("reason", ""))
        rows[key] = rows.get(key, 0) + 1
    for (user, outcome, reason), count in sorted(rows.items()):
        table.add_row(user, outcome, reason, str(count))
    return table


def _findings(picture: Picture) -> Any:
    table = _table("Findings", "severity", "rule", "why")
    for finding in picture.findings:
        ours = finding["gatebook"]
        table.add_row(
            ours.get("severity", ""),
            finding["rule"]["name"],
            finding["event"].get("reason", ""),
        )
    return table


def _next_steps(exports: Mapping[str, str]) -> str:
    told = "".join(f"  export {name}={value}\n" for name, value in exports.items())
    return f"""
Look around (Kafka and Elasticsearch are still up):
{told}  gatebook search 'event.outcome:failure' --since 1h
  gatebook search 'user.id:mallory and event.reason:invalid_request' --json
  gatebook search '' --kind finding
  gatebook serve         the same in your browser: prints a link
  gatebook worker        reads what comes in from now on: the demo's own workers have ended
  gatebook down          stops the engines, data stays
"""


COMMANDS = [demo]
