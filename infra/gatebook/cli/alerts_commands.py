"""`gatebook alerts`: try a target, and see what is told to whom."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.columns import MAX_CELL_CHARACTERS, print_columns
from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from gatebook.processors.alerts.base import AlertTarget
    from gatebook.processors.alerts.desk import Desk
    from gatebook.processors.alerts.http import FailedAttempt
    from gatebook.processors.alerts.incidents import Incident, Owed
    from gatebook.processors.alerts.plan import Plan

EXIT_FAILED = 1
EXIT_NO_KAFKA = 3
KAFKA_TIMEOUT_SECONDS = 5.0
NANOSECONDS = 1_000_000_000
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class KafkaAway(GatebookError):
    """The brokers of the settings do not answer, or do not let us in."""

    exit_code = EXIT_NO_KAFKA
    next_step = "start it (`gatebook up`), or set GATEBOOK_KAFKA_BOOTSTRAP"

    def __init__(self, bootstrap: str, code: str) -> None:
        super().__init__(f"Kafka does not answer at {bootstrap} ({code})")


@click.group("alerts")
def alerts() -> None:
    """Try alert targets, and list what is open."""


@alerts.command("test")
@click.argument("target", required=False)
@click.option(
    "--timeout-seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=15.0,
    show_default=True,
    help="Give up after so long, for each of the two.",
)
@json_option
def test_command(target: str | None, timeout_seconds: float, as_json: bool) -> None:
    """Send a test alert to TARGET, then its end, and say what came back.

    Somebody may be called: the alert is real, of severity info. Attempts that fail are told as
    they happen; an alert that does not get through is not ended. Without TARGET the targets are
    listed. Exit codes: 0 both were accepted, 1 one was not, 2 there is no such target.
    """
    plan = _plan(timeout_seconds)
    if target is None:
        _list_targets(plan, as_json)
        return
    if target not in plan.targets:
        known = ", ".join(plan.targets) or "none; see GATEBOOK_ALERTS_FILE"
        raise click.UsageError(f"no target {target!r}; there are: {known}")
    deliveries = asyncio.run(_try(plan.targets[target], quiet=as_json))
    if as_json:
        _print_json(deliveries)
    if any(delivery["outcome"] != "success" for delivery in deliveries.values()):
        sys.exit(EXIT_FAILED)


def _told(delivery: dict[str, Any]) -> str:
    status = delivery["status_code"]
    parts = [
        "accepted" if delivery["outcome"] == "success" else f"failed: {delivery['reason']}",
        delivery["detail"],
        f"status {status}" if status else "",
        f"{delivery['attempts']} attempts" if delivery["attempts"] != 1 else "",
        f"{delivery['duration_ns'] / 1e6:.0f} ms",
    ]
    return ", ".join(part for part in parts if part)


async def _try(target: AlertTarget, quiet: bool) -> dict[str, dict[str, Any]]:
    """Both steps, the second only where the first got through; told as they come."""
    import msgspec

    found: dict[str, dict[str, Any]] = {}
    try:
        for step in ("firing", "resolved"):
            _watch(target, step)
            delivery = await target.deliver(example_finding(step))
            found[step] = msgspec.to_builtins(delivery)
            if not quiet:
                click.echo(f"{target.name}: {step:<8} {_told(found[step])}")
            if delivery.outcome != "success":
                break
    finally:
        await target.close()
    return found


def _watch(target: AlertTarget, step: str) -> None:
    """Tell attempts that fail on standard error, where the target makes several."""
    from gatebook.processors.alerts.http import HttpTarget

    def tell(failed: FailedAttempt) -> None:
        status = f", status {failed.status_code}" if failed.status_code else ""
        click.echo(
            f"{target.name}: {step:<8} attempt {failed.number} failed: {failed.reason}{status}; "
            f"the next in {failed.pause_seconds:.1f} s",
            err=True,
        )

    if isinstance(target, HttpTarget):
        target.on_failed_attempt = tell


def example_finding(step: str) -> dict[str, Any]:
    """A finding that says it is a test, as of now."""
    from uuid import uuid4

    from gatebook.schemas.codec import decode, encode

    now_ns = time.time_ns()
    record = {
        "timestamp": now_ns,
        "event": {
            "id": str(uuid4()),
            "kind": "alert",
            "action": step,
            "reason": "This is a test by `gatebook alerts test`; nothing happened.",
            "start": now_ns,
            "end": now_ns,
        },
        "rule": {"id": "alerts_test", "name": "Test of an alert target"},
        "gatebook": {
            "severity": "info",
            "principal": "gatebook",
            "dedup_key": "alerts_test|gatebook",
            "incident": "alerts_test",
            "search": "rule.id:alerts_test",
        },
    }
    return decode("finding.v2", encode("finding.v2", record))


def _list_targets(plan: Plan, as_json: bool) -> None:
    rows = [{"name": name, "type": target.type} for name, target in plan.targets.items()]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']:<24} {row['type']}")
    if not rows:
        click.echo("no target; see GATEBOOK_ALERTS_FILE", err=True)


@alerts.command("list")
@click.option("--all", "show_all", is_flag=True, help="Those that are over, too.")
@json_option
def list_command(show_all: bool, as_json: bool) -> None:
    """List open problems: what was made of each, and what its targets know.

    Read from the state topic of the notify workers. Exit codes: 0 there are some, 1 there are
    none, 3 Kafka cannot be reached.
    """
    from gatebook.cli.audited import looked

    looked("alert.list", state="all" if show_all else "open")
    desks = _desks()
    rows = [_row(i) for desk in desks for i in desk.incidents.values() if show_all or not i.is_over]
    rows.sort(key=lambda row: row["since"], reverse=True)
    quiet = [
        {"dedup_key": key, "verdict": v.verdict, "until": _time(v.until_ns), "kept": v.kept_quiet}
        for desk in desks
        for key, v in desk.verdicts.items()
    ]
    if as_json:
        _print_json({"problems": rows, "quiet": quiet})
    else:
        _print_rows(rows)
        _print_quiet(quiet)
    sys.exit(0 if rows else EXIT_FAILED)


def _desks() -> list[Desk]:
    """The desks of all partitions, as they are stored."""
    from confluent_kafka import KafkaException

    from gatebook.processors.alerts.desk import Desk
    from gatebook.processors.alerts.statelog import partitions_of, read_to_end, reader
    from gatebook.processors.config import from_env, kafka_properties
    from gatebook.schemas.errors import Fatal
    from gatebook.schemas.topics import NOTIFY_STATE, topic_name

    settings, plan = from_env(), _plan()
    topic = topic_name(settings.namespace, NOTIFY_STATE)
    logger = logging.getLogger("gatebook.kafka")
    logger.addHandler(logging.NullHandler())  # what the client says of it is said here
    logger.propagate = False
    properties = {**kafka_properties(settings.kafka_bootstrap), "logger": logger}
    client = reader(properties, f"{settings.namespace}-alerts-list")
    desks = []
    try:
        count = partitions_of(client, topic, KAFKA_TIMEOUT_SECONDS)
        if not count:
            raise Fatal(f"topic {topic} does not exist", "run `gatebook setup`")
        for partition in range(count):
            desk = Desk(plan, partition, count)
            desk.load(read_to_end(client, topic, partition))
            desks.append(desk)
    except KafkaException as error:
        raise KafkaAway(settings.kafka_bootstrap, error.args[0].name()) from None
    finally:
        client.close()
    return desks


def _row(incident: Incident) -> dict[str, Any]:
    finding = incident.finding
    return {
        "since": _time(incident.first_ns),
        "severity": incident.severity,
        "state": incident.state,
        "made": incident.way,
        "kind": incident.kind,
        "rule": finding["rule"]["id"],
        "team": incident.team,
        "principal": finding["gatebook"]["principal"],
        "occurrences": incident.members if incident.kind == "group" else incident.occurrences,
        "incident": incident.incident,
        "dedup_key": finding["gatebook"]["dedup_key"],
        "reason": finding["event"]["reason"],
        "targets": {name: _knows(owed) for name, owed in incident.owed.items()},
    }


def _knows(owed: Owed) -> str:
    if owed.failed:
        return f"failing since {_time(owed.since_ns)}"
    return owed.has or "not told yet"


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // NANOSECONDS))


def _print_rows(rows: list[dict[str, Any]]) -> None:
    print_columns(
        ("since", "severity", "state", "made", "rule", "times", "targets", "reason"),
        [_cells(row) for row in rows],
    )
    if not rows:
        click.echo("nothing is open", err=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    targets = ", ".join(f"{name}: {knows}" for name, knows in row["targets"].items())
    return (
        row["since"],
        row["severity"],
        row["state"],
        row["made"],
        row["rule"],
        str(row["occurrences"]),
        targets,
        row["reason"],
    )


def _print_quiet(quiet: list[dict[str, Any]]) -> None:
    from gatebook.processors.search.display import safe

    if quiet:
        click.echo("kept quiet by a verdict:")
    for row in quiet:
        key = safe(row["dedup_key"], MAX_CELL_CHARACTERS)
        click.echo(f"  {key}  {row['verdict']} until {row['until']}, {row['kept']} findings since")


def _plan(deadline_seconds: float | None = None) -> Plan:
    """The plan in force; with another deadline for a delivery where one is given."""
    from gatebook.processors.alerts.plan import load_plan
    from gatebook.processors.alerts.settings import load_alert_settings
    from gatebook.processors.config import from_env, kafka_properties

    known: dict[str, Any] = (
        {} if deadline_seconds is None else {"alert_deadline_seconds": deadline_seconds}
    )
    settings = load_alert_settings(**known)
    return load_plan(settings, kafka=kafka_properties(from_env().kafka_bootstrap))


def _print_json(value: Any) -> None:
    from gatebook.processors.search.display import to_json

    click.echo(to_json(value, indent=2))


COMMANDS = [alerts]
