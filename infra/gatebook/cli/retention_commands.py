"""`gatebook retention`: what goes when, by policy; what is held; what was done."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gatebook.cli.acts import hold_id_option, reason_option
from gatebook.cli.cluster import run_privileged
from gatebook.schemas.errors import Fatal

if TYPE_CHECKING:
    from gatebook.cli.privileged import Witness
    from gatebook.processors.config import WorkerSettings
    from gatebook.processors.retention.manager import Manager
    from gatebook.processors.retention.plan import Plan
    from gatebook.processors.retention.settings import RetentionSettings
    from gatebook.processors.retention.topics import TopicChange, TopicTerms
    from gatebook.processors.retention.work import Summaries
    from gatebook.processors.sinks.connection import Connection

T = TypeVar("T")
VARIABLE = "GATEBOOK_RETENTION_POLICY"
EXIT_PROBLEM = 1
GIB = 1 << 30
BLOCKED = {
    "rewriting": "it is rewritten at the moment",
    "left": (
        "a run that died left it so; the next sink that writes to it opens it within seconds, "
        "and so does `gatebook retention run`"
    ),
    "other": "retention did not set that block",
}


def _given(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        return value
    from gatebook.processors.retention.settings import policy_path

    found = policy_path()
    if found is None:
        raise click.MissingParameter(
            f"Name the policy file, here or in {VARIABLE}, or put it into GATEBOOK_HOME as "
            "retention-policy.toml; infra/examples/retention-policy.toml is one to begin with.",
            ctx,
            param,
        )
    return found


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
policy_option = click.option(
    "--policy",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=VARIABLE,
    callback=_given,
    help=f"The policy file. [default: {VARIABLE}, else retention-policy.toml in GATEBOOK_HOME]",
)


@click.group()
def retention() -> None:
    """How long events stay, by policy: layers of content go before the event does.

    \b
      gatebook retention check --policy retention-policy.toml
      gatebook retention plan
      gatebook retention apply --reason "policy 3" --yes
      gatebook retention hold --tenant acme --reason "case 4711"
      gatebook retention run --schedule

    What is under legal hold stays as it is, whatever the policy says. Acts are events of their
    own, durable before anything is done: where they cannot be recorded, they are refused.

    Exit codes: 0 done, or nothing to do; 1 something is wrong or could not be done; 2 wrong usage
    or policy; 3 Elasticsearch does not answer; 5 another run is under way; 6 it could not be
    recorded.
    """


@dataclass
class Desk:
    """What every command works with, while its connection is open."""

    settings: WorkerSettings
    own: RetentionSettings
    connection: Connection
    witness: Witness

    def manager(self, policy: bytes, quiet: bool = True) -> Manager:
        """A manager with everything real behind it."""
        from gatebook.processors.retention.elastic import Cluster
        from gatebook.processors.retention.lock import Lock
        from gatebook.processors.retention.manager import Manager
        from gatebook.processors.retention.state import State
        from gatebook.processors.subjects.certificate import Signer
        from gatebook.processors.subjects.elastic import ElasticStore
        from gatebook.processors.subjects.holds import held_subjects
        from gatebook.processors.subjects.settings import subject_settings

        cluster = Cluster(self.connection, self.settings.namespace)
        state = State(cluster)
        store = ElasticStore(self.connection, self.settings.namespace)
        return Manager(
            cluster,
            state,
            policy,
            Signer.from_file(subject_settings().certificate_key_path(self.settings)),
            self.witness.record,
            lambda: held_subjects(store),
            _summaries(self.connection, self.settings.namespace),
            Lock(state, self.own.lease_seconds),
            told=(lambda item, step: None) if quiet else _tell,
        )

    def with_topics(self, policy: bytes, quiet: bool = True) -> Manager:
        """A manager that sets the topics' retention as well, where the policy says so."""
        from gatebook.processors.config import kafka_properties
        from gatebook.processors.retention.topics import KafkaTopics

        found = self.manager(policy, quiet)
        properties = kafka_properties(self.settings.kafka_bootstrap)
        found.topics = KafkaTopics(self.settings.namespace, properties)
        return found

    async def record(self, action: str, **details: str) -> None:
        """Record an act. Raises NotRecorded."""
        from gatebook.cli.privileged import act

        await self.witness.record(act(action, {n: v for n, v in details.items() if v}))

    def keep(self, certificate: Mapping[str, Any], output: Path | None) -> Path:
        """Write a certificate to its file; the one in the state index stays as well."""
        folder = Path(self.own.certificates or self.settings.home_path / "certificates")
        path = output or folder.expanduser() / f"retention-{certificate['run']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
        return path


def _tell(item: str, step: str) -> None:
    click.echo(f"{item or 'run'}: {step}", err=True)


def _summaries(connection: Connection, namespace: str) -> Summaries:
    """The summaries that keep counts when details go."""
    from datetime import datetime

    from gatebook.processors.summaries import keeping

    class Kept:
        async def ensure(self, since: datetime, until: datetime) -> None:
            await keeping.ensure(connection, namespace, since, until)

        async def freeze(self, leaving: Sequence[str], coming: Sequence[str]) -> None:
            await keeping.freeze(connection, namespace, leaving, coming)

        async def forget(self, grain: str, until: datetime) -> None:
            await keeping.forget(connection, namespace, grain, until)

    return Kept()


def run_at_desk(work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run with everything open, and close it; an outage becomes an error with a next step."""
    from gatebook.processors.retention.settings import retention_settings

    own = retention_settings()
    return run_privileged(
        lambda settings, connection, witness: work(Desk(settings, own, connection, witness))
    )


def _read(file: Path) -> bytes:
    from gatebook.processors.retention.policy import Policy, PolicyInvalid

    try:
        data = file.read_bytes()
    except OSError as error:
        raise PolicyInvalid(f"{file}: {error.strerror}") from None
    Policy.read(data)
    return data


# --- check, plan, apply ------------------------------------------------------------------------


@retention.command()
@policy_option
@click.option("--offline", is_flag=True, help="Look at the file alone, ask no server.")
@json_option
def check(file: Path, offline: bool, as_json: bool) -> None:
    """Check the policy file, Kafka's topics, and the snapshot repository against each other."""
    from gatebook.processors.retention.policy import Policy

    policy = Policy.read(_read(file))
    found: dict[str, Any] = {
        "policy": policy.file.name,
        "sha256": policy.digest,
        "warnings": list(policy.warnings()),
        "problems": [] if offline else _problems(policy),
    }
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(f"policy {found['policy']} ({found['sha256'][:12]})")
        for kind in ("warnings", "problems"):
            for one in found[kind]:
                click.echo(f"  {kind[:-1]}: {one}")
    sys.exit(EXIT_PROBLEM if found["problems"] else 0)


def _problems(policy: Any) -> list[str]:
    from gatebook.processors.retention.topics import next_step

    async def work(desk: Desk) -> list[str]:
        from gatebook.processors.retention.elastic import Cluster

        if policy.file.snapshot is None:
            return []
        try:
            cluster = Cluster(desk.connection, desk.settings.namespace)
            await cluster.check_repository(policy.file.snapshot.repository)
        except Fatal as error:
            return [str(error)]
        return []

    topics = [
        f"{one.name}: {one.problem}; {next_step(policy, one)}"
        for one in _topics(policy)
        if one.problem
    ]
    return [*topics, *run_at_desk(work)]


def _topics(policy: Any) -> list[TopicTerms]:
    from gatebook.processors.config import from_env, kafka_properties
    from gatebook.processors.retention.topics import check_topics

    settings = from_env()
    return check_topics(policy, settings.namespace, kafka_properties(settings.kafka_bootstrap))


@retention.command()
@policy_option
@json_option
def plan(file: Path, as_json: bool) -> None:
    """Say what `apply` would do now, by index, and do nothing."""
    import msgspec

    data = _read(file)

    async def work(desk: Desk) -> Plan:
        await desk.record("retention.plan", policy=file.name)
        return await desk.with_topics(data).plan()

    found = run_at_desk(work)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found)))
        return
    _print_plan(found)


def _print_plan(found: Plan) -> None:
    for item in found.items:
        what = "delete" if item.is_whole else item.action
        size = f"{item.bytes / GIB:.2f} GiB"
        click.echo(f"{item.index}: {what} ({item.why}), {item.documents:,} documents, {size}")
        for verb, counts in (("go", item.drop), ("thinned", item.thin)):
            for label, count in sorted(counts.items()):
                click.echo(f"    {count:,} {verb}: {label}")
        for label, count in sorted(item.spared.items()):
            click.echo(f"    {count:,} are spared, findings cite them: {label}")
        for layer, count in sorted(item.strip.items()):
            click.echo(f"    {count:,} lose the layer {layer}")
        if item.held:
            click.echo(f"    {item.held:,} are held and stay as they are")
    for change in found.topics:
        click.echo(_told_topic(change))
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    due = f"{len(found.items):,} are due" if found.items else "nothing is due"
    topics = f", {len(found.topics)} topics to change" if found.topics else ""
    click.echo(f"{found.looked_at:,} indices looked at, {due}{topics}; {len(found.holds)} holds")


def _told_topic(change: TopicChange) -> str:
    if not change.waiting:
        return change.told()
    return (
        f"{change.told()}; refused: {change.waiting} has not read what waits there, and would lose "
        "it. Let `gatebook worker` read it, then apply again"
    )


@retention.command()
@policy_option
@reason_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the certificate; default: in the folder certificates of GATEBOOK_HOME.",
)
@json_option
def apply(
    file: Path, reason: str, yes: bool, dry_run: bool, output: Path | None, as_json: bool
) -> None:
    """Do what is due; write a signed certificate of it.

    A run that was interrupted is gone on with first, under the policy it began with; give the
    command again to do what is due since. No topic is kept for less while a group has not read
    what waits there: the exit code is 1 then, and the indices are done all the same.
    """
    import msgspec

    from gatebook.processors.retention.topics import TopicChange

    data = _read(file)
    refused: list[TopicChange] = []

    async def work(desk: Desk) -> dict[str, Any] | None:
        from gatebook.cli.privileged import operator

        manager = desk.with_topics(data, quiet=as_json)
        if dry_run or not yes:
            await desk.record("retention.plan", policy=file.name)
            found = await manager.plan()
            desk.witness.ended()
            if not as_json or dry_run:
                _print_plan(found)
            if dry_run:
                return None
            click.confirm("Delete this for good?", abort=True, err=True)
        certificate = await manager.apply(operator(), reason, asked=True)
        refused.extend(manager.refused)
        if certificate is not None:
            path = desk.keep(certificate, output)
            click.echo(f"certificate: {path}", err=True)
        return certificate

    certificate = run_at_desk(work)
    if as_json:
        click.echo(json.dumps(certificate))
    elif certificate is None:
        click.echo("nothing is due" if not (dry_run or refused) else "nothing was done")
    else:
        for one in certificate["topics"]:
            change = msgspec.convert(one, TopicChange)
            if not change.waiting:
                click.echo(change.told(), err=True)
        click.echo(json.dumps(certificate["totals"], indent=2))
    for one in refused:
        click.echo(f"not set: {_told_topic(one)}", err=True)
    if refused:
        sys.exit(EXIT_PROBLEM)


# --- holds -------------------------------------------------------------------------------------


@retention.command()
@reason_option
@hold_id_option
@click.option("--tenant", default="", help="Events of this tenant.")
@click.option("--trace", default="", help="Events of this trace.")
@click.option("--query", default="", help="Events that match, as in `gatebook search`.")
@click.option("--since", default="", help="Events from this time on.")
@click.option("--until", default="", help="Events of before this time.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    default=("access", "finding"),
    show_default=True,
    type=click.Choice(["access", "finding", "alert", "deadletter"]),
    help="What it reaches; several times for several kinds.",
)
@json_option
def hold(reason: str, hold_id: str, kinds: tuple[str, ...], as_json: bool, **what: str) -> None:
    """Put a legal hold on what matches all that is given: it is not deleted, stripped or thinned.

    Nor is a person erased of whose events it covers some. For one person, use `gatebook subject
    hold`. From the return of this command on it is in force, also against a run under way. An id
    stands for one hold: the same one again changes nothing, another one under an id that is taken
    is refused.
    """
    import time
    import uuid

    async def work(desk: Desk) -> tuple[str, int | None]:
        from gatebook.cli.privileged import operator
        from gatebook.processors.retention import holds

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name = hold_id or uuid.uuid4().hex[:12]
        new = holds.checked(
            holds.Hold(id=name, reason=reason, by=operator(), at=now, kinds=kinds, **what)
        )
        state = desk.manager(b"").state
        await holds.refuse_taken(state, new)
        await desk.record("retention.hold", reason=reason, hold=name, **holds.named(new))
        await holds.put(state, new)
        return name, await holds.covered(desk.connection, desk.settings.namespace, new)

    found, covered = run_at_desk(work)
    told = json.dumps({"hold": found, "covers": covered})
    click.echo(told if as_json else f"hold {found} is in force{_reach(covered)}")
    if covered == 0:
        click.echo(
            "nothing in the index matches it, and it holds what comes in from now on: see that it "
            "is spelled as events have it (`gatebook search --facets organization.id`)",
            err=True,
        )


def _reach(covered: int | None) -> str:
    return "" if covered is None else f"; it covers {covered:,} documents now"


@retention.command()
@click.argument("hold_id")
@reason_option
@json_option
def release(hold_id: str, reason: str, as_json: bool) -> None:
    """End a hold. What it held goes with the next run, where it is due."""

    async def work(desk: Desk) -> None:
        from gatebook.processors.retention import holds

        await desk.record("retention.release", reason=reason, hold=hold_id)
        await holds.release(desk.manager(b"").state, hold_id)

    run_at_desk(work)
    click.echo(json.dumps({"released": hold_id}) if as_json else f"hold {hold_id} is ended")


@retention.command(name="holds")
@json_option
def list_holds(as_json: bool) -> None:
    """Show the holds of retention's own; `gatebook subject list-holds` shows those on people."""
    import msgspec

    async def work(desk: Desk) -> list[dict[str, Any]]:
        from gatebook.processors.retention.holds import own_holds

        await desk.record("retention.list_holds")
        return [msgspec.to_builtins(one) for one in await own_holds(desk.manager(b"").state)]

    found = run_at_desk(work)
    if as_json:
        click.echo(json.dumps({"holds": found}))
        return
    for one in found:
        what = ", ".join(
            f"{name} {one[name]!a}"
            for name in ("tenant", "trace", "query", "since", "until")
            if one[name]
        )
        click.echo(f"{one['id']}  by {one['by']!a} since {one['at']}: {what}")
    if not found:
        click.echo("no holds")


# --- status, schedule, certificates ------------------------------------------------------------


@retention.command()
@json_option
def status(as_json: bool) -> None:
    """Show the run under way, holds, the last certificate, what sinks are told, and which indices
    take no writes."""

    from gatebook.cli.audited import looked

    looked("retention.view")
    found = run_at_desk(lambda desk: desk.manager(b"").status())
    if as_json:
        click.echo(json.dumps(found))
        return
    run, last = found["run"], found["last"]
    if run is None:
        click.echo("no run is under way")
    else:
        click.echo(f"run {run['run']}: {run['done']} of {run['items']} indices done")
        for index, step in run["under_way"]:
            click.echo(f"    {index}: {step}")
    for one in found["blocked"]:
        click.echo(f"{one['index']} takes no writes: {BLOCKED[one['why']]}")
    click.echo(f"{len(found['holds'])} holds")
    click.echo(f"last run: {last['run']}, {last['completed_at']}" if last else "no run so far")


@retention.command(name="run")
@policy_option
@click.option("--schedule", is_flag=True, help="Run without end; else once.")
def run_command(file: Path, schedule: bool) -> None:
    """Do what is due, every GATEBOOK_RETENTION_INTERVAL_SECONDS, until told to stop; look at disks
    and sizes of indices every GATEBOOK_RETENTION_WATCH_SECONDS. Topics are set with it, where the
    policy says so and Kafka answers.

    Several may run: one at a time does anything.
    """
    from gatebook.processors import logs
    from gatebook.processors.config import from_env

    data, settings = _read(file), from_env()
    logs.configure(settings.log_level)
    if settings.metrics_port:
        from prometheus_client import start_http_server

        start_http_server(settings.metrics_port, addr="127.0.0.1")
    run_at_desk(lambda desk: _scheduled(desk, data, schedule))


async def _scheduled(desk: Desk, data: bytes, schedule: bool) -> None:
    import asyncio
    import signal

    from gatebook.cli.privileged import operator
    from gatebook.processors.retention.schedule import REASON, PatientTopics, Schedule

    manager = desk.with_topics(data)
    manager.topics = PatientTopics(manager.topics) if manager.topics else None
    apply_, by = manager.apply, operator()

    async def kept(*given: Any, **more: Any) -> Any:
        certificate = await apply_(*given, **more)
        if certificate is not None:
            desk.keep(certificate, None)
        return certificate

    manager.apply = kept  # type: ignore[method-assign]  # each certificate goes to a file, too
    found = Schedule(manager, by, desk.own.interval_seconds, desk.own.watch_seconds)
    if not schedule:
        await found.watch()
        await manager.apply(by, REASON)
        return
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await found.run_until(stopping)


@retention.command()
@click.argument("slot")
@reason_option
@click.option("--kind", default="access", show_default=True)
def reopen(slot: str, reason: str, kind: str) -> None:
    """Let sinks write to a day again from which retention deleted, such as 2026.01.31.

    For an import of old events that a policy has come to keep. What replays bring back goes again
    with the next run, where it is due.
    """

    async def work(desk: Desk) -> None:
        from gatebook.processors.retention.state import without_closed

        await desk.record("retention.reopen", reason=reason, slot=slot)
        state = desk.manager(b"").state
        await state.change_gates(lambda gates: without_closed(gates, kind, slot))

    run_at_desk(work)
    click.echo(f"{kind} {slot} is open; sinks know within 10 seconds")


@retention.command(name="verify-certificate")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The operator's public key (certificates.pub), to see who signed.",
)
@json_option
def verify_certificate(file: Any, public_key: Path | None, as_json: bool) -> None:
    """Check the signature of a certificate; needs nothing but the file.

    Without --public-key this shows that it was not changed, not who made it. `previous` is the
    signature of the certificate before it: so none can be left out unseen.
    """
    from gatebook.processors.retention.manager import FORMAT
    from gatebook.processors.subjects.certificate import verify_certificate as verify

    known = public_key.read_text() if public_key else ""
    certificate = verify(file.read(), known, FORMAT)
    if as_json:
        click.echo(json.dumps({"holds": True, "signer_checked": bool(known), **certificate}))
        return
    click.echo(f"the signature holds, by the {'given key' if known else 'key that stands in it'}")
    click.echo(f"  run {certificate['run']}, {certificate['completed_at']}")
    for name, counts in certificate["totals"].items():
        click.echo(f"  {name}: {counts}")


COMMANDS = [retention]
