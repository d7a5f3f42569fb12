"""`gatebook subject`: what the log holds of a person, and how it goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatebook.cli.acts import hold_id_option, reason_option
from gatebook.cli.cluster import run_privileged
from gatebook.cli.saved_naming import saved_naming, tell_saved
from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from gatebook.cli.privileged import Witness
    from gatebook.processors.config import WorkerSettings
    from gatebook.processors.redact import Redactor
    from gatebook.processors.sinks.connection import Connection
    from gatebook.processors.subjects.documents import Documents, Person
    from gatebook.processors.subjects.elastic import ElasticStore
    from gatebook.processors.subjects.erasure import Eraser
    from gatebook.processors.subjects.keyring import KeyRing
    from gatebook.processors.subjects.settings import SubjectSettings
    from gatebook.processors.subjects.wrapping import KeyFolder

T = TypeVar("T")
EXIT_NOT_FOUND = 1
EXIT_INCOMPLETE = 1
EXIT_HELD = 4
MAX_CANDIDATES = 1_000_000
REVEAL_CHOICES = ("none", "redacted", "full")
MAX_TENANTS_NAMED = 5


def _some_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("it is empty: name a person")
    return value


id_argument = click.argument("id_", metavar="ID", callback=_some_id)

tenant_option = click.option("--tenant", default="", help="The person's tenant.")
tag_option = click.option(
    "--tag", is_flag=True, help="ID is the tag that stands in gatebook.subject."
)
principal_option = click.option(
    "--principal", is_flag=True, help="ID is a principal such as key:KEY_ID, not a person."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
timeout_option = click.option(
    "--timeout-seconds",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    help="How long to wait for the workers.",
)


class NobodyFound(GatebookError):
    """Most likely the id or the tenant is not as the service sent it."""

    exit_code = EXIT_NOT_FOUND
    event_reason = "not_found"

    def __init__(self, tenants: Sequence[str] = ()) -> None:
        super().__init__("no events of this subject are stored")
        asked = "give id and --tenant as the service sends them, or --tag and gatebook.subject"
        told = ", ".join(f"--tenant {one!a}" if one else "no --tenant" for one in tenants)
        self.next_step = f"{asked}; events with this id are there with {told}" if told else asked


class FolderRefused(GatebookError):
    """The folder of an export cannot be used."""

    exit_code = 2

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


@click.group()
def subject() -> None:
    """A person the events are about: export, legal hold, erasure, pseudonyms.

    \b
      gatebook subject export ada@example.org --tenant acme --reason "request 17" --output out/
      gatebook subject erase ada@example.org --tenant acme --reason "request 18" --dry-run
      gatebook subject hold ada@example.org --tenant acme --reason "case 4711"

    ID is the caller's user id where a person proved who they are (oidc, sso, header); else the end
    user where the service names one, else the caller's user id; as the service sent it. Every
    command is an event of its own, durable before anything is shown or done: where it cannot be
    recorded, it is refused. Where it then fails, a second event says so (event.outcome failure),
    with the first one's id in gatebook.attributes.recorded_as.

    Exit codes: 0 done; 1 not found, or not done in full; 2 wrong usage; 3 Elasticsearch does not
    answer; 4 a legal hold or an erasure stands in the way; 5 the workers are behind; 6 it could
    not be recorded.
    """


@dataclass
class Desk:
    """What every command works with, while its connection is open."""

    settings: WorkerSettings
    own: SubjectSettings
    connection: Connection
    witness: Witness
    store: ElasticStore
    ring: KeyRing
    documents: Documents

    def redactor(self) -> Redactor:
        """The redactor of the workers: their rules, exceptions, names and pseudonyms."""
        from gatebook.processors.stages.intake import redactor_of

        return redactor_of(self.settings)

    def person(self, id_: str, tenant: str, tag: bool, principal: bool) -> Person:
        """How the subject is found."""
        from gatebook.processors.subjects.documents import Person
        from gatebook.processors.subjects.identity import PERSON, PRINCIPAL, Subject

        if tag:
            return Person(id_)
        kind = PRINCIPAL if principal else PERSON
        found = self.own.tags(self.settings).of(Subject(tenant, id_, kind))
        masked = self.redactor().redact_text(id_, tenant=tenant).text
        return Person(found, tenant, () if principal else tuple(dict.fromkeys((id_, masked))))

    async def nobody(self, id_: str, tenant: str, tag: bool, principal: bool) -> NobodyFound:
        """That nothing is stored, with the tenants under which something is."""
        from gatebook.processors.subjects.identity import PERSON, PRINCIPAL, Subject

        if tag:
            return NobodyFound()
        kind, tags = PRINCIPAL if principal else PERSON, self.own.tags(self.settings)
        others = [one for one in await self.documents.tenants() if one != tenant]
        known = [tags.of(Subject(one, id_, kind)) for one in others]
        should: list[dict[str, Any]] = [{"terms": {"gatebook.subject": known}}]
        if not principal:
            should.append({"term": {"user.id": {"value": id_}}})
        query = {"bool": {"should": should, "minimum_should_match": 1}}
        found = [one for one in await self.documents.tenants(query) if one != tenant]
        return NobodyFound(found[:MAX_TENANTS_NAMED])

    async def events(self, person: Person) -> int:
        """How many events of a person are stored."""
        await self.documents.refresh()
        return await self.documents.count(person.query())

    async def record(self, action: str, reason: str = "", **details: str) -> None:
        """Record the act. Raises NotRecorded."""
        from gatebook.cli.privileged import act

        given = {"reason": reason, **details}
        await self.witness.record(act(action, {n: v for n, v in given.items() if v}))


def run_at_desk(work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run with everything open, and close it; an outage becomes an error with a next step."""
    return run_privileged(lambda s, connection, witness: work(_desk(s, connection, witness)))


def _desk(settings: WorkerSettings, connection: Connection, witness: Witness) -> Desk:
    from gatebook.processors.subjects.documents import Documents
    from gatebook.processors.subjects.elastic import ElasticStore
    from gatebook.processors.subjects.keyring import KeyRing
    from gatebook.processors.subjects.settings import subject_settings

    own = subject_settings()
    store = ElasticStore(connection, settings.namespace)
    ring = KeyRing(store, own.wrapping(settings), own.tags(settings), own.lease_seconds)
    documents = Documents(connection, settings.namespace)
    return Desk(settings, own, connection, witness, store, ring, documents)


# --- erase -------------------------------------------------------------------------------------


@subject.command()
@id_argument
@tenant_option
@tag_option
@principal_option
@reason_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--names", is_flag=True, help="Take user.name and user.email as well.")
@click.option(
    "--now",
    is_flag=True,
    help="Rotate intake's keys and destroy the old ones, so that raw frames cannot be opened "
    "before they age out. Content that producers still have in their spools is lost by that. "
    "Without it, raw frames open with intake's private key until access.v1's retention.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the certificate; default: standard output.",
)
@timeout_option
@json_option
def erase(id_: str, as_json: bool, output: Path | None, **given: Any) -> None:
    """Destroy the keys of what a person wrote, take it out of the index, certify it.

    What was written until now is unreadable from then on in the index, in event.v1, and in
    snapshots (but for text in snapshots that could be searched: the certificate names them).
    Without --now, raw frames in access.v1 open with intake's private key until that topic's
    retention. With --names, names stay readable in both topics until their retention. The
    certificate lists all of that (remains); it is `complete` where nothing listed can be read, and
    else says when it will be (complete_when).

    The events themselves stay: who accessed what, and when. Interrupted, the same command goes on.
    Asked for twice at once, it is one erasure, and its certificate names the other request
    (also_requested). It ends with 1 where something stays readable until somebody removes it.

    It is refused while a legal hold is on the person, or one of `gatebook retention hold` covers
    what they wrote: the tenant, events that match, or a time.
    """

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.cli.privileged import operator
        from gatebook.processors.subjects.erasure import Request

        eraser = _eraser(desk, given["timeout_seconds"], quiet=as_json)
        person = desk.person(id_, given["tenant"], given["tag"], given["principal"])
        await desk.record("subject.plan_erase", given["reason"], subject=person.tag)
        plan = await eraser.plan(person, given["names"])
        if not plan["documents"] and not plan["keys"]:
            who = (given["tenant"], given["tag"], given["principal"])
            raise await desk.nobody(id_, *who)
        names = (id_, person.tag, *person.user_ids)
        saved = await saved_naming(desk.connection, desk.settings.namespace, names)
        tell_saved(saved)
        if given["dry_run"]:
            return {**plan, "saved_searches": saved}
        await eraser.refuse_if_held(person)
        if not given["yes"]:
            _print_plan(plan)
            click.confirm("Erase this for good?", abort=True, err=True)
        request = Request(given["reason"], operator(), given["names"], given["now"])
        return await eraser.run(person, request)

    try:
        found = run_at_desk(work)
    except KeyboardInterrupt:
        click.echo(
            "interrupted: what is done stays done, and the same command goes on; "
            "`gatebook subject status` tells how far it is",
            err=True,
        )
        raise
    if given["dry_run"]:
        click.echo(json.dumps(found)) if as_json else _print_plan(found)
        sys.exit(EXIT_HELD if found["holds"] else 0)
    text = json.dumps(found, indent=None if as_json else 2)
    if not _written(output, text):
        click.echo(text)
    _tell_what_stays(found)


def _tell_what_stays(certificate: dict[str, Any]) -> None:
    """Exits with 1 where somebody has to remove something yet, and nothing ages out of it."""
    from gatebook.processors.subjects.erasure import left_to_others

    if not certificate["complete"]:
        when = ", ".join(certificate.get("complete_when", ["they are gone"]))
        click.echo(f"not everything is unreadable yet, see `remains`; until: {when}", err=True)
    if left_to_others(certificate):
        sys.exit(EXIT_INCOMPLETE)


def _written(output: Path | None, text: str) -> bool:
    """Whether the certificate went to its file; where it cannot, it is printed, not lost."""
    if output is None:
        return False
    try:
        output.write_text(text + "\n")
    except OSError as error:
        click.echo(f"{output} cannot be written: {error.strerror}; the certificate:", err=True)
        return False
    click.echo(f"certificate: {output}", err=True)
    return True


def _eraser(desk: Desk, timeout_seconds: float, quiet: bool) -> Eraser:
    from gatebook.processors.retention.barring import barring
    from gatebook.processors.subjects.certificate import Signer
    from gatebook.processors.subjects.documents import Documents
    from gatebook.processors.subjects.erasure import Eraser
    from gatebook.processors.subjects.surroundings import Pipeline
    from gatebook.processors.summaries.erasing import erase

    return Eraser(
        desk.settings.namespace,
        desk.store,
        Documents(desk.connection, desk.settings.namespace, restored=True),
        Signer.from_file(desk.own.certificate_key_path(desk.settings)),
        Pipeline(desk.settings, desk.own.lease_seconds, desk.witness.record, timeout_seconds),
        told=(lambda step: None) if quiet else (lambda step: click.echo(f"done: {step}", err=True)),
        summaries=lambda tag, before: erase(desk.connection, desk.settings.namespace, tag, before),
        barring=lambda person: barring(desk.connection, desk.settings.namespace, person),
    )


def _print_plan(plan: dict[str, Any]) -> None:
    click.echo(f"subject {plan['subject']}")
    for hold in plan["holds"]:
        click.echo(f"  under legal hold {hold['id']} by {hold['by']}: it cannot be erased")
    click.echo(f"  {plan['documents']} documents, {plan['documents_with_content']} with content")
    click.echo(f"  {plan['documents_with_names']} with a name or mail address (go with --names)")
    for name, count in plan["indices"].items():
        click.echo(f"    {name}: {count} with content")
    click.echo(f"  keys to destroy: {', '.join(plan['keys']) or 'none'}")
    for left in plan["remains"]:
        click.echo(f"  stays: {left['what']} in {left['where']}, until {left['until']};")
        click.echo(f"    readable {left['readable']}")


@subject.command(name="verify-certificate")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator's public key (certificates.pub), to see who signed.",
)
@json_option
def verify_certificate(file: Any, public_key: Path | None, as_json: bool) -> None:
    """Check the signature of a certificate of erasure; needs nothing but the file.

    Without --public-key this shows that it was not changed, not who made it.
    """
    from gatebook.processors.subjects.certificate import verify_certificate as verify

    known = public_key.read_text() if public_key else ""
    certificate = verify(file.read(), known)
    if as_json:
        click.echo(json.dumps({"holds": True, "signer_checked": bool(known), **certificate}))
        return
    whose = "by the given key" if known else "by the key that stands in it"
    click.echo(f"the signature holds, {whose}")
    for name in ("subject", "documents", "documents_with_content", "completed_at"):
        click.echo(f"  {name}: {certificate[name]}")
    click.echo(f"  keys_destroyed: {len(certificate['keys_destroyed'])}")


# --- holds -------------------------------------------------------------------------------------


@subject.command()
@id_argument
@tenant_option
@tag_option
@principal_option
@reason_option
@hold_id_option
@click.option("--ahead", is_flag=True, help="Also where no events of the person are stored yet.")
@json_option
def hold(id_: str, reason: str, hold_id: str, ahead: bool, as_json: bool, **given: Any) -> None:
    """Put a legal hold on a person: nothing of them is erased, nor dropped by retention.

    Where no events of the person are stored, nothing is held without --ahead: most likely the id
    or the tenant is not as the service sends it.
    """

    async def work(desk: Desk) -> dict[str, Any]:
        import time
        import uuid

        from gatebook.cli.privileged import operator
        from gatebook.processors.subjects import holds
        from gatebook.processors.subjects.state import Hold

        person = desk.person(id_, **given)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        new = Hold(id=hold_id or uuid.uuid4().hex[:12], reason=reason, by=operator(), at=now)
        await desk.record("subject.hold", reason, subject=person.tag, hold=new.id)
        if not ahead and not await desk.events(person):
            raise await desk.nobody(id_, **given)
        state = await holds.hold(desk.store, person.tag, new)
        return _holds_of(person.tag, state.holds)

    _print_holds([run_at_desk(work)], as_json)


@subject.command()
@id_argument
@tenant_option
@tag_option
@principal_option
@reason_option
@click.option("--hold-id", required=True, help="Which hold to end.")
@json_option
def release(id_: str, reason: str, hold_id: str, as_json: bool, **given: Any) -> None:
    """End a legal hold. Other holds on the same person stay."""

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.processors.subjects import holds

        person = desk.person(id_, **given)
        await desk.record("subject.release", reason, subject=person.tag, hold=hold_id)
        state = await holds.release(desk.store, person.tag, hold_id)
        return _holds_of(person.tag, state.holds)

    _print_holds([run_at_desk(work)], as_json)


@subject.command(name="list-holds")
@json_option
def list_holds(as_json: bool) -> None:
    """Show every legal hold."""

    async def work(desk: Desk) -> list[dict[str, Any]]:
        from gatebook.processors.subjects import holds

        await desk.record("subject.list_holds")
        held = await holds.held_subjects(desk.store)
        return [_holds_of(tag, found) for tag, found in sorted(held.items())]

    _print_holds(run_at_desk(work), as_json)


def _holds_of(tag: str, found: Iterable[Any]) -> dict[str, Any]:
    from gatebook.processors.subjects.holds import described

    return {"subject": tag, "holds": [described(one) for one in found]}


def _print_holds(rows: list[dict[str, Any]], as_json: bool) -> None:
    from gatebook.processors.search.display import safe

    if as_json:
        click.echo(json.dumps({"subjects": rows}))
        return
    for row in rows:
        click.echo(f"{row['subject']}  {len(row['holds'])} holds")
        for one in row["holds"]:
            click.echo(f"  {safe(one['id'])}  by {one['by']} at {one['at']}: {safe(one['reason'])}")
    if not rows:
        click.echo("no legal holds")


# --- looking -----------------------------------------------------------------------------------


@subject.command()
@id_argument
@tenant_option
@tag_option
@principal_option
@json_option
def status(id_: str, as_json: bool, **given: Any) -> None:
    """Show a person's holds, erasures so far, and how far one under way has come."""

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.processors.subjects.erasure import STEPS
        from gatebook.processors.subjects.state import JOB, key_id, read_states

        person = desk.person(id_, **given)
        await desk.record("subject.status", subject=person.tag)
        state = (await read_states(desk.store, [person.tag]))[person.tag]
        jobs = await desk.store.find(JOB, tag=person.tag)
        events = await desk.events(person)
        if not (events or jobs or state.holds or state.generation):
            raise await desk.nobody(id_, **given)
        return {
            "subject": person.tag,
            "events": events,
            "has_key": bool(await desk.store.get([key_id(person.tag, state.generation)])),
            "erased": sum(bool(job.source["done"]) for job in jobs),
            **_holds_of(person.tag, state.holds),
            "jobs": [
                {
                    "job": job.id,
                    "done": job.source["done"],
                    "steps": [step for step in STEPS if step in job.source["steps"]],
                    "certificate": job.source["steps"].get("certificate"),
                }
                for job in sorted(jobs, key=lambda job: int(job.source["generation"]))
            ],
        }

    found = run_at_desk(work)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"subject {found['subject']}: {found['events']} events, ", nl=False)
    click.echo(f"erased {found['erased']} times, ", nl=False)
    click.echo(f"{'a' if found['has_key'] else 'no'} key, {len(found['holds'])} legal holds")
    for job in found["jobs"]:
        state = "done" if job["done"] else f"under way, last step {(job['steps'] or ['none'])[-1]}"
        click.echo(f"  {job['job']}: {state}")


@subject.command()
@id_argument
@tenant_option
@tag_option
@principal_option
@reason_option
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for events.ndjson and manifest.json.",
)
@click.option(
    "--reveal",
    type=click.Choice(REVEAL_CHOICES),
    default="redacted",
    show_default=True,
    help="What is opened: nothing, redacted content, or the original as well.",
)
@click.option("--overwrite", is_flag=True, help="Also into a folder that is not empty.")
@json_option
def export(
    id_: str,
    reason: str,
    output: Path,
    reveal: str,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write all events of a person to a folder, with their content opened.

    Of content that was erased, the events and the manifest say so, with the erasure's job and
    time; absent is what was never kept.
    """

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.processors.subjects import reveal as opening
        from gatebook.processors.subjects.erasures import erasures_of

        person = desk.person(id_, **given)
        await desk.record("subject.export", reason, subject=person.tag, reveal=reveal)
        if not await desk.events(person):
            raise await desk.nobody(id_, **given)
        _make_folder(output)
        erasures = await erasures_of(desk.store, person.tag)
        manifest = opening.Manifest(person.tag, erasures=erasures)
        lines = opening.export(desk.documents, desk.ring, person, _layers(reveal), manifest)
        with _private_file(output / "events.ndjson") as file:
            async for line in lines:
                file.write(line)
        summary = manifest.summary()
        with _private_file(output / "manifest.json") as file:
            file.write(json.dumps(summary, indent=2).encode() + b"\n")
        return summary

    _refuse_folder(output, overwrite)
    found = run_at_desk(work)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print_manifest(found, output)
    if found["digests_fail"]:
        click.echo(f"{len(found['digests_fail'])} events are not as they were written", err=True)
    if found["digests_fail"]:
        sys.exit(EXIT_NOT_FOUND)


def _refuse_folder(output: Path, overwrite: bool) -> None:
    """Raises FolderRefused where there is something in it that nobody said to overwrite."""
    try:
        used = output.is_dir() and any(output.iterdir())
    except OSError as error:
        raise _not_writable(output, error) from None
    if used and not overwrite:
        raise FolderRefused(f"{output} is not empty", "name another folder, or give --overwrite")


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _not_writable(output, error) from None


def _not_writable(path: Path, error: OSError) -> FolderRefused:
    return FolderRefused(
        f"{path} cannot be written: {error.strerror}", "name a folder with --output that can be"
    )


def _print_manifest(found: dict[str, Any], output: Path) -> None:
    opened = ", ".join(f"{n} {layer}" for layer, n in found["layers_opened"].items()) or "none"
    click.echo(f"{found['documents']} events in {output}; opened: {opened}")
    if found["layers_erased"]:
        erased = ", ".join(f"{n} {layer}" for layer, n in found["layers_erased"].items())
        click.echo(f"erased: {erased}")
    for one in found["erasures"]:
        click.echo(f"  {one['job']}: {one['completed_at'] or 'under way'}")


def _layers(reveal: str) -> tuple[str, ...]:
    return {"none": (), "redacted": ("redacted",), "full": ("redacted", "full")}[reveal]


def _private_file(path: Path) -> Any:
    import os

    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise _not_writable(path, error) from None
    os.fchmod(handle, 0o600)  # one that is overwritten may have had other rights
    return os.fdopen(handle, "wb")


# --- pseudonyms --------------------------------------------------------------------------------


@subject.command()
@click.argument("pseudonym")
@tenant_option
@reason_option
@click.option("--candidate", "candidates", multiple=True, help="A value that it may be.")
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Candidates from standard input, by line."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Events to open at most.",
)
@json_option
def reidentify(
    pseudonym: str,
    tenant: str,
    reason: str,
    candidates: tuple[str, ...],
    from_stdin: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Find the value that a pseudonym such as EMAIL_e1_ABCDEFGHIJKLMNOP stands for.

    There is no table of values. Candidates are tried first, then the people of the directory, then
    the originals of events that may hold it and were kept at level full. The value is printed here
    and stands nowhere else; that it was asked for is recorded.
    """

    async def work(desk: Desk) -> tuple[str | None, str, int]:
        from gatebook.processors.subjects import reveal as opening

        wanted = opening.pseudonym_in(pseudonym)
        if not opening.kind_of(wanted):
            raise click.BadParameter("this is no pseudonym", param_hint="PSEUDONYM")
        await desk.record("subject.reidentify", reason, pseudonym=wanted)
        redactor = desk.redactor()
        for where, texts in (
            ("candidates", _candidates(candidates, from_stdin)),
            ("directory", _directory_texts(desk.settings)),
        ):
            value = opening.value_behind(redactor, wanted, texts, tenant)
            if value is not None:
                return value, where, 0
        query = _pseudonym_query(wanted)
        value, looked = await opening.reidentify(
            desk.documents, desk.ring, redactor, wanted, query, limit
        )
        return value, "events", looked

    value, where, looked = run_at_desk(work)
    if as_json:
        click.echo(
            json.dumps({"value": value, "found_in": where if value else "", "opened": looked})
        )
    elif value is not None:
        from gatebook.processors.search.display import safe

        click.echo(safe(value))
    else:
        click.echo(
            f"not found; {looked} events were opened. Candidates can be given with --candidate or "
            f"--stdin, and pseudonyms differ by tenant: give --tenant as the service sends it",
            err=True,
        )
    if value is None:
        sys.exit(EXIT_NOT_FOUND)


def _candidates(given: tuple[str, ...], from_stdin: bool) -> Iterable[str]:
    from itertools import islice

    yield from given
    if from_stdin:
        yield from (line.strip() for line in islice(sys.stdin, MAX_CANDIDATES) if line.strip())


def _directory_texts(settings: WorkerSettings) -> Iterable[str]:
    import tomllib

    from gatebook.processors.subjects.reveal import texts_of

    if settings.directory_file:
        yield from texts_of(tomllib.loads(Path(settings.directory_file).read_text()))


def _pseudonym_query(pseudonym: str) -> Any:
    from gatebook.processors.search.fields import fields_of
    from gatebook.processors.subjects.reveal import pseudonym_query

    names = ("user.id", "user.name", "gatebook.identity.on_behalf_of", "gatebook.principal")
    return pseudonym_query(pseudonym, fields_of("access").text_fields, names)


# --- the wrapping key ---------------------------------------------------------------------------


class WrappingRefused(GatebookError):
    """Wrapping keys that are named in a setting are made and destroyed where they are kept."""

    exit_code = 2
    next_step = (
        "put the new source first in GATEBOOK_SUBJECT_WRAPPING_KEYS of all workers, keep the old "
        "one behind it, and run this without --new-key and --destroy-old"
    )

    def __init__(self) -> None:
        super().__init__("the wrapping keys are those that GATEBOOK_SUBJECT_WRAPPING_KEYS names")


@subject.command()
@reason_option
@click.option("--new-key", is_flag=True, help="Make a wrapping key first; it becomes current.")
@click.option(
    "--destroy-old",
    is_flag=True,
    help="Destroy the other wrapping keys in the end, if nothing is under them any more.",
)
@click.option("--dry-run", is_flag=True, help="Count, and do nothing.")
@json_option
def rewrap(reason: str, new_key: bool, destroy_old: bool, dry_run: bool, as_json: bool) -> None:
    """Put all subjects' keys under the current wrapping key.

    \b
      gatebook subject rewrap --reason "yearly" --new-key --destroy-old

    What is sealed stays as it is, and the workers go on meanwhile. Interrupted, the same command
    goes on: --new-key makes no other key while something is under an older one. Copies of an old
    wrapping key elsewhere, backups among them, are yours to find.
    """

    async def work(desk: Desk) -> dict[str, Any]:
        from gatebook.processors.subjects.rewrap import counted
        from gatebook.processors.subjects.rewrap import rewrap as rewrap_all

        if desk.own.wrapping_keys and (new_key or destroy_old):
            raise WrappingRefused
        wrapping, folder = desk.own.wrapping(desk.settings), desk.own.wrapping_folder(desk.settings)
        under = await counted(desk.store)
        if dry_run:
            return _rewrap_report(wrapping.newest.id, 0, under)
        fresh = new_key and not under.keys() - {wrapping.newest.id}
        made = {"new_key": "yes"} if fresh else {"wrapping_id": wrapping.newest.id}
        await desk.record("subject.rewrap", reason, **made)
        if fresh:
            # If we die here, the key is current already: the same command goes on with it.
            folder.make()
            wrapping.refresh()
        told = (lambda done: None) if as_json else _tell_progress
        found = await rewrap_all(desk.store, wrapping, told)
        report = _rewrap_report(found.wrapping_id, found.rewrapped, found.under)
        if destroy_old and not found.left:
            report["destroyed"] = await _destroy_unused(desk, folder, reason)
        return report

    _print_rewrapped(found := run_at_desk(work), as_json)
    if found["left"] and not dry_run:
        sys.exit(EXIT_INCOMPLETE)


def _tell_progress(done: int) -> None:
    click.echo(f"rewrapped: {done}", err=True)


def _rewrap_report(current: str, rewrapped: int, under: dict[str, int]) -> dict[str, Any]:
    left = sum(count for wrapping_id, count in under.items() if wrapping_id != current)
    return {
        "wrapping_id": current,
        "rewrapped": rewrapped,
        "under": under,
        "left": left,
        "destroyed": [],
    }


async def _destroy_unused(desk: Desk, folder: KeyFolder, reason: str) -> list[str]:
    """Destroy the files of wrapping keys under which nothing is, but for the current one."""
    import asyncio

    from gatebook.processors.subjects.rewrap import counted

    # A worker may be about to store a key that it wrapped before the new one was there.
    await asyncio.sleep(folder.settles_in_seconds(desk.own.lease_seconds))
    under = await counted(desk.store)
    destroyed = []
    for path in folder.files()[1:]:
        wrapping_id = folder.id_of(path)
        if under.get(wrapping_id):
            continue
        await desk.record("subject.destroy_wrapping_key", reason, wrapping_id=wrapping_id)
        # If we die here, the event says more than was done; the same command does it.
        path.unlink()
        destroyed.append(wrapping_id)
    return destroyed


def _print_rewrapped(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"wrapping key {found['wrapping_id']} is current; rewrapped {found['rewrapped']}")
    for wrapping_id, count in sorted(found["under"].items()):
        click.echo(f"  under {wrapping_id}: {count}")
    for wrapping_id in found["destroyed"]:
        click.echo(f"  destroyed {wrapping_id}")
    if found["left"]:
        click.echo(f"  {found['left']} still under another key")


COMMANDS = [subject]
