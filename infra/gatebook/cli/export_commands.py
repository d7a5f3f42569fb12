"""`gatebook export` and `gatebook around`."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import click

from gatebook.cli.audited import looked
from gatebook.cli.cluster import run_on_cluster
from gatebook.cli.search_commands import (
    EXIT_NO_MATCH,
    _columns,
    _namespace,
    _picked,
    _print_table,
    fields_option,
    kind_option,
)
from gatebook.cli.whole import gaps_of, tell_gaps
from gatebook.processors.serve.audit import Unrecorded

if TYPE_CHECKING:
    from gatebook.cli.audited import CommandLook
    from gatebook.processors.search.around import Around
    from gatebook.processors.search.asking import Hit
    from gatebook.processors.search.export import Chunk, Spec
    from gatebook.processors.search.question import Question
    from gatebook.processors.sinks.connection import Connection

PROGRESS_SECONDS = 1.0
MODE = 0o600  # an access log is for whoever asked for it
AROUND_BY = (
    "service.name",
    "user.id",
    "gatebook.principal",
    "trace.id",
    "gen_ai.conversation.id",
    "session.id",
    "source.ip",
)


# --- around ------------------------------------------------------------------------------------


@click.command()
@click.argument("event_id")
@click.option("--by", type=click.Choice(AROUND_BY), help="Only those with the same value of it.")
@click.option("--before", type=click.IntRange(0, 1_000), default=20, show_default=True)
@click.option("--after", type=click.IntRange(0, 1_000), default=20, show_default=True)
@fields_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def around(
    event_id: str, by: str | None, before: int, after: int, fields: str, as_json: bool
) -> None:
    """Print the accesses before and after one, in order of time; `>` stands before that one.

    \b
      gatebook around 01939a6e-7c00-7000-8000-000000000001
      gatebook around ID --by trace.id        the events of its trace
      gatebook around ID --by user.id         what its user did before and after
      gatebook around ID --by gatebook.principal    the same of a key or an address

    Exit codes: 0 found, 1 no access has this id, 2 wrong usage, 3 Elasticsearch cannot be reached.
    """
    if not event_id.strip():
        raise click.UsageError("the id is empty")
    shown = _columns("access", fields)
    looked("event.around", event=event_id, by=by or "")
    found = run_on_cluster(lambda connection: _around(connection, event_id, by, before, after))
    if found is None:
        from gatebook.processors.search.display import safe

        click.echo(f"no access has the id {safe(event_id, 80)}", err=True)
        sys.exit(EXIT_NO_MATCH)
    if as_json:
        _print_around_json(found, shown, bool(fields))
    else:
        hits = [*found.before, found.event, *found.after]
        _print_table(hits, shown, keep_all=bool(fields), marked=found.event)


async def _around(
    connection: Connection, event_id: str, by: str | None, before: int, after: int
) -> Around | None:
    from gatebook.processors.search.around import around
    from gatebook.processors.search.question import ask_for
    from gatebook.processors.search.service import find

    hits = await find(connection, _namespace(), event_id)
    event = next((h for h in hits if h.id == event_id and "-access-" in h.index), None)
    if event is None:
        return None
    question = ask_for(now=datetime.now(UTC))
    return await around(connection, _namespace(), question, event, by, before, after)


def _print_around_json(found: Around, shown: Sequence[str], only: bool) -> None:
    from gatebook.processors.search.display import to_json

    def source(hit: Hit) -> dict[str, Any]:
        return _picked(hit.source, shown) if only else hit.source

    told = {
        "by": found.by,
        "value": found.value,
        "event": source(found.event),
        "before": [source(hit) for hit in found.before],
        "after": [source(hit) for hit in found.after],
    }
    click.echo(to_json(told))


# --- export ------------------------------------------------------------------------------------


@click.command()
@click.argument("query", nargs=-1)
@click.option("--since", default="24h", show_default=True, help="From (15m, 7d, 2026-11-23, all).")
@click.option("--until", default="", help="Up to, exclusive; default: now.")
@kind_option
@click.option("--format", "form", type=click.Choice(("ndjson", "csv")), default="ndjson")
@fields_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File.")
@click.option("--resume", is_flag=True, help="Go on with what was begun in that file.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def export(query: tuple[str, ...], output: Path | None, resume: bool, **given: Any) -> None:
    """Write all matches to a file, oldest first, as NDJSON or CSV.

    \b
      gatebook export 'user.id:alice' --since 30d --format csv -o alice.csv
      gatebook export -o alice.csv --resume        after it was killed

    The file appears when it is whole; until then there are FILE.part and FILE.part.json, from
    which --resume goes on: the same bytes as undisturbed. Only what was taken in before the
    beginning is exported. Only you can read the file. In CSV, ' stands before = + - @ wherever a
    spreadsheet could take that for the beginning of a formula, also within a cell behind ; , or |,
    and values of a list are joined by " / "; NDJSON has all of it as it is.

    Exit codes: 0 written, 1 nothing matched (then no file is left), 2 wrong usage, or another
    process is writing that file, 3 Elasticsearch cannot be reached or did not answer in full (then
    --resume goes on), 6 the look cannot be recorded.
    """
    text = " ".join(query)
    _check_folder(output)
    look = looked("export.make", query=text, **_asked(given, resume))
    if output is None:
        if resume:
            raise click.UsageError("--resume needs -o FILE")
        total = run_on_cluster(lambda c: _to_stdout(c, text, given))
    else:
        with Job(output).alone() as job:
            if resume:
                look.tell(**_check_resumed(job, text))
            else:
                _check_begun(job)
            try:
                total = run_on_cluster(lambda c: _to_file(c, job, text, given, look))
            except Unrecorded:
                job.forget()
                raise
        told = f"{total:,} lines in {output}" if total else f"no match: {output} is not written"
        click.echo(told, err=True)
    if not total:
        sys.exit(EXIT_NO_MATCH)


def _asked(given: dict[str, Any], resume: bool) -> dict[str, str]:
    """What is recorded of the range; that of a resumed one is not what the options say."""
    if resume:
        return {"resumed": "yes"}
    return {name: given[name] for name in ("kind", "since", "until")}


def _check_folder(output: Path | None) -> None:
    if output is not None and not output.parent.is_dir():
        raise click.UsageError(f"the folder {output.parent} does not exist; make it first")


class Job:
    """An export into a file, as far as it is. The part is written and fsynced first, its state
    after it: if we die between, the part is longer than its state says, and is cut there."""

    file: BinaryIO
    """The part, while it is held."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.part = output.with_name(output.name + ".part")
        self.notes = output.with_name(output.name + ".part.json")
        self.spec: Spec | None = None
        self.position = ""
        self.bytes = 0
        self.lines = 0

    @contextmanager
    def alone(self) -> Iterator[Self]:
        """Hold the part, readable by its owner alone, so that two processes do not write it; a
        part that nothing was begun in goes away. The lock ends with the process that holds it,
        however that ends. Raises UsageError where another process has it."""
        with self._opened() as self.file:
            self._lock()
            os.fchmod(self.file.fileno(), MODE)
            try:
                yield self
            finally:  # if we die before, an empty part is left, which stands in no way
                is_empty = not os.fstat(self.file.fileno()).st_size
                if is_empty and not self.notes.exists():
                    self.part.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        try:
            return open(os.open(self.part, os.O_RDWR | os.O_CREAT, MODE), "r+b")
        except OSError as error:
            raise click.UsageError(f"{self.part} cannot be written: {error.strerror}") from None

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(self.file.fileno())
            if os.path.samestat(ours, os.stat(self.part)):
                return
        except (BlockingIOError, FileNotFoundError):
            pass  # somebody has it, or has just finished with it
        raise click.UsageError(f"another process is writing {self.output}; wait until it has ended")

    def load(self) -> None:
        """Read the state of what was begun. Raises UsageError."""
        import msgspec

        from gatebook.processors.search.export import Spec

        try:
            kept = msgspec.json.decode(self.notes.read_bytes())
            self.spec = msgspec.convert(kept["spec"], Spec)
            self.position, self.lines = str(kept["position"]), int(kept["lines"])
            self.bytes = int(kept["bytes"])
        except (OSError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
            raise click.UsageError(
                f"there is nothing to resume beside {self.output}: no readable {self.notes.name}"
            ) from None

    def save(self) -> None:
        """Write the state, whole or not at all."""
        import msgspec

        kept = {
            "spec": msgspec.to_builtins(self.spec),
            "position": self.position,
            "bytes": self.bytes,
            "lines": self.lines,
        }
        draft = self.notes.with_name(self.notes.name + ".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE), "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.notes)

    def forget(self) -> None:
        """Leave nothing of an export of which nothing was written."""
        if not self.bytes:
            self.notes.unlink(missing_ok=True)

    def take(self, chunk: Chunk) -> None:
        """Write a chunk, and then that it is there."""
        self.file.write(chunk.data)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.bytes += len(chunk.data)
        self.lines += chunk.lines
        self.position = chunk.position or self.position
        self.save()

    def finish(self) -> None:
        """The whole file under its name; none where nothing matched. If we die between the two,
        --resume finds nothing more to write and does this again."""
        if self.lines:
            self.part.replace(self.output)
        else:
            self.part.unlink()
        self.notes.unlink()


def _check_begun(job: Job) -> None:
    if job.output.exists():
        raise click.UsageError(f"{job.output} is there already; an export overwrites nothing")
    if job.notes.exists():
        raise click.UsageError(f"{job.part} was begun; add --resume, or delete it")


def _check_resumed(job: Job, text: str) -> dict[str, str]:
    """What was begun, for the record. Raises UsageError."""
    job.load()
    assert job.spec is not None
    if text and text != job.spec.query:
        raise click.UsageError("this file was begun with another query; leave the query out")
    if not job.part.stat().st_size:
        if job.output.exists():  # we died in `finish`, between its two steps
            job.notes.unlink()
            raise click.UsageError(f"{job.output} is whole already")
        job.bytes = job.lines = 0
        job.position = ""
    spec = job.spec
    asked = {"query": spec.query, "kind": spec.kind}
    return {**asked, "since": spec.since or "all", "until": spec.until or ""}


async def _to_file(
    connection: Connection, job: Job, text: str, given: dict[str, Any], look: CommandLook
) -> int:
    from gatebook.processors.search import export as exports

    if job.spec is None:
        job.spec = await _spec(connection, text, given)
        job.save()
    question = _question(job.spec)
    namespace = _namespace()
    total = await exports.count(connection, namespace, question)
    if job.position:
        await _check_same(connection, job, question)
    bar = Progress(total, given["quiet"], job.lines)
    job.file.truncate(job.bytes)
    job.file.seek(job.bytes)
    heading_is_there = job.bytes > 0
    async for chunk in exports.chunks(connection, namespace, question, job.spec, job.position):
        if chunk.lines or not heading_is_there:
            look.commit()  # if we die after this, the look is in the spool
            job.take(chunk)
            bar.show(job.lines)
    bar.end(job.lines)
    tell_gaps(await gaps_of(connection, namespace, question))
    job.finish()
    return job.lines


async def _check_same(connection: Connection, job: Job, question: Question) -> None:
    """Raises SearchFailed where the part is not what an export of now would begin with."""
    from gatebook.processors.search import export as exports
    from gatebook.processors.search.asking import SearchFailed

    there = await exports.done_before(connection, _namespace(), question, job.position)
    if there != job.lines:
        raise SearchFailed(
            f"the part has {job.lines:,} lines, the index {there:,} up to there: events came in "
            "late, or were removed",
            f"delete {job.part} and {job.notes.name}, and begin anew",
        )


async def _to_stdout(connection: Connection, text: str, given: dict[str, Any]) -> int:
    from gatebook.processors.search import export as exports

    spec = await _spec(connection, text, given)
    question = _question(spec)
    total = await exports.count(connection, _namespace(), question)
    bar = Progress(total, given["quiet"] or sys.stdout.isatty(), 0)
    lines = 0
    async for chunk in exports.chunks(connection, _namespace(), question, spec):
        sys.stdout.buffer.write(chunk.data)
        lines += chunk.lines
        bar.show(lines)
    sys.stdout.buffer.flush()
    bar.end(lines)
    tell_gaps(await gaps_of(connection, _namespace(), question))
    return lines


async def _spec(connection: Connection, text: str, given: dict[str, Any]) -> Spec:
    from gatebook.processors.search.export import Spec
    from gatebook.processors.search.question import ask_for, stamp
    from gatebook.processors.search.service import refresh

    kind, now = given["kind"], datetime.now(UTC)
    question = ask_for(text, given["since"], given["until"], kind, now=now)
    await refresh(connection, _namespace(), kind)
    return Spec(
        query=text,
        kind=kind,
        format=given["form"],
        since=question.since,
        until=question.until or stamp(now),
        taken_in_until=stamp(now),
        fields=_columns(kind, given["fields"]) if given["fields"] else None,
    )


def _question(spec: Spec) -> Question:
    """Relative times in the query mean what they meant when the export began."""
    from gatebook.processors.search.export import bounded
    from gatebook.processors.search.question import ask_for, moment

    now = moment(spec.taken_in_until)
    return bounded(ask_for(spec.query, kind=spec.kind, now=now), spec)


class Progress:
    """How far it is, on standard error: a line that is written over on a terminal, else a line
    now and then."""

    def __init__(self, total: int, quiet: bool, done: int) -> None:
        self._total = total
        self._quiet = quiet
        self._first = done
        self._began_at = self._told_at = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Tell, if it is time to."""
        now = time.monotonic()
        wait = PROGRESS_SECONDS / 4 if self._is_terminal else PROGRESS_SECONDS * 5
        if not self._quiet and now - self._told_at >= wait:
            self._told_at = now
            self._tell(done, now)

    def end(self, done: int) -> None:
        """The last word; only where there was one before."""
        if not self._quiet and self._is_terminal and self._told_at != self._began_at:
            self._tell(done, time.monotonic())
            click.echo("", err=True)

    def _tell(self, done: int, now: float) -> None:
        share = f" ({100 * done / self._total:.0f} %)" if self._total else ""
        rate = (done - self._first) / max(0.001, now - self._began_at)
        line = f"{done:,} of {self._total:,}{share}, {rate:,.0f} a second"
        click.echo(
            f"\r{line:<60}" if self._is_terminal else line, err=True, nl=not self._is_terminal
        )


COMMANDS = [around, export]
