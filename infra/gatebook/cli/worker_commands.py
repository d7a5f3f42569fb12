"""`gatebook worker`: run the processors."""

from __future__ import annotations

import sys

import click

ROLES = ("intake", "index", "detect", "notify")


@click.command()
@click.argument("role", required=False, type=click.Choice(ROLES))
@click.option("--roles", default="", help="Comma-separated roles to supervise (default: all).")
def worker(role: str | None, roles: str) -> None:
    """Run the processors: one ROLE in this process, or all of them supervised.

    To scale, start more of the same role, on as many machines as the topics have partitions.
    """
    from gatebook.processors import logs
    from gatebook.processors.config import from_env
    from gatebook.processors.worker import Supervisor, run_role

    settings = from_env()
    if role:
        sys.exit(run_role(role, settings))
    logs.configure(settings.log_level)
    chosen = [name for name in roles.split(",") if name] or list(ROLES)
    for name in chosen:
        if name not in ROLES:
            raise click.UsageError(f"no role {name!r}; there are {', '.join(ROLES)}")
    sys.exit(Supervisor(chosen, settings).run())


COMMANDS = [worker]
