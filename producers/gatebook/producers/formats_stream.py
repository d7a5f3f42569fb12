"""Streams taken apart: server-sent events and a JSON object a line. Pure: bytes in, JSON out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gatebook.producers.values import parse_json

END_MARK = b"[DONE]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DATA = (b"data:", b"error:")  # llama.cpp used the latter for errors within a stream
_UNREADABLE = object()


def stream_values(data: bytes) -> Iterator[Any]:
    """The JSON values of a run of a stream, in order; None for `[DONE]`.

    Lines end in LF, CRLF or CR. Comments and other fields of server-sent events are passed over,
    and so is a line that is cut.
    """
    held: list[bytes] = []  # data lines of the event that is not over yet
    for line in data.removeprefix(_BYTE_ORDER_MARK).splitlines():
        if line.startswith(_DATA):
            held.append(line.partition(b":")[2].strip())
        elif not line.strip():
            yield from _event_values(held)
            held = []
        elif line.startswith(b"{"):
            yield from _event_values([line])
        elif line == END_MARK:
            yield None
    yield from _event_values(held)


def _event_values(lines: list[bytes]) -> Iterator[Any]:
    """The values of one event: one a line, as most services write them, or one over all lines, as
    the standard allows."""
    values = [_value(line) for line in lines]
    if len(lines) > 1 and _UNREADABLE in values:
        whole = _value(b"\n".join(lines))
        values = [whole] if whole is not _UNREADABLE else values
    yield from (value for value in values if value is not _UNREADABLE)


def _value(line: bytes) -> Any:
    if line == END_MARK:
        return None
    found = parse_json(line) if line.startswith(b"{") else None
    return _UNREADABLE if found is None else found


def values_of(parts: Iterable[bytes]) -> Iterator[Any]:
    """`stream_values` of runs between which something may be missing."""
    for part in parts:
        yield from stream_values(part)
