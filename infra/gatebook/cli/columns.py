"""Lists for a terminal: a heading, columns that stand under it, the last one as long as it is."""

from __future__ import annotations

from collections.abc import Sequence

import click

MAX_CELL_CHARACTERS = 60
GAP = "  "


def print_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], widest: int = MAX_CELL_CHARACTERS
) -> None:
    """Print rows of cells under their headings; nothing where there are no rows.

    A cell longer than `widest` characters is cut with a mark, but for the last of a row; an empty
    one reads `-`; what would steer the terminal is shown, not carried out.
    """
    from gatebook.processors.search.display import safe

    if not rows:
        return
    last = len(headings) - 1
    shown = [
        [safe(cell, None if at == last else widest) or "-" for at, cell in enumerate(row)]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(headings, *shown, strict=True)]
    for cells in (headings, *shown):
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        click.echo(GAP.join(padded).rstrip())
