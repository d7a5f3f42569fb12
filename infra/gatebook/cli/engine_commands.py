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
    from gatebook.cli.producer_check import Hop
    from gatebook.engines.check import Check
    from gatebook.engines.progress import Progress
    from gatebook.engines.settings import Endpoints, EngineSettings, Status

KINDS = ("auto", "embedded", "docker", "external")
EXIT_PROBLEM = 1
# The verdicts that want something done, worst first, and how the summary calls them.
VERDICTS = {"fail": "Broken", "warn": "Worth a look"}
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
    _make_keys(endpoints.engine, settings)
    if as_json:
        _print_json(endpoints)
        return
    click.echo(f"Kafka          {endpoints.kafka_bootstrap}")
    click.echo(f"Elasticsearch  {endpoints.elasticsearch_url}")
    click.echo(f"Engines        {_whose(endpoints.engine, settings)}")
    if elsewhere := _exports(endpoints, settings):
        click.echo(f"Before more    {elsewhere}")
    click.echo("Next           gatebook setup (topics, index templates), then gatebook worker")


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
    """Tell whether Kafka and Elasticsearch answer, and where.

    States: running; unhealthy (its process lives and does not answer); stale (its process is
    gone); stopped (not started, or, for engines that are not ours, no answer).
    """
    from gatebook.engines import selection
    from gatebook.engines.settings import EngineSettings

    settings = EngineSettings.from_environment()
    found = selection.status(settings)
    if as_json:
        _print_json(found)
    else:
        _print_status(found, settings)
    sys.exit(0 if found.running else EXIT_PROBLEM)


@click.command(epilog=EXIT_CODES)
@engine_option
@click.option(
    "--producer",
    is_flag=True,
    help="Instead, send one event with this environment's producer settings and follow it into "
    "the index (it stays there, marked event.action=probe).",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0.1, 600),
    default=30.0,
    show_default=True,
    help="--producer: seconds to wait at each hop.",
)
@json_option
def doctor(engine: str | None, producer: bool, wait_seconds: float, as_json: bool) -> None:
    """Check this machine, the engines and what stands in them: settings, topics, templates, each
    worker role's lag, dead letters, unsent spools, keys for content. Says what to do where
    something is wrong.

    Without --producer it changes nothing. `warn` is no obstacle to working, `fail` is one. Engines
    that do not run are 1, as with `gatebook status`.
    """
    from gatebook.cli.doctor_checks import check_surroundings
    from gatebook.engines import selection
    from gatebook.engines.doctor import examine
    from gatebook.engines.settings import EngineSettings

    rows: list[Check] | list[Hop]
    if producer:
        from gatebook.cli.producer_check import check_producer

        rows = check_producer(wait_seconds)
    else:
        rows = examine(selection.with_engine(EngineSettings.from_environment(), engine))
        is_down = any(row.name == "kafka" and row.verdict == "fail" for row in rows)
        rows += check_surroundings(kafka_answers=not is_down)
    if as_json:
        _print_json(rows)
    else:
        _print_rows(rows)
    sys.exit(EXIT_PROBLEM if any(_is_problem(row) for row in rows) else 0)


def _is_problem(row: Check | Hop) -> bool:
    """What is broken; and an engine that was never started, which is only a warning to read."""
    from gatebook.engines.settings import ENGINE_NAMES

    return row.verdict == "fail" or (row.name in ENGINE_NAMES and row.verdict != "ok")


def _make_keys(engine: str, settings: EngineSettings) -> None:
    """Keys for the content of services on this machine. Not beside somebody else's engines: their
    intake could not open what is sealed with ours."""
    from gatebook.schemas import sealing
    from gatebook.schemas.keys import KeyFiles

    if engine != "external" and sealing.installed():
        KeyFiles.in_folder(settings.home / "keys").ensure()


def _whose(engine: str, settings: EngineSettings) -> str:
    if engine == "external":
        return "not ours (addresses are given); `gatebook down` will not stop them"
    return f"{engine}; `gatebook down` stops them, data stays in {settings.home}"


def _exports(endpoints: Endpoints, settings: EngineSettings) -> str:
    """The command that leads the other commands here; empty where they come here by themselves."""
    from gatebook.engines.settings import LOOPBACK, EngineSettings

    default = EngineSettings(home=settings.home)
    usual = {f"{LOOPBACK}:{default.kafka_port}", f"http://{LOOPBACK}:{default.elasticsearch_port}"}
    pairs = endpoints.as_environment()
    if endpoints.engine == "external" or set(pairs.values()) == usual:
        return ""
    return "export " + " ".join(f"{name}={value}" for name, value in pairs.items())


def _print_status(found: Status, settings: EngineSettings) -> None:
    whose = "addresses are given" if found.engine == "external" else f"home {settings.home}"
    click.echo(f"engines: {found.engine} ({whose})")
    for one in found.engines:
        pid = f"  pid {one.pid}" if one.pid else ""
        up_for = f"  up {one.uptime_seconds:.0f} s" if one.uptime_seconds else ""
        silent = found.engine == "external" and one.state == "stopped"
        state = "no answer" if silent else one.state  # whether it runs we cannot know
        click.echo(f"{one.name:<14} {state:<10} {one.address}{pid}{up_for}")
        if one.state != "running" and one.log:
            click.echo(f"{'':<14} log: {one.log}")
    if found.running:
        return
    states = {one.state for one in found.engines if one.state != "running"}
    start = "`gatebook up` starts what does not run; " if states & {"stopped", "stale"} else ""
    if found.engine == "external":
        start = ""  # somebody else starts them
    click.echo(f"what to do: {start}`gatebook doctor` says what is wrong", err=True)


def _print_rows(rows: list[Check] | list[Hop]) -> None:
    """Every row, then the ones that want something done once more: they may have scrolled away."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(f"{row.verdict:<5} {row.name:<{width}} {row.detail}")
        if row.next_step:
            click.echo(f"{'':<5} {'':<{width}} -> {row.next_step}")
    counts = {verdict: [r.name for r in rows if r.verdict == verdict] for verdict in VERDICTS}
    if not counts["fail"] and not counts["warn"]:
        click.echo("\nAll is well.")
    for verdict, word in VERDICTS.items():
        if counts[verdict]:
            click.echo(f"\n{word}: {', '.join(counts[verdict])}")


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
