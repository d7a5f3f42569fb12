"""`gatebook settings` and `gatebook metrics`: what can be set, and what can be watched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.cli.metrics_page import MetricRow
    from gatebook.cli.settings_page import Setting

EXIT_DIFFERENT = 1
PAGE = "infra/SETTINGS.md"
INTRODUCTION = f"""\
# Settings and metrics

Written by `gatebook settings --markdown > {PAGE}`; do not edit. `make lint` compares.

Every setting is an environment variable, read once when a process starts. An empty variable counts
as not set. Secrets are never printed. `gatebook settings` shows this list with what is set in your
environment, and names variables that no part reads.
"""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", is_flag=True, help=f"Print the page {PAGE}.")
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare this file with the page; print nothing, exit 1 where it differs.",
)
def settings(as_json: bool, markdown: bool, check: Path | None) -> None:
    """List every setting: variable, default, type and range, meaning, and who reads it.

    A `*` marks what is set in this environment; values are not shown. Exit codes: 0 fine; 1 the
    checked file differs; 6 a part is not installed, so that the page cannot be whole.
    """
    from gatebook.cli.settings_page import gather

    found = gather()
    if as_json:
        _print_json({"settings": found.settings, "not_installed": found.missing})
    elif check:
        _compare(check)
    elif markdown:
        click.echo(page(), nl=False)
    else:
        _print_settings(found.settings)
        _print_missing(found.missing)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def metrics(as_json: bool) -> None:
    """List every Prometheus metric: name, type, labels, meaning, and who exposes it.

    Producers expose theirs in the service's own registry, workers at GATEBOOK_METRICS_PORT.
    """
    from gatebook.cli.metrics_page import gather

    found = gather()
    if as_json:
        _print_json({"metrics": found.metrics, "not_installed": found.missing})
        return
    for part in dict.fromkeys(one.part for one in found.metrics):
        click.echo(f"\n{part}")
        for one in (m for m in found.metrics if m.part == part):
            click.echo(f"  {_with_labels(one)}  {one.kind}\n      {one.meaning}")
    _print_missing(found.missing)


COMMANDS = [settings, metrics]


def page() -> str:
    """The whole page. Raises MissingExtra where a part is not installed: half a page would look
    like a whole one."""
    from gatebook.cli import metrics_page, settings_page

    variables, exposed = settings_page.gather(), metrics_page.gather()
    if missing := {**variables.missing, **exposed.missing}:
        from gatebook.engines.errors import MissingExtra

        module, package = next(iter(missing.items()))
        raise MissingExtra(f"{module} needs {package}.", "run: pip install 'gatebook[all]'")
    tables = [_settings_table(part, rows) for part, rows in _groups(variables.settings).items()]
    return "\n".join([INTRODUCTION, *tables, _metrics_table(exposed.metrics)])


def _groups(rows: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by who reads them; what several read comes first."""
    from gatebook.cli.settings_page import SHARED

    groups: dict[str, list[Setting]] = {SHARED: []}
    for one in rows:
        groups.setdefault(one.group, []).append(one)
    return groups


def _settings_table(part: str, rows: list[Setting]) -> str:
    lines = [f"## Read by {part}\n", "| variable | default | type | meaning | read by |"]
    lines.append("|---|---|---|---|---|")
    for one in rows:
        default = f"`{one.default}`" if one.default else ""
        cells = [f"`{one.variable}`", default, one.kind, one.meaning, ", ".join(one.read_by)]
        lines.append(_markdown_row(cells))
    return "\n".join(lines) + "\n"


def _metrics_table(rows: Iterable[MetricRow]) -> str:
    lines = ["## Metrics\n", "`gatebook metrics` shows the same list.\n"]
    lines += ["| metric | type | labels | meaning | exposed by |", "|---|---|---|---|---|"]
    for one in rows:
        cells = [f"`{one.name}`", one.kind, ", ".join(one.labels), one.meaning, one.part]
        lines.append(_markdown_row(cells))
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    """One row; what stands in backticks is shown as it is, but for the bar."""
    bars = (cell.replace("|", "\\|") for cell in cells)
    safe = (cell if cell.startswith("`") else cell.replace("<", "&lt;") for cell in bars)
    return f"| {' | '.join(safe)} |"


def _with_labels(one: MetricRow) -> str:
    return f"{one.name}{{{','.join(one.labels)}}}" if one.labels else one.name


def _compare(path: Path) -> None:
    if path.read_text(encoding="utf-8") != page():
        click.echo(f"gatebook: {path} is not what the code says.", err=True)
        click.echo(f"  what to do: gatebook settings --markdown > {path}", err=True)
        sys.exit(EXIT_DIFFERENT)


def _print_settings(rows: list[Setting]) -> None:
    from gatebook.cli.settings_page import unknown

    for part, group in _groups(rows).items():
        click.echo(f"\nread by {part}")
        for one in group:
            mark = "*" if os.environ.get(one.variable) else " "
            default = f" [{one.default}]" if one.default else ""
            click.echo(f" {mark} {one.variable}{default}  {one.kind}\n      {one.meaning}")
    if names := unknown(os.environ, rows):
        click.echo(f"\nset here, but read by no part: {', '.join(names)}", err=True)
        click.echo("  what to do: look for a typing error in the list above", err=True)


def _print_missing(missing: dict[str, str]) -> None:
    for module, package in missing.items():
        click.echo(f"\nnot listed: {module} ({package} is not installed)", err=True)
        click.echo("  what to do: pip install 'gatebook[all]'", err=True)


def _print_json(found: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
