"""`gatebook up`, `down`, `status` and `doctor`: the engines on this machine.

Exit codes of all four: 0 fine; 1 not running, or a problem was found; 2 wrong usage or setting;
3 a port is taken; 4 too little disk or memory; 5 a download failed; 6 a package is missing;
7 an engine did not start; 8 Docker failed; 9 another command is at work in the same home.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.engines.progress import Progress

KINDS = ("auto", "embedded", "docker", "external")
EXIT_PROBLEM = 1
EXIT_CODES = (
    "Exit codes: 0 fine; 1 not running, or a problem was found; 2 wrong usage or setting; "
    "3 port taken; 4 too little disk or memory; 5 download failed; 6 package missing; "
    "7 an engine did not start; 8 Docker failed; 9 another command is at work here."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
engine_option = click.option(
    "--engine",
    type=click.Choice(KINDS),
    help="Which engines (default: GATEBOOK_ENGINE, else auto: addresses given in the "
    "environment, else Docker, else embedded).",
)


@click.command(epilog=EXIT_CODES)
@engine_option
@json_option
def up(engine: str | None, as_json: bool) -> None:
    """Start Kafka and Elasticsearch on this machine, loopback only, and wait until they answer.

    Doing it twice is fine. Data, logs and state are in GATEBOOK_HOME and survive a restart.
    """
    from gatebook.engines import selection
    from gatebook.engines.settings import EngineSettings

    settings = selection.with_engine(EngineSettings.from_environment(), engine)
    with _progress() as progress:
        endpoints = selection.start(settings, progress)
    if as_json:
        _print_json(endpoints)
        return
    click.echo(f"Kafka          {endpoints.kafka_bootstrap}")
    click.echo(f"Elasticsearch  {endpoints.elasticsearch_url}")
    click.echo(f"Engines        {endpoints.engine}; `gatebook down` stops them, data stays")


@click.command(epilog=EXIT_CODES)
@json_option
def down(as_json: bool) -> None:
    """Stop what `gatebook up` started. Data stays for the next `up`."""
    from gatebook.engines import selection
    from gatebook.engines.settings import EngineSettings

    settings = EngineSettings.from_environment()
    engines = selection.current(settings)
    engines.stop()
    external = engines.kind == "external"
    if as_json:
        _print_json({"engine": engines.kind, "stopped": not external})
    elif external:
        click.echo("These engines are not ours (addresses are given): nothing stopped.")
    else:
        click.echo(f"Stopped. Data stays in {settings.home}.")


@click.command(epilog=EXIT_CODES)
@json_option
def status(as_json: bool) -> None:
    """Tell whether Kafka and Elasticsearch answer, and where."""
    from gatebook.engines import selection
    from gatebook.engines.settings import EngineSettings

    found = selection.status(EngineSettings.from_environment())
    if as_json:
        _print_json(found)
    else:
        for one in found.engines:
            pid = f"  pid {one.pid}" if one.pid else ""
            click.echo(f"{one.name:<14} {one.state:<10} {one.address}{pid}")
    sys.exit(0 if found.running else EXIT_PROBLEM)


@click.command(epilog=EXIT_CODES)
@engine_option
@json_option
def doctor(engine: str | None, as_json: bool) -> None:
    """Check what Gatebook needs on this machine, and say what to do where it is lacking."""
    from gatebook.engines import selection
    from gatebook.engines.doctor import examine
    from gatebook.engines.settings import EngineSettings

    rows = examine(selection.with_engine(EngineSettings.from_environment(), engine))
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row.verdict:<5} {row.name:<16} {row.detail}")
            if row.next_step:
                click.echo(f"{'':<22} -> {row.next_step}")
    sys.exit(EXIT_PROBLEM if any(row.verdict == "fail" for row in rows) else 0)


COMMANDS = [up, down, status, doctor]


def _print_json(found: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, plain lines elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn
        from rich.progress import Progress as RichProgress
    except ImportError:  # comes with the extras; without it the words are enough
        yield PlainProgress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield BarProgress(bars)


class PlainProgress:
    """A line per step, and one per quarter of the downloads."""

    def __init__(self) -> None:
        self._quarters = 0

    def step(self, message: str) -> None:
        click.echo(message, err=True)

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        quarters = done_bytes * 4 // max(total_bytes, 1)
        if quarters > self._quarters:
            self._quarters = quarters
            click.echo(f"  {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB", err=True)


class BarProgress:
    """Steps above, one bar for all downloads below."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task: Any = None

    def step(self, message: str) -> None:
        self._bars.console.print(message)

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        if self._task is None:
            self._task = self._bars.add_task("downloading", total=total_bytes)
        self._bars.update(self._task, completed=done_bytes)
