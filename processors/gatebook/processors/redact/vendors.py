"""Validators of the vendor tables: tokens that announce themselves, values that a name tells."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .assigned import is_identifier, is_random_token, is_unspeakable
from .probe import Found, Probe, entropy_bits, is_drawn, is_filled, is_variable, plain
from .tables import Token, tokens_by_keyword, vendors_by_name

MAX_TOKEN_BYTES = 4_200
_BEFORE_BYTES = 96
_EQUALS = ord("=")
_TAIL = re.compile(rb"[A-Za-z0-9_\-]{0,4096}")
_EDGE_BYTES = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"  # a word goes on here
)
_GLUE_BYTES = _EDGE_BYTES | frozenset(b"_-+/=")


def vendor_token(probe: Probe) -> Iterator[Found]:
    """Accept a token of the table that begins at this keyword."""
    data, start = probe.data, probe.start
    for token in tokens_by_keyword(probe.rule.id)[data[start : probe.end].lower()]:
        match = token.match(data, start, min(len(data), start + MAX_TOKEN_BYTES))
        if match is None:
            continue
        begin, end = match.span(match.lastindex or 0)
        if token.before:
            left = token.before.search(data, max(0, start - _BEFORE_BYTES), start)
            if left is None:
                continue
            begin = left.start()
        found = _bounded(token, data, begin, end)
        if found:
            yield found
            return


def _bounded(token: Token, data: bytes, begin: int, end: int) -> Found | None:
    """The token with what is glued to its end, or nothing where it is part of a longer word."""
    if not token.distinct and begin and data[begin - 1] in _EDGE_BYTES:
        return None
    tail = _TAIL.match(data, end)
    if tail and tail.end() > end:
        if not token.distinct:
            return None
        end = tail.end()
    value = data[begin:end]
    if not is_drawn(value[:256], token.entry.bits) or is_filled(value):
        return None
    return Found(begin, end, plain(value))


# `_key`, ` api token`; then quotes; then an operator; then quotes again.
_ASSIGN = re.compile(
    rb"""[ \t\w.\-]{0,24}?["'\]\s]{0,3}(?:=>|:{0,3}=|\?=|\|\||:|>|,|\(|\bis\b)[\x60'"\s=]{0,5}"""
)
_VALUE = re.compile(rb"[A-Za-z0-9_\-=.+/%:~@|]{8,300}")


def vendor_assigned(probe: Probe) -> Iterator[Found]:
    """Accept a value of a vendor's size after its name and an operator."""
    assign = _ASSIGN.match(probe.data, probe.end)
    if assign is None or not _is_named(probe):
        return
    value = _VALUE.match(probe.data, assign.end())
    if value is None:
        return
    probe.budget.spend(2)
    vendor = vendors_by_name(probe.rule.id)[probe.data[probe.start : probe.end].lower()]
    for start, stop in _extents(probe.data, *value.span()):
        if vendor.value.fullmatch(probe.data, start, stop):
            if _random(probe.data[start:stop]):
                yield Found(start, stop, plain(probe.data[start:stop]))
            return
    start, stop = value.span()
    if _is_drawn_of_any_size(probe.data[start:stop]):
        yield Found(start, stop, plain(probe.data[start:stop]))


_ANY_SIZE = re.compile(rb"(?=.{0,60}[a-z])(?=.{0,60}[A-Z])(?=.{0,60}[0-9])[A-Za-z0-9_\-+=]{20,300}")


def _is_drawn_of_any_size(value: bytes) -> bool:
    """Vendors change their sizes: what is made of three kinds of characters by chance counts."""
    return _ANY_SIZE.fullmatch(value) is not None and is_random_token(value, 3.5)


def _extents(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The value as it was read, without the stop of a sentence, with `=` of its own before it."""
    yield start, end
    yield start, end - len(data[start:end]) + len(data[start:end].rstrip(b".:"))
    while start > 0 and data[start - 1] == _EQUALS:
        start -= 1
        yield start, end


_SURE_NAME_BYTES = 7


def _is_named(probe: Probe) -> bool:
    """Tell a short name from chance: `meraki` is not in `CameraKit`, nor `sumo` in `sumOf`."""
    name = probe.value
    if len(name) >= _SURE_NAME_BYTES:
        return True
    before = probe.data[max(0, probe.start - 1) : probe.start]
    if name.islower():
        return not before.isalpha()
    return not before.isupper() if name.isupper() else name[:1].isupper() and name[1:].islower()


def _random(value: bytes) -> bool:
    drawn = re.search(rb"[0-9:]", value) is not None or (
        is_unspeakable(value, least_run=4, most_vowels=0.3)
        if value.islower() or value.isupper()
        else not is_identifier(value)
    )
    return drawn and entropy_bits(value) > 2.0 and not is_variable(value)
