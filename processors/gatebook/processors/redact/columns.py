"""Passwords in a column of a table: CSV, tabs, Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from .passwords import is_mixed
from .probe import Found, Probe, plain

_HEADER_BYTES = 400
_ROWS = 400
_ROW_BYTES = 1000
_UNIT_BYTES = 64
_DELIMITERS = (b"|", b"\t", b";", b",")
# What may stand around the name of a column, within its cell.
_CELL_LEFT = re.compile(
    rb"""(?:\A|[\n|\t;,])[ \t]{0,8}["'*`]{0,3}(?:[A-Za-z0-9]{1,16}[ _\-]){0,2}\Z"""
)
_CELL_RIGHT = re.compile(rb"""s?["'*`]{0,3}[ \t]{0,24}(?:[|\t;,\r\n]|\Z)""")
_NAMES = re.compile(
    rb"""(?:[\w .\-/#()"'*`\x80-\xff]{0,32}[|\t;,]){1,40}[\w .\-/#()"'*`\x80-\xff]{0,32}"""
)
_PROSE = re.compile(rb"\w [\w ]*,|, [\w\-]+ \w")
"""A comma and a space between more than single words: a sentence."""
_RULE = re.compile(rb"[|\-: +=\t]{3,}")
_FRAME = b" \t\"'*`"


def password_column(probe: Probe) -> Iterator[Found]:
    """Accept what stands below a cell that is called a password, in rows of as many cells."""
    header = _header(probe)
    if header is None:
        return
    delimiter, column, cells, end = header
    for number in range(_ROWS):
        start = end + 1
        end = _line_end(probe.data, start)
        row = probe.data[start:end]
        probe.budget.spend(1 + len(row) // _UNIT_BYTES)
        if not row or len(row) > _ROW_BYTES:
            return
        if _RULE.fullmatch(row.strip()):
            continue
        if delimiter == b"|" and number == 0:
            return  # Markdown has a rule below its header: this is a row like others
        spans = _cells(delimiter).findall(row)
        if len(spans) != cells:
            return
        found = _found(start + sum(len(cell) + 1 for cell in spans[:column]), spans[column])
        if found:
            yield found


def _header(probe: Probe) -> tuple[bytes, int, int, int] | None:
    """The delimiter of a table's first line, the column, how many there are, the line's end."""
    data, start = probe.data, probe.start
    if not _CELL_RIGHT.match(data, probe.end):
        return None
    first = data.rfind(b"\n", max(0, start - _HEADER_BYTES), start) + 1
    if not first and start > _HEADER_BYTES:
        return None
    last = _line_end(data, probe.end)
    line = data[first:last]
    delimiter = next((mark for mark in _DELIMITERS if mark in line), b"")
    if not (delimiter and len(line) < _HEADER_BYTES and _CELL_LEFT.search(data[first:start])):
        return None
    cells = line.count(delimiter) + 1
    if b", " in line and _PROSE.search(line):
        return None
    if not _NAMES.fullmatch(line.strip()) or _goes_before(data, first, delimiter, cells):
        return None
    return delimiter, data.count(delimiter, first, start), cells, last


def _goes_before(data: bytes, first: int, delimiter: bytes, cells: int) -> bool:
    """A line of as many cells stands above: the table begins further up."""
    above = data.rfind(b"\n", max(0, first - _ROW_BYTES), max(0, first - 1)) + 1
    return data.count(delimiter, above, max(0, first - 1)) + 1 == cells


def _line_end(data: bytes, start: int) -> int:
    end = data.find(b"\n", start, start + _ROW_BYTES + 1)
    return end if end >= 0 else min(len(data), start + _ROW_BYTES + 1)


@lru_cache(maxsize=8)
def _cells(delimiter: bytes) -> re.Pattern[bytes]:
    """What reads the cells of a row one after the other, quoted ones whole."""
    mark = re.escape(delimiter)
    return re.compile(rb"(?:\A|(?<=" + mark + rb'))(?:[ ]{0,4}"[^"]*"[ ]{0,4}|[^' + mark + rb"]*)")


def _found(start: int, cell: bytes) -> Found | None:
    value = cell.strip(_FRAME + b"\r")
    if len(value) < 4 or b" " in value or not is_mixed(value):
        return None
    start += len(cell) - len(cell.lstrip(_FRAME))
    return Found(start, start + len(value), plain(value))
