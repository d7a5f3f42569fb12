"""`gatebook search --histogram` and `--facets`: counts instead of events, by the same rule as the
service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from gatebook.cli.whole import detail_of, gaps_of

if TYPE_CHECKING:
    from gatebook.processors.retention.missing import Gap
    from gatebook.processors.search.facets import Facets
    from gatebook.processors.search.fields import FieldList
    from gatebook.processors.search.histogram import Histogram, Source
    from gatebook.processors.sinks.connection import Connection

BUCKETS = 48
BAR_CHARACTERS = 50
VALUES = 10
COUNTED_IN: Mapping[Source, str] = {
    "details": "",
    "summaries": ", counted from hourly summaries",
    "both": ", counted from hourly summaries and details",
}


async def counted(
    connection: Connection,
    namespace: str,
    query: str,
    kind: str,
    *,
    since: str,
    until: str,
    is_over_time: bool,
    split_by: str | None,
    facets: str | None,
) -> tuple[Histogram | None, Facets | None, list[Gap] | None]:
    """The histogram and the facets, each where it is asked for, of the same events, by summaries
    where the service would count so; and the days of which details are gone (see gaps_of). Raises
    BadRequest for a field that cannot be counted."""
    from gatebook.processors.search.fields import fields_of
    from gatebook.processors.search.question import ask_for, countable
    from gatebook.processors.search.summed import Counts
    from gatebook.processors.serve.settings import ServeSettings

    now, known = datetime.now(UTC), fields_of(kind)
    question = ask_for(query, since, until, kind, now=now)
    names = [name.strip() for name in (facets or "").split(",") if name.strip()]
    if facets is not None and not names:
        raise click.UsageError("--facets needs fields, separated by commas")
    for name in (*names, *([split_by] if split_by else [])):
        _known(name, known)
        countable(name, known)
    long_range = timedelta(days=ServeSettings.from_env().summaries_after_days)
    gaps = await gaps_of(connection, namespace, question)
    counts = Counts(connection, namespace, now, long_range, is_summed=gaps is not None)
    over_time = values = None
    if is_over_time:
        over_time = await counts.histogram(question, BUCKETS, split_by)
    if names:
        values = await counts.facets(question, names, VALUES)
    return over_time, values, gaps


def of_details(histogram: Histogram | None, facets: Facets | None) -> bool:
    """Whether anything was counted in details alone, of which some may be gone."""
    sources = [histogram.source] if histogram else []
    if facets:
        sources += [facets.source, *(facet.source for facet in facets.facets.values())]
    return "details" in sources


def _known(name: str, known: FieldList) -> None:
    """Raises BadRequest for a field that is none, and says where the fields are listed."""
    from gatebook.processors.search.asking import BadRequest

    if known.type_of(name) is None:
        close = " or ".join(known.close_to(name[:256])) or "`gatebook search --list-fields`"
        raise BadRequest(f"no field is named {name[:80]!a}", f"try {close}")


def print_counts(
    histogram: Histogram | None, facets: Facets | None, gaps: list[Gap] | None, as_json: bool
) -> None:
    """The histogram, then the facets. As JSON one object: of one of them alone, itself; of both,
    each under its name; and `detail`."""
    import msgspec

    from gatebook.processors.search.display import to_json

    if not as_json:
        if histogram is not None:
            _print_histogram(histogram)
        if facets is not None:
            _print_facets(facets)
        return
    told: dict[str, Any] = {}
    if histogram is not None:
        told["histogram"] = _histogram_told(histogram)
    if facets is not None:
        told["facets"] = msgspec.to_builtins(facets)
    found = told if len(told) > 1 else next(iter(told.values()))
    click.echo(to_json({**found, "detail": detail_of(gaps)}))


def _print_histogram(found: Histogram) -> None:
    """A line with a bar for each interval; with a split, its parts."""
    from gatebook.processors.search.display import safe

    most = max((bucket.count for bucket in found.buckets), default=0)
    for bucket in found.buckets:
        bar = "#" * -(-BAR_CHARACTERS * bucket.count // max(1, most))
        parts = ", ".join(f"{safe(name, 40)} {n:,}" for name, n in bucket.parts.items())
        at = bucket.at.strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{at}  {bucket.count:>10,}  {bar}{'  ' if parts else ''}{parts}".rstrip())
    seconds = found.interval.total_seconds()
    whence = COUNTED_IN[found.source]
    click.echo(f"{found.total:,} in intervals of {seconds:g} s (UTC){whence}", err=True)


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


def _print_facets(found: Facets) -> None:
    """The values of each field, most frequent first."""
    from gatebook.processors.search.display import render

    for name, facet in found.facets.items():
        about = "" if facet.exact else "; counts are near enough"
        if facet.source != found.source:
            about += "; counted in the details that are there"
        click.echo(f"{name}  ({facet.distinct:,} values{about})")
        for value, count in facet.values:
            click.echo(f"  {count:>10,}  {render(name, value, 80)}")
        for count, what in ((facet.other, "(other values)"), (facet.missing, "(none)")):
            if count:
                click.echo(f"  {count:>10,}  {what}")
    click.echo(f"of {found.total:,} events{COUNTED_IN[found.source]}", err=True)
