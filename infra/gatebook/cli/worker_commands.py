"""`gatebook worker`: run the processors."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gatebook.processors.config import WorkerSettings

log = logging.getLogger(__name__)

ROLES = ("intake", "index", "detect", "notify", "reconcile")
EXIT_NOT_YET = 3
KAFKA_TIMEOUT_SECONDS = 5.0


@click.command()
@click.argument("role", required=False, type=click.Choice(ROLES))
@click.option(
    "--roles",
    default="",
    help="Comma-separated roles to supervise (default: all, retention where there is a policy).",
)
def worker(role: str | None, roles: str) -> None:
    """Run the processors: one ROLE in this process, or all of them supervised.

    `reconcile` looks for requests that began and never ended; see `gatebook reconcile`.
    To scale the others, start more of the same role, on as many machines as the topics have
    partitions.

    All of them are `summaries`, too (`gatebook summary run --watch`), and, where there is a
    policy when it starts, `retention` (`gatebook retention run --schedule`): it deletes what the
    policy says. The policy is the file that GATEBOOK_RETENTION_POLICY names, or
    retention-policy.toml in GATEBOOK_HOME; without one nothing is deleted. `--roles` names what
    runs instead. Where the settings of one role are wrong, none is started, and the exit code is 2.
    """
    from gatebook.cli.upkeep import UPKEEP, check, command
    from gatebook.processors import logs
    from gatebook.processors.config import from_env
    from gatebook.processors.worker import Supervisor, check_roles, run_role

    settings = from_env()
    if role:
        sys.exit(run_role(role, settings))
    logs.configure(settings.log_level)
    chosen = [name for name in roles.split(",") if name] or _all_roles()
    for name in chosen:
        if name not in ROLES and name not in UPKEEP:
            known = ", ".join([*ROLES, *UPKEEP])
            raise click.UsageError(f"no role {name!r}; there are {known}")
    check_roles(chosen, settings)
    commands = {name: command(name) for name in chosen if name in UPKEEP}
    for name in commands:
        check(name)
    sys.exit(Supervisor(chosen, settings, commands).run())


def _all_roles() -> list[str]:
    """What runs where nothing is named: what deletes only by a policy that somebody has put
    there."""
    from gatebook.processors.retention.settings import policy_path

    if policy_path() is None:
        log.info("there is no retention policy: nothing is deleted")
        return [*ROLES, "summaries"]
    log.info("there is a retention policy: what it says goes is deleted")
    return [*ROLES, "summaries", "retention"]


@click.command()
@click.option("--once", is_flag=True, help="One pass; the default.")
@click.option("--watch", is_flag=True, help="Pass after pass, until Ctrl-C or SIGTERM.")
def reconcile(once: bool, watch: bool) -> None:
    """Write an `incomplete` event for each intent whose request never ended.

    Such a request was begun (GATEBOOK_INTENTS=on) and its service killed before it ended. Looks
    once, says on standard error how far it is, and then what was found; `gatebook worker` does it
    again and again beside its other roles.

    Exit codes: 0 done, whether or not there were any; 3 it cannot be told yet: Kafka or
    Elasticsearch does not answer, or the workers have not worked off the topics.
    """
    import asyncio

    from gatebook.processors import logs
    from gatebook.processors.config import from_env
    from gatebook.processors.reconcile import PUT_OFF
    from gatebook.processors.worker import make_reconciler, run_role

    if once and watch:
        raise click.UsageError("--once and --watch are two ways; give one of them")
    settings = from_env()
    if watch:
        sys.exit(run_role("reconcile", settings))
    logs.configure(settings.log_level)

    async def run() -> None:
        reconciler = make_reconciler(settings)
        try:
            found = await reconciler.run_once(lambda line: click.echo(line, err=True))
        finally:
            reconciler.stop()  # Ctrl-C: the thread that waits for the workers ends
            await reconciler.close()
        click.echo(f"{found.intents:,} intents are due, {found.incomplete:,} without an end")

    _check_kafka(settings)
    try:
        asyncio.run(run())
    except PUT_OFF as error:
        click.echo(f"gatebook: it cannot be told yet: {error}", err=True)
        sys.exit(EXIT_NOT_YET)


def _check_kafka(settings: WorkerSettings) -> None:
    """Workers wait for a broker that is away; a single pass says so and ends."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from gatebook.processors.config import kafka_properties

    logger = logging.getLogger("gatebook.kafka")
    logger.addHandler(logging.NullHandler())  # what the client says of it is said here
    logger.propagate = False
    client = AdminClient(kafka_properties(settings.kafka_bootstrap), logger=logger)
    try:
        client.list_topics(timeout=KAFKA_TIMEOUT_SECONDS)
    except KafkaException as error:
        click.echo(
            f"gatebook: Kafka does not answer at {settings.kafka_bootstrap} "
            f"({error.args[0].name()}); start it (`gatebook up`), or set GATEBOOK_KAFKA_BOOTSTRAP",
            err=True,
        )
        sys.exit(EXIT_NOT_YET)


COMMANDS = [worker, reconcile]
