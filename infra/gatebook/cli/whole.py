"""Whether what a command found is all that was taken in, or retention took some of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.processors.retention.missing import Gap
    from gatebook.processors.search.question import Question
    from gatebook.processors.sinks.connection import Connection


async def gaps_of(connection: Connection, namespace: str, question: Question) -> list[Gap] | None:
    """The days of a question of which details are gone, as the API tells them; None where that
    cannot be found out, and of what was restored: it holds whatever was brought back."""
    from gatebook.processors.archive.restore import SUFFIX
    from gatebook.processors.retention.missing import gaps
    from gatebook.processors.search.asking import SearchFailed

    if namespace.endswith(SUFFIX):
        return None
    try:
        return await gaps(connection, namespace, question.kind, question.since, question.until)
    except SearchFailed:
        return None


def detail_of(gaps: list[Gap] | None) -> dict[str, Any]:
    """As JSON, in the API's form; `complete` null: it cannot be found out."""
    thinned = [
        {
            "from": gap.since,
            "to": gap.until,
            "keep_one_in": gap.keep_one_in,
            "all_gone": gap.all_gone,
        }
        for gap in gaps or ()
    ]
    return {"complete": None if gaps is None else not gaps, "thinned": thinned}


def tell_gaps(gaps: list[Gap] | None) -> None:
    """One line on standard error, where not all is there."""
    if gaps is None:
        click.echo("whether this is all that was taken in cannot be told", err=True)
    elif gaps:
        gone = {gap.since[:10] for gap in gaps if gap.all_gone}
        thinned = {gap.since[:10] for gap in gaps} - gone
        parts = (("all details of", gone), ("some of", thinned))
        took = [f"{what} {_days(days)}" for what, days in parts if days]
        click.echo(
            f"not all that was taken in is there: retention took {' and '.join(took)}; "
            "`gatebook summary show` counts accesses from before, too",
            err=True,
        )


def _days(days: set[str]) -> str:
    first, last = min(days), max(days)
    return first if len(days) == 1 else f"{len(days)} days, {first} to {last}"
