"""`gatebook policy`: check, explain and try out a capture policy; raise a level for a while."""

from __future__ import annotations

import click


@click.group()
def policy() -> None:
    """The capture policy: what is kept of which access."""


COMMANDS = [policy]
