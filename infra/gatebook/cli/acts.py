"""Options that acts on what is kept have in common: why, and the id of a hold."""

from __future__ import annotations

import re

import click

from gatebook.schemas.reason_text import wrong_reason

_HOLD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def stated(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The reason as it was given; wrong usage where it says nothing."""
    if wrong := wrong_reason(value):
        raise click.BadParameter(f"{wrong}; it stands in the recorded event")
    return value


def stated_if_given(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """The same for a reason that need not be given; empty then."""
    return stated(ctx, param, value) if value else ""


def named(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The id of a new hold, empty where none was given; wrong usage for one that cannot be told
    from others, or that does not survive an address."""
    if value and not _HOLD_ID.fullmatch(value):
        raise click.BadParameter("write up to 128 letters, digits, '-', '_', '.' and ':'")
    return value


reason_option = click.option(
    "--reason", required=True, callback=stated, help="Why; stands in the recorded event."
)
hold_id_option = click.option(
    "--hold-id", default="", callback=named, help="An id of yours, such as a case number."
)
