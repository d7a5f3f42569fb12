"""`gatebook archive`: documents into signed files, and back into an index of their own."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatebook.cli.acts import reason_option
from gatebook.cli.cluster import run_on_cluster
from gatebook.cli.columns import print_columns
from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from datetime import datetime

    from gatebook.cli.subject_commands import Desk
    from gatebook.processors.archive.manifest import Manifest, Wanted
    from gatebook.processors.archive.restore import Restored
    from gatebook.processors.archive.store import Store
    from gatebook.processors.archive.verify import Verified
    from gatebook.processors.retention.holds import Hold
    from gatebook.processors.sinks.connection import Connection

T = TypeVar("T")
KINDS = ("access", "finding", "deadletter", "alert")
EXIT_INCOMPLETE = 1
# What an archive that is gone on with has from its beginning.
OF_WANTED = {"query", "until", "kind", "format_", "codec", "file_mib", "with_text", "with_names"}
EXIT_HELD = 4
MIB = 1024 * 1024
LISTED = ("name", "state", "documents", "bytes", "since", "until")
RESTORED = ("index", "documents")
MAX_LISTED_CHARACTERS = 200  # names and what differs are read whole

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
key_option = click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator's public key (certificates.pub), to see who signed.",
)


class HeldInArchive(GatebookError):
    """An archive holds documents that a legal hold covers, or may cover."""

    exit_code = EXIT_HELD
    next_step = "`gatebook subject list-holds` and `gatebook retention holds` show the holds"

    def __init__(self, event_id: str) -> None:
        super().__init__(f"a legal hold covers {event_id!a} in this archive: it is not deleted")


@click.group()
def archive() -> None:
    """Documents of the index in files that outlive it.

    \b
      gatebook archive export backups/ --since 2026-10-01 --until 2026-11-01 --reason "policy 4"
      gatebook archive verify backups/access-20261001T000000Z-20261101T000000Z
      gatebook archive restore backups/access-20261001T000000Z-20261101T000000Z --reason "case 7"
      gatebook search --restored 'user.id:alice' --since all

    An archive is a folder of Avro or Parquet files with a signed manifest. Sealed content is in it
    as ciphertext: what is erased later cannot be read there either. Text that was opened for
    search, names and mail addresses are left out unless --with-text or --with-names asks for them:
    no erasure reaches a file. STORE is a folder, or the address of a plug-in's store.

    export, restore and drop are events of their own, durable before anything is done.

    Exit codes: 0 good; 1 it differs, or was not done in full; 2 wrong usage, or there is no such
    archive; 3 Elasticsearch or the store does not answer; 4 a legal hold stands in the way; 6 it
    could not be recorded.
    """


# --- export ------------------------------------------------------------------------------------


@archive.command()
@click.argument("store")
@click.argument("query", nargs=-1)
@click.option("--since", help="From (30d, 2026-11-01), or `all`.")
@click.option("--until", default="now", show_default=True, help="Up to, exclusive.")
@click.option("--kind", type=click.Choice(KINDS), default="access", show_default=True)
@click.option(
    "--name",
    default="",
    help="Name of the archive; default: made of kind and range. That of an unfinished one, without "
    "--since and QUERY, goes on with it as it was begun.",
)
@click.option("--format", "format_", type=click.Choice(("avro", "parquet")), default="avro")
@click.option("--codec", default="", help="deflate or zstd; default: deflate, zstd in Parquet.")
@click.option(
    "--file-mib", type=click.FloatRange(0.001), default=256.0, show_default=True, help="File size."
)
@click.option("--with-text", is_flag=True, help="Text that could be searched, in the open.")
@click.option("--with-names", is_flag=True, help="user.name and user.email, in the open.")
@reason_option
@json_option
def export(store: str, query: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Write the documents that match into an archive in STORE.

    Unlike a search it takes intents, too. Interrupted, it goes on after the last whole file when
    the same command is given again, or --name NAME alone. The manifest is written last: a folder
    without one is no archive yet.

    Relative times (30d, now, which is the default of --until) are made absolute when an archive is
    begun. Given again once it is whole, the same command makes another archive, of another range;
    with absolute times nothing is done twice, and it says when the archive was made. An --until in
    the future means now. The range is printed at the beginning and the end.
    """
    from gatebook.processors.archive.store import store_of

    opened = store_of(store)
    name, wanted, is_begun = _chosen(opened, " ".join(query), given)
    _tell_begin(name, wanted, is_begun)

    async def work(desk: Desk) -> Manifest:
        from gatebook.processors.archive.export import Exporter
        from gatebook.processors.subjects.certificate import Signer

        told = {
            "archive": name,
            "query": wanted.query,
            "kind": wanted.kind,
            "since": wanted.since,
            "until": wanted.until,
            "in_the_open": _in_the_open(wanted),
        }
        await desk.record("archive.export", given["reason"], **told)
        signer = Signer.from_file(desk.own.certificate_key_path(desk.settings))
        exporter = Exporter(
            desk.connection, desk.settings.namespace, opened.sub(name), name, signer, _progress
        )
        return await exporter.run(wanted)

    from gatebook.processors.archive.manifest import MANIFEST

    is_there = MANIFEST in opened.sub(name).names()
    manifest = _at_desk(work)
    _print_manifest(manifest, store, as_json)
    if is_there:
        click.echo(
            f"  it is there already, made at {manifest.created_at}: nothing is new", err=True
        )
    _tell_again(wanted)


def _chosen(store: Store, query: str, given: dict[str, Any]) -> tuple[str, Wanted, bool]:
    """Name of the archive, what goes into it, and whether an earlier run began it."""
    begun = _begun(store, given["name"]) if given["name"] else None
    if given["since"] is None:
        return given["name"], _alone(given["name"], begun), True
    wanted = _wanted(query, given)
    if given["name"]:
        is_same = begun is not None and begun.is_asked_by(wanted)
        return given["name"], begun if begun and is_same else wanted, is_same
    for name in reversed(store.folders()):
        found = _begun(store, name)
        if found is not None and found.is_asked_by(wanted):
            return name, found, True
    return _name(wanted), wanted, False


def _begun(store: Store, name: str) -> Wanted | None:
    """What the unfinished archive of this name was begun for; None where there is none."""
    from gatebook.processors.archive.manifest import MANIFEST, read_progress

    folder = store.sub(name)
    found = None if MANIFEST in folder.names() else read_progress(folder)
    return found.wanted if found is not None else None


def _alone(name: str, begun: Wanted | None) -> Wanted:
    """What was begun under a name that is given alone. Raises UsageError."""
    from click.core import ParameterSource

    if begun is None:
        which = f"there is no unfinished archive {name!a} here; " if name else ""
        raise click.UsageError(f"{which}say from when with --since (or --since all)")
    context = click.get_current_context()
    for one in context.command.params:
        is_given = context.get_parameter_source(one.name or "") is ParameterSource.COMMANDLINE
        if is_given and one.name in OF_WANTED:
            raise click.UsageError(
                f"{name!a} goes on as it was begun: leave {one.opts[-1]} out, or give --since, too"
            )
    return begun


def _tell_begin(name: str, wanted: Wanted, is_begun: bool) -> None:
    """The range that relative times stand for, and how to go on, before anything is written."""
    verb = "going on with" if is_begun else "archive"
    since = wanted.since or "the beginning"
    click.echo(f"{verb} {name}: from {since} up to {wanted.until}", err=True)
    if _is_cut(wanted):
        click.echo(
            f"  --until {wanted.asked[1]} lies in the future, so it goes up to its beginning: "
            "what comes in later is not in it, and the same command makes another archive",
            err=True,
        )
    click.echo(f"  interrupted, it goes on with --name {name} and no --since", err=True)


def _tell_again(wanted: Wanted) -> None:
    if any(map(_is_relative, wanted.asked)):
        since = wanted.since or "all"
        click.echo(
            f"  the times given are relative: later they stand for another range, and the same "
            f"command makes another archive; this one is --since {since} --until {wanted.until}",
            err=True,
        )


def _is_relative(text: str) -> bool:
    """Whether a time as people write it depends on the clock."""
    from datetime import UTC, datetime

    from gatebook.processors.search.times import parse_time

    clocks = (datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2002, 3, 4, 5, 6, 7, tzinfo=UTC))
    return text not in ("", "all") and len({parse_time(text, clock) for clock in clocks}) > 1


def _wanted(query: str, given: dict[str, Any]) -> Wanted:
    """What is asked for, with times made absolute. Raises TimeError, WrongArchive."""
    from gatebook.processors.archive.export import codec_of
    from gatebook.processors.archive.manifest import Wanted
    from gatebook.processors.search.dsl import compile_query
    from gatebook.processors.search.fields import fields_of
    from gatebook.processors.search.question import stamp
    from gatebook.processors.search.times import parse_time

    now = _now()
    since = "" if given["since"] == "all" else parse_time(given["since"], now)
    # An archive that says it goes up to a time to come would be whole before its events are.
    until = min(parse_time(given["until"], now), parse_time("now", now), key=_comparable)
    if since and _comparable(since) >= _comparable(until):
        raise click.UsageError("the time range is empty: --until is not later than --since")
    compile_query(query, fields_of(given["kind"]), now)  # before anything is recorded
    return Wanted(
        kind=given["kind"],
        query=query,
        since=since,
        until=until,
        asked=(given["since"], given["until"]),
        relative_to=stamp(now),
        format=given["format_"],
        codec=codec_of(given["codec"], given["format_"]),
        file_bytes=int(given["file_mib"] * MIB),
        with_text=given["with_text"],
        with_names=given["with_names"],
    )


def _now() -> datetime:
    """This moment, to the second."""
    from datetime import UTC, datetime

    return datetime.now(UTC).replace(microsecond=0)


def _comparable(text: str) -> str:
    """A rendered time, with as many digits of a second as there are."""
    return text.rstrip("Z")


def _is_cut(wanted: Wanted) -> bool:
    """Whether --until lay in the future when the archive was begun."""
    from datetime import UTC, datetime

    from gatebook.processors.search.times import parse_time

    asked = wanted.asked[1]
    if not asked or _is_relative(asked):
        return False
    return _comparable(parse_time(asked, datetime.now(UTC))) > _comparable(wanted.until)


def _name(wanted: Wanted) -> str:
    since, until = (_stamp(text) for text in (wanted.since, wanted.until))
    return f"{wanted.kind}-{since or 'begin'}-{until}"


def _stamp(text: str) -> str:
    return "".join(c for c in text[:19] if c not in "-:") + ("Z" if text else "")


def _in_the_open(wanted: Wanted) -> str:
    flags = {"text": wanted.with_text, "names": wanted.with_names}
    return ",".join(name for name, is_set in flags.items() if is_set)


def _progress(documents: int, total: int) -> None:
    if sys.stderr.isatty() or documents == total:
        click.echo(f"  {documents:,} of {total:,} documents", err=True)


def _print_manifest(manifest: Manifest, store: str, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(manifest).decode())
        return
    size = sum(file.bytes for file in manifest.files)
    click.echo(f"{store.rstrip('/')}/{manifest.name}")
    click.echo(f"  {manifest.documents:,} documents in {len(manifest.files)} files, {size:,} bytes")
    click.echo(f"  from {manifest.since or 'the beginning'} up to {manifest.until}")
    if manifest.fields_left_out:
        click.echo(f"  left out: {', '.join(manifest.fields_left_out)}")
    if manifest.left_out.unchecked:
        count = manifest.left_out.unchecked
        click.echo(f"  {count:,} documents were digested with what is left out, before commitments")
    click.echo(f"  root {manifest.root}")


# --- verify ------------------------------------------------------------------------------------


@archive.command(name="verify")
@click.argument("address", metavar="ARCHIVE")
@key_option
@click.option(
    "--strict",
    is_flag=True,
    help="For scripts: exit code 1 as well where the key is not vouched for, or a file is foreign.",
)
@json_option
def verify_(address: str, public_key: Path | None, strict: bool, as_json: bool) -> None:
    """Check an archive: signature, files, order, each document's digest. Needs no server.

    Without --public-key the signature shows that nothing was changed since it was signed, not who
    signed: whoever can write here could have signed anew. Files that no manifest names are told,
    and nothing is known of them. Exit codes: 0 it holds; 1 it differs, and the first bad file and
    record are named, or with --strict one of these two; 2 there is no archive.
    """
    from gatebook.cli.audited import looked
    from gatebook.processors.archive.store import store_of

    looked("archive.verify", archive=address)
    found = _verified(store_of(address), public_key)
    if as_json:
        _print_json(_told(found))
    else:
        _print_verified(found)
    for name in found.extra:
        click.echo(f"  not of the archive, and not checked: {name!a}", err=True)
    if strict and not found.is_beyond_doubt:
        click.echo("with --strict this is not enough", err=True)
        sys.exit(EXIT_INCOMPLETE)


def _print_verified(found: Verified) -> None:
    click.echo(found.guarantee)
    click.echo(f"  {found.documents:,} documents in {len(found.manifest.files)} files")
    click.echo(f"  signed by {found.manifest.public_key}")
    if not found.is_pinned:
        click.echo("  give --public-key certificates.pub of the operator to see who signed")
    if found.unchecked:
        click.echo(f"  {found.unchecked:,} digests cannot be checked without what was left out")


def _verified(store: Store, public_key: Path | None) -> Verified:
    from gatebook.processors.archive.verify import verify

    return verify(store, public_key.read_text().strip() if public_key else "")


def _told(found: Verified) -> dict[str, Any]:
    return {
        "good": True,
        "name": found.manifest.name,
        "documents": found.documents,
        "unchecked": found.unchecked,
        "files": len(found.manifest.files),
        "extra": found.extra,
        "root": found.manifest.root,
        "public_key": found.manifest.public_key,
        "pinned": found.is_pinned,
        "guarantee": found.guarantee,
        "beyond_doubt": found.is_beyond_doubt,
    }


# --- restore -----------------------------------------------------------------------------------


@archive.command()
@click.argument("address", metavar="ARCHIVE")
@key_option
@click.option("--no-text", is_flag=True, help="Do not open sealed content for search.")
@reason_option
@json_option
def restore(
    address: str, public_key: Path | None, no_text: bool, reason: str, as_json: bool
) -> None:
    """Bring an archive back into an index apart from the live one: `gatebook search --restored`.

    It is verified first. Documents that are there stay as they are, so it can be run again. What
    was erased since the export is left out; text is opened for search again where the key still
    is there. Without --public-key it has to be signed by the key of this operator.
    """
    from gatebook.processors.archive.store import store_of

    store = store_of(address)
    given_key = public_key.read_text().strip() if public_key else ""

    async def work(desk: Desk) -> Restored:
        from gatebook.processors.archive.restore import Restorer
        from gatebook.processors.archive.verify import verify
        from gatebook.processors.sinks.settings import elasticsearch_settings, sink_settings
        from gatebook.processors.subjects.certificate import Signer
        from gatebook.processors.subjects.searchable import SearchText

        ours = Signer.from_file(desk.own.certificate_key_path(desk.settings)).public
        found = verify(store, given_key or ours)
        await desk.record("archive.restore", reason, archive=found.manifest.name)
        restorer = Restorer(
            desk.settings.namespace,
            elasticsearch_settings(url=desk.settings.elasticsearch_url),
            sink_settings(),
            desk.store,
            None if no_text else SearchText(desk.ring),
        )
        return await restorer.run(store, found.manifest, _progress)

    done = _at_desk(work)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(done).decode())
    else:
        _print_restored(done)
    if done.rejected:
        sys.exit(EXIT_INCOMPLETE)


def _print_restored(done: Restored) -> None:
    click.echo(f"{done.documents:,} documents: {done.indexed:,} restored, {done.already:,} there")
    if done.erased:
        click.echo(f"  {done.erased:,} without what was erased since the export")
    for reason in done.reasons:
        click.echo(f"  rejected: {reason}", err=True)


# --- list and drop -----------------------------------------------------------------------------


@archive.command(name="list")
@click.argument("store", required=False)
@json_option
def list_(store: str | None, as_json: bool) -> None:
    """List the archives in STORE; without it, the indices of what was restored.

    Signatures are checked, files are not: `gatebook archive verify` does.
    """
    from gatebook.cli.audited import looked

    looked("archive.list", archive="restored" if store is None else store)
    found = _restored() if store is None else _archives(store)
    if as_json:
        _print_json(found)
        return
    headings = LISTED if store is not None else RESTORED
    rows = [[str(one.get(name, "")) for name in headings] for one in found]
    print_columns(headings, rows, widest=MAX_LISTED_CHARACTERS)
    if not found:
        click.echo("there is none", err=True)


def _restored() -> list[dict[str, Any]]:
    from gatebook.processors.archive.restore import restored_indices

    async def work(connection: Connection) -> dict[str, int]:
        return await restored_indices(connection, _namespace())

    found = run_on_cluster(work)
    return [{"index": name, "documents": count} for name, count in found.items()]


def _archives(address: str) -> list[dict[str, Any]]:
    from gatebook.processors.archive.store import store_of

    store = store_of(address)
    return [found for name in store.folders() if (found := _listed(store.sub(name), name))]


def _listed(folder: Store, name: str) -> dict[str, Any] | None:
    """One line of the list; None for a folder that is no archive."""
    from gatebook.processors.archive.errors import Differs, WrongArchive
    from gatebook.processors.archive.manifest import read_manifest, read_progress

    try:
        found = read_manifest(folder)
    except Differs as error:
        return {"name": name, "state": f"differs: {error}"}
    except WrongArchive:
        under_way = read_progress(folder)
        if under_way is None:
            return None
        state = f"unfinished: {under_way.documents} of {under_way.total} documents"
        return {"name": name, "state": state}
    size = sum(file.bytes for file in found.files)
    return {
        "name": name,
        "state": "whole",
        "documents": found.documents,
        "bytes": size,
        "since": found.since,
        "until": found.until,
    }


@archive.command()
@click.argument("address", metavar="[ARCHIVE]", required=False)
@click.option("--restored", is_flag=True, help="Drop the indices of what was restored instead.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reason_option
@json_option
def drop(address: str | None, restored: bool, yes: bool, reason: str, as_json: bool) -> None:
    """Delete an archive, or with --restored every index of what was restored.

    An archive with events under legal hold is not deleted; a hold by query counts for all of its
    kind and time.
    """
    if bool(address) == restored:
        raise click.UsageError("name an archive, or give --restored")
    if not yes:
        click.confirm("Delete this for good?", abort=True, err=True)
    gone = _drop_restored(reason) if address is None else _drop_archive(address, reason)
    if as_json:
        _print_json(gone)
    else:
        click.echo(f"dropped: {', '.join(gone) or 'nothing was there'}")


def _drop_restored(reason: str) -> dict[str, int]:
    async def work(desk: Desk) -> dict[str, int]:
        from gatebook.processors.archive.restore import drop_restored

        await desk.record("archive.drop", reason, archive="restored")
        return await drop_restored(desk.connection, desk.settings.namespace)

    return _at_desk(work)


def _drop_archive(address: str, reason: str) -> dict[str, int]:
    from gatebook.processors.archive.manifest import MANIFEST, read_manifest
    from gatebook.processors.archive.store import store_of

    store = store_of(address)
    manifest = read_manifest(store)

    async def work(desk: Desk) -> dict[str, int]:
        from gatebook.processors.archive.restore import held_in
        from gatebook.processors.subjects.holds import held_subjects

        subjects, own = await held_subjects(desk.store), await _own_holds(desk)
        if (subjects or own) and (first := next(held_in(store, manifest, subjects, own), "")):
            raise HeldInArchive(first)
        await desk.record("archive.drop", reason, archive=manifest.name)
        # If we die between these, a folder without a manifest is left: no archive any more.
        store.delete(MANIFEST)
        store.drop()
        return {manifest.name: manifest.documents}

    return _at_desk(work)


async def _own_holds(desk: Desk) -> Sequence[Hold]:
    from gatebook.processors.retention.elastic import Cluster
    from gatebook.processors.retention.holds import own_holds
    from gatebook.processors.retention.state import State

    return await own_holds(State(Cluster(desk.connection, desk.settings.namespace)))


# --- shared ------------------------------------------------------------------------------------


def _at_desk(work: Callable[[Desk], Awaitable[T]]) -> T:
    from gatebook.cli.subject_commands import run_at_desk

    return run_at_desk(work)


def _print_json(found: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(found).decode())


def _namespace() -> str:
    from gatebook.processors.config import from_env

    return from_env().namespace


COMMANDS = [archive]
