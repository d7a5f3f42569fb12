"""What `gatebook doctor` looks at in alert targets."""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.engines.check import Check
from gatebook.schemas.errors import Fatal


def check_alert_targets() -> Iterator[Check]:
    """Whether the secrets that alert targets refer to can be read here, and are such. Their values
    are not shown."""
    try:
        from gatebook.cli.alerts_commands import example_finding
        from gatebook.processors.alerts.http import HttpTarget
        from gatebook.processors.alerts.plan import load_plan
        from gatebook.processors.alerts.secrets import SecretUnreadable

        plan = load_plan()
    except (Fatal, ModuleNotFoundError):
        return  # said by the row of the settings, or of the extra
    targets = [target for target in plan.targets.values() if isinstance(target, HttpTarget)]
    for target in targets:
        name = f"alert target {target.name}"
        try:
            target.check(example_finding("firing"))
        except SecretUnreadable as error:
            yield Check(
                name=name,
                verdict="fail",
                detail=str(error),
                next_step="set it where notify runs; it is read anew for each alert",
            )
        except Fatal as error:
            yield Check(name=name, verdict="fail", detail=str(error), next_step=error.next_step)
        else:
            yield Check(name=name, verdict="ok", detail="its secrets and its URL can be used")
