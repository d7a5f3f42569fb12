"""`gatebook policy`: check, explain and try out a capture policy; raise a level for a while."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.cluster import run_on_cluster
from gatebook.cli.policy_break_glass import break_glass
from gatebook.cli.policy_shared import (
    VARIABLE,
    json_option,
    matches,
    print_json,
    read_policy,
)

if TYPE_CHECKING:
    from gatebook.processors.sinks.connection import Connection
    from gatebook.producers.policy.compare import Change, Comparison, Group
    from gatebook.producers.policy.match import Decision

file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def policy() -> None:
    """The capture policy: what is kept of which access."""


# --- check -------------------------------------------------------------------------------------


@policy.command()
@file_argument
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE is a policy, and what each rule of it does.

    Exit codes: 0 it is one; 2 it is not, with the field and the line that are wrong.
    """
    from gatebook.producers.policy.document import warnings

    found = read_policy(file)
    noted = warnings(found.file)
    if as_json:
        rules = [rule for rule, _ in found.rules]
        print_json({"name": found.name, "digest": found.digest, "rules": rules, "warnings": noted})
        return
    click.echo(f"{found.name}, sha256 {found.digest}")
    for rule, matcher in found.rules:
        click.echo(f"  {rule.name:<24} {rule.level:<9} {matches(matcher.patterns)}")
    click.echo(f"  {'default':<24} {'metadata':<9} everything else")
    for text in noted:
        click.echo(f"warning: {text}", err=True)


# --- explain -----------------------------------------------------------------------------------


@policy.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--policy",
    "named",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The same as FILE. [default: {VARIABLE}]",
)
@click.option("--tenant", default="", help="organization.id")
@click.option("--model", default="", help="The model that was asked for, and that answered.")
@click.option("--answered", default="", help="The model that answered, where it is another.")
@click.option("--route", default="", help="url.path")
@click.option("--operation", default="", help="gen_ai.operation.name, or event.action")
@click.option("--service", default="", help="service.name")
@click.option(
    "--claimed", is_flag=True, help="Tenant and model are the caller's word, confirmed by nobody."
)
@json_option
def explain(
    file: Path | None,
    named: Path | None,
    as_json: bool,
    claimed: bool,
    answered: str,
    **given: str,
) -> None:
    """Say which rule of FILE decides on an access, and why those before it did not.

    Exit codes: 0 said; 2 FILE is no policy, or an option is wrong.
    """
    from gatebook.producers.policy.match import Facts, explain

    found = read_policy(_the_one(file, named))
    word = "" if claimed else answered or given["model"]
    facts = Facts(is_tenant_claimed=claimed, **{**given, "answered": word})  # type: ignore[arg-type]  # all of them are texts
    steps, decision = list(explain(found, facts)), found.decide(facts)
    if as_json:
        print_json({"steps": steps, "decision": _told(decision)})
        return
    for step in steps:
        if step.verdict == "yes":
            click.echo(f"{step.rule}: matches, {step.level}")
        else:
            has = " or ".join(filter(None, step.found)) or "not known"
            wanted = " or ".join(step.wanted)
            click.echo(f"{step.rule}: no, {step.because} is {has}, it wants {wanted}")
    _print_decision(decision, steps[-1].level)


def _the_one(file: Path | None, named: Path | None) -> Path:
    """The policy file: FILE, --policy, or the variable's."""
    if file and named:
        raise click.UsageError("FILE and --policy are the same; give one of them")
    set_here = os.environ.get(VARIABLE)
    found = file or named or (Path(set_here) if set_here else None)
    if found is None:
        raise click.UsageError(f"which policy? Give its FILE, or set {VARIABLE}")
    return found


def _print_decision(decision: Decision, said: str) -> None:
    click.echo(f"-> {decision.level}, by rule {decision.rule}")
    if decision.level != said:
        click.echo("   held back: what only the caller says adds no content and hides nobody")
    if decision.data_class:
        click.echo(f"   data class {decision.data_class}")
    for name, action in decision.actions.items():
        click.echo(f"   {name}: {action}")
    for layer, name in decision.retention.items():
        click.echo(f"   retention of {layer}: {name}")


def _told(decision: Decision) -> dict[str, Any]:
    return {
        **decision.capture,
        "retention": decision.retention,
        "fields": decision.actions,
    }


# --- dry-run -----------------------------------------------------------------------------------


@policy.command("dry-run")
@file_argument
@click.option("--since", default="7d", show_default=True, help="From (15m, 7d, 2026-11-23).")
@click.option("--until", default="", help="Up to, exclusive.")
@click.option(
    "--against",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with this policy, not with what was recorded.",
)
@json_option
def dry_run(file: Path, since: str, until: str, against: Path | None, as_json: bool) -> None:
    """Say what FILE would have changed of the accesses in the index.

    What was recorded at level none is not known. Sizes of content are those of the requests and
    answers, so they are an upper bound. Exit codes: 0 compared; 2 a policy or an option is wrong;
    3 Elasticsearch cannot be reached.
    """
    from gatebook.cli.audited import looked
    from gatebook.producers.policy.compare import compare

    new = read_policy(file)
    old = read_policy(against) if against else None
    looked("policy.dry_run", policy=new.name, since=since, until=until)
    found = compare(new, old, _history(since, until))
    if as_json:
        print_json(found)
    else:
        _print_comparison(found, since)


def _history(since: str, until: str) -> list[Group]:
    from gatebook.cli.policy_history import groups
    from gatebook.processors.config import from_env

    namespace = from_env().namespace

    async def read(connection: Connection) -> list[Group]:
        return [one async for one in groups(connection, namespace, since, until)]

    return run_on_cluster(read)


def _print_comparison(found: Comparison, since: str) -> None:
    changed = found.total - found.unchanged - found.unknown
    click.echo(f"{found.total:,} accesses since {since}: {changed:,} would be captured otherwise")
    for change in found.changes:
        click.echo(f"  {_change(change)}")
        for example in change.examples:
            click.echo(f"      gatebook show {example}")
    if found.unknown:
        click.echo(f"  none -> ?            {found.unknown:>10,}  recorded at none: not known")


def _change(change: Change) -> str:
    move = f"{change.before} -> {change.after}"
    extra = ", other fields or retention" if change.is_fields else ""
    if change.content_bytes:
        less = "less" if change.content_bytes < 0 else "more"
        extra += f", at most {_size(abs(change.content_bytes))} of content {less}"
    return f"{move:<20} {change.count:>10,}  by rule {change.rule}{extra}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


policy.add_command(break_glass)
COMMANDS = [policy]
