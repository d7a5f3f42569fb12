"""`gatebook policy break-glass`: ask for a level, approve it, end it."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.policy_shared import json_option, matches, policy_option, print_json, read_policy
from gatebook.schemas.errors import GatebookError
from gatebook.schemas.reason_text import wrong_reason

if TYPE_CHECKING:
    from gatebook.producers.policy.asking import Person
    from gatebook.producers.policy.grants import Grant
    from gatebook.producers.policy.match import Policy
    from gatebook.producers.policy.notices import Notice

EXIT_NOT_ALL = 1
LEVELS = ("metadata", "redacted", "full")
DIMENSIONS = ("tenant", "model", "route", "operation", "data_class", "service")
FLUSH_SECONDS = 5.0


@click.group("break-glass")
def break_glass() -> None:
    """Raise the level for a while: one asks, two others approve.

    Requests stand in a folder beside the policy file. Each step is recorded before it counts: a
    step that cannot be recorded is not done.
    """


def _options(function: Any) -> Any:
    """Who signs, and under which policy."""
    function = click.option("--by", required=True, help="Your name in [break_glass].")(function)
    key = click.option(
        "--key",
        required=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Your private key.",
    )
    return policy_option(key(function))


@break_glass.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def key_command(file: Path) -> None:
    """Make a private key in FILE; print the public one for the policy."""
    from gatebook.producers.policy.asking import new_key

    click.echo(new_key(file))


_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    found = _DURATION.fullmatch(value)
    if not found:
        raise click.BadParameter("write 90s, 30m, 2h or 1d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _reason(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if wrong := wrong_reason(value):
        raise click.BadParameter(f"{wrong}, for those who approve and for the log")
    return value


def _match_options(function: Any) -> Any:
    for name in reversed(DIMENSIONS):
        option = click.option(
            f"--{name.replace('_', '-')}", default="", help=f"Glob of the {name}."
        )
        function = option(function)
    return function


@break_glass.command("request")
@_options
@click.option("--level", type=click.Choice(LEVELS), default="redacted", show_default=True)
@click.option("--reason", required=True, callback=_reason, help="Why; it stands in the log.")
@click.option("--for", "seconds", default="1h", show_default=True, callback=_seconds)
@_match_options
def request_command(
    file: Path, by: str, key: Path, level: str, reason: str, seconds: int, **match: str
) -> None:
    """Ask for a level for the accesses that match, for a time that begins now."""
    from gatebook.producers.policy import asking
    from gatebook.producers.policy.grants import folder_of
    from gatebook.producers.policy.notices import REQUESTED

    found = read_policy(file)
    person = asking.Person.known(by, key, found)
    wanted = {name: text for name, text in match.items() if text}
    request = asking.new_request(found, by, level, wanted, reason, seconds, time.time_ns())
    asking.check_request(found, request)
    with _recorded(REQUESTED, by, request):
        asking.ask(folder_of(file), found, person, request)
    click.echo(request.id)
    click.echo(f"  {asking.rules_of(found).approvals} others approve it with:", err=True)
    # The others need not have our environment, nor stand in our folder.
    policy = shlex.quote(str(file.absolute()))
    approve = f"gatebook policy break-glass approve {request.id} --policy {policy}"
    click.echo(f"  {approve} --by NAME --key FILE", err=True)


@break_glass.command("approve")
@click.argument("request_id")
@_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def approve_command(request_id: str, file: Path, by: str, key: Path, yes: bool) -> None:
    """Approve a request of somebody else. Approving again changes nothing."""
    from gatebook.producers.policy import asking
    from gatebook.producers.policy.notices import APPROVED

    found, grant, person = _step(request_id, file, by, key)
    request = asking.approvable(found, grant, by, time.time_ns())
    _print_grant(grant)
    if by in grant.approved_by:
        click.echo(f"{by} has already approved it; nothing is recorded", err=True)
        return
    if not yes:
        click.confirm("Approve this?", abort=True)
    with _recorded(APPROVED, by, request):
        signed = _signed(file, found, person, request, "approval")
    _print_grant(signed)


@break_glass.command("revoke")
@click.argument("request_id")
@_options
def revoke_command(request_id: str, file: Path, by: str, key: Path) -> None:
    """End a raise, or take a request back. Anybody in [break_glass] may."""
    from gatebook.producers.policy import asking
    from gatebook.producers.policy.notices import REVOKED

    found, grant, person = _step(request_id, file, by, key)
    if grant.request is None or grant.state == "refused":
        raise asking.Refused("there is nothing to end", "`gatebook policy break-glass status`")
    with _recorded(REVOKED, by, grant.request):
        signed = _signed(file, found, person, grant.request, "revoked")
    _print_grant(signed)


@break_glass.command("status")
@policy_option
@json_option
def status_command(file: Path, as_json: bool) -> None:
    """List the requests, newest last, and what producers make of them.

    Exit codes: 0 all are fine; 1 one is refused, or has an approval that does not count.
    """
    from gatebook.producers.policy.grants import folder_of, read_grants

    found = read_grants(folder_of(file), read_policy(file))
    now_ns = time.time_ns()
    if as_json:
        print_json([{**_plain(grant), "state": grant.state_at(now_ns)} for grant in found])
    for grant in () if as_json else sorted(found, key=_asked_at):
        _print_grant(grant)
    if any(grant.problem or grant.ignored for grant in found):
        sys.exit(EXIT_NOT_ALL)


def _asked_at(grant: Grant) -> int:
    return grant.request.begins_ns if grant.request else 0


def _plain(grant: Grant) -> dict[str, Any]:
    import msgspec

    return {**vars(grant), "request": msgspec.to_builtins(grant.request)}


def _step(request_id: str, file: Path, by: str, key: Path) -> tuple[Policy, Grant, Person]:
    from gatebook.producers.policy import asking
    from gatebook.producers.policy.grants import folder_of

    found = read_policy(file)
    person = asking.Person.known(by, key, found)
    return found, asking.find(folder_of(file), found, request_id), person


def _signed(file: Path, found: Policy, person: Person, request: Any, step: Any) -> Grant:
    from gatebook.producers.policy import asking
    from gatebook.producers.policy.grants import folder_of

    return asking.sign_step(folder_of(file), found, person, request, step)


def _print_grant(grant: Grant) -> None:
    from gatebook.schemas.documents import timestamp_text

    state = grant.state_at(time.time_ns())
    click.echo(f"{grant.id}  {state}{f': {grant.problem}' if grant.problem else ''}")
    request = grant.request
    if request is None:
        return
    until = timestamp_text(request.expires_ns)[:19]
    patterns = {n: _texts(getattr(request.match, n)) for n in DIMENSIONS}
    click.echo(f"  {request.level} until {until}Z for {matches(_some(patterns))}")
    click.echo(f"  asked for by {request.requested_by}: {_printable(request.reason)}")
    if grant.approved_by:
        click.echo(f"  approved by {', '.join(grant.approved_by)}")
    if grant.revoked_by:
        click.echo(f"  revoked by {grant.revoked_by}")
    for code in grant.ignored:
        click.echo(f"  an approval does not count: {code}", err=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _texts(given: Any) -> tuple[str, ...]:
    from gatebook.producers.policy.document import as_patterns

    return as_patterns(given)


def _some(patterns: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: some for name, some in patterns.items() if some}


@contextmanager
def _recorded(action: str, by: str, request: Any) -> Iterator[None]:
    """A step that is recorded before it is done; where it cannot be done, that is, too."""
    from gatebook.producers.policy.capture import told
    from gatebook.producers.policy.notices import REFUSED, Notice

    facts = told(request)
    _record(Notice(action, "", facts, by))
    try:
        yield
    except (GatebookError, OSError):
        _record(Notice(REFUSED, "server_error", {**facts, "step": action}, by))
        raise


def _record(notice: Notice) -> None:
    """The step as an event, on disk before it is done. Raises Refused where that cannot be.

    If we die after this and before the step's file is written, the log says that somebody asked,
    and nothing is raised: the step is taken again.
    """
    import msgspec

    from gatebook.producers.accounts import NotDurable
    from gatebook.producers.config import ProducerSettings
    from gatebook.producers.policy.asking import Refused
    from gatebook.producers.policy.notices import ControlEvent
    from gatebook.producers.recorder import Recorder

    settings = msgspec.structs.replace(
        ProducerSettings.from_env(),
        service_name="gatebook-policy",
        producer_id="",
        capture_policy="",
        delivery_mode="buffered",
    )
    recorder = Recorder(settings)
    try:
        recorder.emit_durable(ControlEvent(notice))
    except NotDurable as error:
        raise Refused(
            f"the step could not be recorded: {error.reason}", "see GATEBOOK_SPOOL_DIR"
        ) from None
    finally:
        report = recorder.close(FLUSH_SECONDS)
    if not report.complete:
        click.echo("recorded in the spool; Kafka has not taken it yet", err=True)
