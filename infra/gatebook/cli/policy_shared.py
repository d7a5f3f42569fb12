"""What the commands of `gatebook policy` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.producers.policy.match import Policy

VARIABLE = "GATEBOOK_CAPTURE_POLICY"

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
policy_option = click.option(
    "--policy",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=VARIABLE,
    required=True,
    help=f"The policy file. [default: {VARIABLE}]",
)


def read_policy(path: Path) -> Policy:
    """The policy in a file. Raises PolicyInvalid, which names the file."""
    from gatebook.producers.policy.document import PolicyInvalid
    from gatebook.producers.policy.match import Policy

    try:
        return Policy.read(path.read_bytes())
    except OSError as error:
        raise PolicyInvalid("unreadable", f"{path}: {error.strerror}") from None
    except PolicyInvalid as error:
        raise PolicyInvalid(error.code, f"{path}: {error}") from None


def matches(patterns: Mapping[str, tuple[str, ...]]) -> str:
    told = [f"{name} {' or '.join(some)}" for name, some in patterns.items()]
    return ", ".join(told) or "everything"


def print_json(found: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
