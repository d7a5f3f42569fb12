"""`python -m gatebook.cli.upkeep ROLE`: what `gatebook worker` starts beside its workers.

It is the command of the same work, and ends when whoever started it is gone.
"""

from __future__ import annotations

import sys

UPKEEP = {
    "summaries": ("summary", "run", "--watch"),
    "retention": ("retention", "run", "--schedule"),
}


def command(role: str) -> tuple[str, ...]:
    """How the supervisor starts a role of UPKEEP."""
    return (sys.executable, "-m", "gatebook.cli.upkeep", role)


def check(role: str) -> None:
    """Raises Fatal where a role cannot run: retention without a policy deletes nothing, and would
    be started anew for ever."""
    if role != "retention":
        return
    from gatebook.processors.retention.policy import Policy
    from gatebook.processors.retention.settings import policy_path
    from gatebook.schemas.errors import WrongSetting

    path = policy_path()
    if path is None:
        raise WrongSetting(
            "worker retention: there is no policy",
            "set GATEBOOK_RETENTION_POLICY to its file, or put it into GATEBOOK_HOME as "
            "retention-policy.toml",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WrongSetting(
            f"worker retention: the policy cannot be read ({type(error).__name__})",
            "set GATEBOOK_RETENTION_POLICY to its file",
        ) from None
    Policy.read(data)


def run(role: str) -> None:
    """The command of a role, until told to stop."""
    from gatebook.cli.main import main
    from gatebook.processors.ending import end_with_parent

    end_with_parent()
    main([*UPKEEP[role]])


if __name__ == "__main__":
    run(sys.argv[1])
