"""`gatebook worker`: run the processors."""

from __future__ import annotations

import sys

import click

ROLES = ("intake", "index", "detect", "notify", "reconcile")
EXIT_NOT_YET = 3


@click.command()
@click.argument("role", required=False, type=click.Choice(ROLES))
@click.option("--roles", default="", help="Comma-separated roles to supervise (default: all).")
def worker(role: str | None, roles: str) -> None:
    """Run the processors: one ROLE in this process, or all of them supervised.

    `reconcile` looks for requests that began and never ended; see `gatebook reconcile`.
    To scale the others, start more of the same role, on as many machines as the topics have
    partitions. `--roles` takes `summaries` and `retention`, too (`gatebook summary run --watch`,
    `gatebook retention run --schedule`): they run only where they are named, and retention only
    with a policy. Where the settings of one role are wrong, none is started, and the exit code is
    2.
    """
    from gatebook.cli.upkeep import UPKEEP, check, command
    from gatebook.processors import logs
    from gatebook.processors.config import from_env
    from gatebook.processors.worker import Supervisor, check_roles, run_role

    settings = from_env()
    if role:
        sys.exit(run_role(role, settings))
    logs.configure(settings.log_level)
    chosen = [name for name in roles.split(",") if name] or list(ROLES)
    for name in chosen:
        if name not in ROLES and name not in UPKEEP:
            known = ", ".join([*ROLES, *UPKEEP])
            raise click.UsageError(f"no role {name!r}; there are {known}")
    check_roles(chosen, settings)
    commands = {name: command(name) for name in chosen if name in UPKEEP}
    for name in commands:
        check(name)
    sys.exit(Supervisor(chosen, settings, commands).run())


@click.command()
@click.option("--once", is_flag=True, help="Look once, say what was found, and end.")
def reconcile(once: bool) -> None:
    """Write an `incomplete` event for each intent whose request never ended.

    Such a request was begun (GATEBOOK_INTENTS=on) and its service killed before it ended. With
    --once the exit code is 0 whether or not there were any, 3 where it cannot be told yet.
    """
    import asyncio

    from gatebook.processors import logs
    from gatebook.processors.config import from_env
    from gatebook.processors.reconcile import PUT_OFF
    from gatebook.processors.worker import make_reconciler, run_role

    settings = from_env()
    if not once:
        sys.exit(run_role("reconcile", settings))
    logs.configure(settings.log_level)

    async def run() -> None:
        reconciler = make_reconciler(settings)
        try:
            found = await reconciler.run_once()
        finally:
            await reconciler.close()
        click.echo(f"{found.intents:,} intents are due, {found.incomplete:,} without an end")

    try:
        asyncio.run(run())
    except PUT_OFF as error:
        click.echo(f"gatebook: it cannot be told yet: {error}", err=True)
        sys.exit(EXIT_NOT_YET)


COMMANDS = [worker, reconcile]
