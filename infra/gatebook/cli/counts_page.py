"""`gatebook search --histogram` and `--facets`: counts instead of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.processors.search.facets import Facets
    from gatebook.processors.search.histogram import Histogram
    from gatebook.processors.sinks.connection import Connection

BUCKETS = 48
BAR_CHARACTERS = 50
VALUES = 10


async def counted(
    connection: Connection,
    namespace: str,
    query: str,
    kind: str,
    *,
    since: str,
    until: str,
    split_by: str | None,
    facets: str | None,
) -> tuple[Histogram | None, Facets | None]:
    """The histogram where no facets are asked for, else the facets. Raises BadRequest for a field
    that cannot be counted."""
    from gatebook.processors.search.facets import facets as count_values
    from gatebook.processors.search.fields import fields_of
    from gatebook.processors.search.histogram import histogram
    from gatebook.processors.search.question import ask_for, countable

    now, known = datetime.now(UTC), fields_of(kind)
    question = ask_for(query, since, until, kind, now=now)
    if facets is None:
        if split_by is not None:
            countable(split_by, known)
        return await histogram(connection, namespace, question, BUCKETS, split_by, now=now), None
    names = [name.strip() for name in facets.split(",") if name.strip()]
    for name in names:
        countable(name, known)
    if not names:
        raise click.UsageError("--facets needs fields, separated by commas")
    return None, await count_values(connection, namespace, question, names, VALUES)


def print_histogram(found: Histogram, as_json: bool) -> None:
    """A line with a bar for each interval; with a split, its parts."""
    from gatebook.processors.search.display import safe, to_json

    if as_json:
        click.echo(to_json(_histogram_told(found)))
        return
    most = max((bucket.count for bucket in found.buckets), default=0)
    for bucket in found.buckets:
        bar = "#" * -(-BAR_CHARACTERS * bucket.count // max(1, most))
        parts = ", ".join(f"{safe(name, 40)} {n:,}" for name, n in bucket.parts.items())
        at = bucket.at.strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{at}  {bucket.count:>10,}  {bar}{'  ' if parts else ''}{parts}".rstrip())
    seconds = found.interval.total_seconds()
    click.echo(f"{found.total:,} in intervals of {seconds:g} s (UTC)", err=True)


def _histogram_told(found: Histogram) -> dict[str, Any]:
    from gatebook.processors.search.question import stamp

    return {
        "from": found.since,
        "to": found.until,
        "interval_seconds": found.interval.total_seconds(),
        "total": found.total,
        "source": found.source,
        "buckets": [{"at": stamp(b.at), "count": b.count, "parts": b.parts} for b in found.buckets],
    }


def print_facets(found: Facets, as_json: bool) -> None:
    """The values of each field, most frequent first."""
    from gatebook.processors.search.display import render, to_json

    if as_json:
        import msgspec

        click.echo(to_json(msgspec.to_builtins(found)))
        return
    for name, facet in found.facets.items():
        about = "" if facet.exact else "; counts are near enough"
        click.echo(f"{name}  ({facet.distinct:,} values{about})")
        for value, count in facet.values:
            click.echo(f"  {count:>10,}  {render(name, value, 80)}")
        for count, what in ((facet.other, "(other values)"), (facet.missing, "(none)")):
            if count:
                click.echo(f"  {count:>10,}  {what}")
    click.echo(f"of {found.total:,} events", err=True)
