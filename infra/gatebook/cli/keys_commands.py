"""`gatebook keys`: the key pairs that content is sealed with."""

from __future__ import annotations

import json
import re
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.acts import stated, stated_if_given

if TYPE_CHECKING:
    from gatebook.processors.subjects.erasure import Privileged
    from gatebook.schemas.errors import Fatal
    from gatebook.schemas.keys import Bundle, Key, KeyFiles

DAY_SECONDS = 86_400
_ID = re.compile(r"[0-9a-f]{16}")

private_option = click.option(
    "--private",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the private keys, intake's alone. Default: as GATEBOOK_SEALING_KEYS says, else "
    "keys/sealing-private.json in GATEBOOK_HOME.",
)
public_option = click.option(
    "--public",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the public keys, for producers. Default: as GATEBOOK_SEALING_PUBLIC_KEYS says, "
    "else sealing-public.json beside the private file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
REASON_HELP = "Why; stands in the recorded event."
reason_option = click.option("--reason", callback=stated_if_given, help=REASON_HELP)


@click.group()
def keys() -> None:
    """Keys for captured content: producers seal it, intake alone opens it.

    \b
      gatebook keys new           make a pair of files
      gatebook keys rotate        add a key; the old ones keep opening
      gatebook keys list          what there is
      gatebook keys destroy ID --reason "ticket 12"
                                  what was sealed for it can never be opened again

    Producers get the public file only. Both sides read their file again when it changes, so that
    none of this needs a restart. Where they are on other machines, bring the private file to every
    intake first, then the public one to the producers.

    new, rotate and destroy are events of their own (event.action keys.new and so on), durable
    before anything is done: where they cannot be recorded, they are refused. Kafka need not be
    there: the event waits in the spool of GATEBOOK_HOME for a service that runs there.

    Exit codes: 0 done; 1 not confirmed; 2 wrong usage, or refused; 6 it could not be recorded.
    """


@keys.command()
@reason_option
@private_option
@public_option
@json_option
def new(reason: str, private: Path | None, public: Path | None, as_json: bool) -> None:
    """Make a key pair, where there is none."""
    from gatebook.schemas.keys import make_key

    files = _files(private, public)
    if files.private.exists():
        files.create()  # raises, and says what to do
    key = make_key()
    with _recorded("new", key.id, reason):
        files.create(key)
    _tell(files, key, "made", as_json)


@keys.command()
@reason_option
@private_option
@public_option
@json_option
def rotate(reason: str, private: Path | None, public: Path | None, as_json: bool) -> None:
    """Add a key for producers to use from now on.

    The old keys keep opening what was sealed before, until they are destroyed.
    """
    from gatebook.schemas.keys import make_key

    files = _files(private, public)
    files.read()  # where there is nothing to rotate, nothing is recorded
    key = make_key()
    with _recorded("rotate", key.id, reason):
        added = files.rotate(key)
    _tell(files, added, "added", as_json)


@keys.command(name="list")
@private_option
@public_option
@json_option
def list_(private: Path | None, public: Path | None, as_json: bool) -> None:
    """Show the keys, newest last: of the private file, or of the public one where that is all."""
    files = _files(private, public)
    bundle, path = _read(files)
    rows = [_row(key, bundle) for key in bundle.keys]
    if as_json:
        click.echo(json.dumps({"file": str(path), "keys": rows}))
        return
    click.echo(f"{path}")
    for row in rows:
        click.echo(f"  {row['id']}  made {row['created']} ({row['age_days']} days)  {row['state']}")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--reason", required=True, callback=stated, help=REASON_HELP)
@click.option(
    "--in-use",
    is_flag=True,
    help="Also where producers seal for it now. Where it is the last one, all content is dropped "
    "from then on, until there is another.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@private_option
@public_option
@json_option
def destroy(
    key_id: str,
    reason: str,
    in_use: bool,
    yes: bool,
    private: Path | None,
    public: Path | None,
    as_json: bool,
) -> None:
    """Forget a private key for good.

    Content that was sealed for it and that intake has not read yet is lost: such events are
    indexed without it, with gatebook.sealed.failed: key_destroyed. Content in the index is sealed
    under other keys and stays. Copies of the file elsewhere, backups among them, are yours to find.
    """
    files = _files(private, public)
    bundle = files.read()
    key = _live(bundle, key_id, reason)
    if key == bundle.newest and not in_use:
        raise _in_use(key, bundle)
    if not yes:
        click.echo(_consequences(key, bundle), err=True)
        click.confirm(f"Destroy the private key {key_id}?", abort=True)
    with _recorded("destroy", key_id, reason):
        # If we die here, the event says more than was done; the same command does it.
        destroyed = files.destroy(key_id)
    _tell(files, destroyed, "destroyed", as_json)


def _live(bundle: Bundle, key_id: str, reason: str) -> Key:
    """The key with this id. Raises Fatal where there is none; that it was to be destroyed is
    recorded."""
    from gatebook.cli.privileged import refuse
    from gatebook.schemas.errors import Fatal

    try:
        return bundle.live(key_id)
    except Fatal:
        named = key_id if _ID.fullmatch(key_id) else ""  # anything else could be a key itself
        refuse(_act("destroy", named, reason), "not_found")
        raise


def _in_use(key: Key, bundle: Bundle) -> Fatal:
    from gatebook.schemas.errors import Fatal

    last = "" if _others(key, bundle) else ", and the last one"
    return Fatal(
        f"{key.id} is the key that producers seal for now{last}",
        "add another one first (gatebook keys rotate), or insist with --in-use",
    )


def _others(key: Key, bundle: Bundle) -> list[Key]:
    """The other live keys, oldest first."""
    return [one for one in bundle.keys if not one.destroyed and one.id != key.id]


def _consequences(key: Key, bundle: Bundle) -> str:
    """What cannot be read any more once a key is gone, in sentences."""
    said = [
        f"What was sealed for {key.id} (made {key.created}) and is not indexed yet becomes "
        "unreadable for good:",
        "  frames in the topic access.v1 that intake has not read, and those in producers' spools;",
        "  and frames that were read cannot be read once more (replay) with their content.",
    ]
    others = _others(key, bundle)
    if key == bundle.newest and others:
        said.append(f"Producers seal for it now. They go back to {others[-1].id}.")
    elif not others:
        said.append(
            "It is the last key: from now on all content is dropped (degraded_reason no_key), "
            "until gatebook keys rotate."
        )
    return "\n".join(said)


def _recorded(action: str, key_id: str, reason: str) -> AbstractContextManager[None]:
    """An act that is recorded before it is done. Raises NotRecorded."""
    from gatebook.cli.privileged import witnessed

    return witnessed(_act(action, key_id, reason))


def _act(action: str, key_id: str, reason: str) -> Privileged:
    from gatebook.cli.privileged import act

    details = {"key_id": key_id, "reason": reason}
    return act(f"keys.{action}", {name: text for name, text in details.items() if text})


def _files(private: Path | None, public: Path | None) -> KeyFiles:
    """The two files. Raises Fatal where a setting names something else than a file."""
    from gatebook.schemas.keys import PUBLIC_NAME, KeyFiles

    given = private or _setting_path("GATEBOOK_SEALING_KEYS") or _default_private()
    beside = given.with_name(PUBLIC_NAME)
    return KeyFiles(given, public or _setting_path("GATEBOOK_SEALING_PUBLIC_KEYS") or beside)


def _setting_path(variable: str) -> Path | None:
    import os

    from gatebook.schemas.errors import WrongSetting
    from gatebook.schemas.keys import FileSource, open_source

    setting = os.environ.get(variable, "")
    if not setting:
        return None
    source = open_source(setting)
    if not isinstance(source, FileSource):
        raise WrongSetting(
            f"{variable} names no file",
            "make the keys in files (--private, --public) and bring them to where it reads them",
        )
    return source.path


def _default_private() -> Path:
    from gatebook.engines.settings import default_home
    from gatebook.schemas.keys import PRIVATE_NAME

    return default_home() / "keys" / PRIVATE_NAME


def _read(files: KeyFiles) -> tuple[Bundle, Path]:
    from gatebook.schemas.errors import Fatal
    from gatebook.schemas.keys import FileSource, KeysUnavailable, parse

    path = files.private if files.private.exists() else files.public
    try:
        return parse(FileSource(path).read()), path
    except KeysUnavailable as error:
        raise Fatal(f"no keys: {error}", "make them: gatebook keys new") from None


def _row(key: Key, bundle: Bundle) -> dict[str, Any]:
    state = "destroyed" if key.destroyed else "in use" if key == bundle.newest else "opens only"
    age_days = int((time.time() - key.created_seconds) // DAY_SECONDS)
    row = {"id": key.id, "created": key.created, "age_days": age_days, "state": state}
    return {**row, "destroyed": key.destroyed} if key.destroyed else row


def _tell(files: KeyFiles, key: Key, what: str, as_json: bool) -> None:
    found = {"id": key.id, "private": str(files.private), "public": str(files.public)}
    if as_json:
        click.echo(json.dumps({**found, "state": what}))
        return
    click.echo(f"Key      {key.id} {what}")
    click.echo(f"Intake   {files.private}")
    click.echo(f"Others   {files.public}")


COMMANDS = [keys]
