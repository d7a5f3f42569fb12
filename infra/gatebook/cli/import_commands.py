"""`gatebook import`: access logs that exist already."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gatebook.producers.adapters.importer import Report, ResumeFile, Source
    from gatebook.producers.adapters.outside import Policy
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.recorder import Recorder

EXIT_REJECTED = 1
EXIT_WAITING = 3
PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 0.5
MOST_REASONS = 5


class _Job:
    """What all files of one call share."""

    def __init__(
        self,
        log_format: str,
        mapping: Path | None,
        label: str,
        folder: Path,
        rejects: Path | None,
        restart: bool,
        last_line: bool,
        policy: Policy,
        recorder: Recorder | None,
    ) -> None:
        self.log_format = log_format
        self.mapping = mapping
        self.label = label
        self.folder = folder
        self.rejects = rejects
        self.restart = restart
        self.last_line = last_line
        self.policy = policy
        self.recorder = recorder

    def run(self, path: str) -> Report:
        """Import one file."""
        from gatebook.producers.adapters.importer import ResumeFile, Source

        source = Source(path, self.label)
        try:
            if self.recorder is None or source.is_stdin:
                return self._import(source, None)
            resume = ResumeFile(self.folder, source.identity, self.rejects)
            with resume.held():
                if self.restart:
                    resume.forget()
                return self._import(source, resume)
        finally:
            source.close()

    def _import(self, source: Source, resume: ResumeFile | None) -> Report:
        from gatebook.producers.adapters.importer import Importer, Report
        from gatebook.producers.adapters.importer_formats import reader_of

        if not source.first_line:
            return Report(source.path)
        reader = reader_of(self.log_format, self.mapping, source.first_line)
        with _progress(source) as moved:
            return Importer(
                source, reader, self.policy, self.recorder, resume, moved, self.last_line
            ).run()


@click.command(name="import")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--format",
    "log_format",
    type=click.Choice(("auto", "json", "combined", "common")),
    default="auto",
    show_default=True,
    help="json: an access event a line; combined, common: of nginx and Apache.",
)
@click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file that says where our fields are in JSON lines of another form.",
)
@click.option("--label", default="", help="Tells apart logs that begin with the same line.")
@click.option(
    "--rejects", type=click.Path(path_type=Path), help="File for the lines that were refused."
)
@click.option("--dry-run", is_flag=True, help="Read and judge every line, record nothing.")
@click.option("--restart", is_flag=True, help="Forget the resume point, read from the beginning.")
@click.option("--last-line", is_flag=True, help="Take a last line that has no line feed, too.")
@click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    show_default=True,
    help="Seconds to wait for Kafka in the end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def import_(
    files: Sequence[str],
    log_format: str,
    mapping: Path | None,
    label: str,
    rejects: Path | None,
    dry_run: bool,
    restart: bool,
    last_line: bool,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Import existing access logs: plain or gzip files, or - for standard input.

    An interrupted import goes on where it stopped, also after a kill; a log that has grown is
    imported from where it ended. Each line is one event in the index, however often it is read.
    Events are held to the producer's settings and redacted like all others.

    Refused lines are counted and noted, number and reason only, in a file beside the resume point
    (import/ in GATEBOOK_HOME) or in --rejects. Lines more than 400 days old are refused.

    \b
    A mapping file, for lines such as {"t": 1795428000123, "who": {"id": "ada"}, "secs": 0.8}
      [fields]                   # our field = path in the line; numbers index lists
      "@timestamp" = "t"
      "user.id" = "who.id"
      "event.duration" = "secs"
      [constants]
      "gen_ai.provider.name" = "vllm"
      [scale]
      "event.duration" = 1e9     # seconds there, nanoseconds here
      [time]
      format = "unix_ms"         # iso, unix, unix_us, unix_ns, or a strptime pattern

    Exit codes: 0 all lines are recorded; 1 some were refused, or a file cannot be imported; 2
    wrong usage; 3 recorded, but Kafka did not take all in time (they wait in the spool).
    """
    from gatebook.producers.adapters.outside import Policy

    settings = _settings()
    policy = Policy(settings, settings.digest_secret(), "import")
    left = [] if dry_run else _left_behind(settings)
    recorder = None if dry_run else _started(settings)
    folder = settings.home_path / "import"
    job = _Job(log_format, mapping, label, folder, rejects, restart, last_line, policy, recorder)
    try:
        reports = [job.run(path) for path in files]
    finally:
        waiting = _close(recorder, left, wait_seconds)
    _show(reports, waiting, dry_run, as_json)
    if any(report.rejected for report in reports):
        sys.exit(EXIT_REJECTED)
    sys.exit(EXIT_WAITING if waiting else 0)


COMMANDS = [import_]


def _settings() -> ProducerSettings:
    """The producer's settings; best_effort would lose what a crash finds in memory."""
    import msgspec

    from gatebook.producers.config import ProducerSettings

    settings = ProducerSettings.from_env()
    if settings.delivery_mode == "best_effort":
        settings = msgspec.structs.replace(settings, delivery_mode="buffered")
    return settings


def _started(settings: ProducerSettings) -> Recorder:
    """A recorder at work: it sends what a killed import left, even where nothing new is read."""
    from gatebook.producers.recorder import Recorder

    recorder = Recorder(settings)
    recorder.start()
    return recorder


def _left_behind(settings: ProducerSettings) -> list[Path]:
    """Spools of this producer that hold something unsent."""
    from gatebook.producers.spool import abandoned_spools

    found = abandoned_spools(settings.spool_path)
    ours = [path for path in found if path.parent.name == settings.effective_producer_id]
    return [path for path in ours if _unsent(path)]


def _unsent(path: Path) -> int:
    from gatebook.producers.spool import look

    try:
        return look(path).events
    except OSError:  # gone: its owner has sent it
        return 0


def _close(recorder: Recorder | None, left: Sequence[Path], wait_seconds: float) -> int:
    """Events that Kafka has not taken in time, of this import or of a killed one."""
    if recorder is None:
        return 0
    until = time.monotonic() + wait_seconds
    recorder.flush(wait_seconds)
    while any(map(_unsent, left)) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    report = recorder.close(max(0.1, until - time.monotonic()))
    return report.unacknowledged + report.unspooled + sum(map(_unsent, left))


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every few seconds elsewhere; both on standard error."""
    total = source.total_bytes
    shown = sys.stderr.isatty() and total > 0
    with (
        click.progressbar(length=total, label=source.path, file=sys.stderr)
        if shown
        else nullcontext()
    ) as bar:
        last, at = 0, time.monotonic()

        def moved(offset: int) -> None:
            nonlocal last, at
            if bar is not None:
                bar.update(offset - last)
                last = offset
            elif time.monotonic() - at >= PROGRESS_SECONDS:
                at = time.monotonic()
                share = f" of {total / 1e6:.1f}" if total else ""
                click.echo(f"{source.path}: {offset / 1e6:.1f}{share} MB", err=True)

        yield moved


def _show(reports: Sequence[Report], waiting: int, dry_run: bool, as_json: bool) -> None:
    if as_json:
        rows = [{**vars(one), "reasons": dict(one.reasons)} for one in reports]
        click.echo(json.dumps({"files": rows, "waiting": waiting, "dry_run": dry_run}))
        return
    for one in reports:
        before = f" (after {one.resumed_at} lines that were done)" if one.resumed_at else ""
        verb = "would be imported" if dry_run else "imported"
        click.echo(f"{one.source}: {one.imported} {verb}, {one.rejected} refused{before}")
        for reason, count in one.reasons.most_common(MOST_REASONS):
            click.echo(f"  {count} x {reason}")
        if one.unfinished_line:
            click.echo("  the last line has no end yet and was left (--last-line takes it)")
    if waiting:
        click.echo(f"{waiting} events wait in the spool: Kafka did not take them in time", err=True)
