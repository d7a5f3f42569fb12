"""Avro's bytes, walked without building anything: what makes a hostile message cheap to refuse.

fastavro trusts the counts and sizes it reads, and takes overlong numbers and block sizes that do
not hold. So every payload is walked first, within a budget of values; only what holds is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_VARINT_BYTES = 10
INT_RANGE = range(-(1 << 31), 1 << 31)


class Malformed(ValueError):
    """These bytes are not what the schema says. The text tells what, never the content."""


class Budget:
    """How many values may still be read. A field, an item and a map's key are one each."""

    def __init__(self, values: int) -> None:
        self.values = values

    def spend(self, values: int) -> None:
        self.values -= values
        if self.values < 0:
            raise Malformed("too many values")


# Walks over one value: bytes, position, budget -> position after it.
Skip = Callable[[bytes, int, Budget], int]


def encode_varint(value: int) -> bytes:
    """Avro long: zigzag, then base 128, least significant first."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag & ~0x7F:
        out.append((zigzag & 0x7F) | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """An Avro long at `position`, and the position after it. Malformed if overlong or cut."""
    if position < len(data) and data[position] < 0x80:
        return (data[position] >> 1) ^ -(data[position] & 1), position + 1
    zigzag = shift = 0
    for index in range(position, min(position + MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        zigzag |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if (byte == 0 and index > position) or zigzag >= 1 << 64:
                raise Malformed("overlong number")
            return (zigzag >> 1) ^ -(zigzag & 1), index + 1
        shift += 7
    raise Malformed("cut or overlong number")


def compile_skip(kind: Any) -> Skip:
    """The walk over a value of an Avro type; the type is self-contained and not recursive."""
    if isinstance(kind, list):
        return _union([compile_skip(branch) for branch in kind])
    if isinstance(kind, str):
        return PRIMITIVES[kind]
    if kind["type"] == "record":
        return _record([compile_skip(field["type"]) for field in kind["fields"]])
    if kind["type"] == "map":
        return _blocks(_record([_sized, compile_skip(kind["values"])]))
    if kind["type"] == "array":
        return _blocks(compile_skip(kind["items"]))
    return compile_skip(kind["type"])


def _record(fields: Sequence[Skip]) -> Skip:
    def skip(data: bytes, position: int, budget: Budget) -> int:
        budget.spend(len(fields))
        for field in fields:
            position = field(data, position, budget)
        return position

    return skip


def _union(branches: Sequence[Skip]) -> Skip:
    def skip(data: bytes, position: int, budget: Budget) -> int:
        index, position = decode_varint(data, position)
        if not 0 <= index < len(branches):
            raise Malformed("no such branch of a union")
        return branches[index](data, position, budget)

    return skip


def _blocks(item: Skip) -> Skip:
    def skip(data: bytes, position: int, budget: Budget) -> int:
        while True:
            count, position = decode_varint(data, position)
            if count == 0:
                return position
            end = None
            if count < 0:
                size, position = decode_varint(data, position)
                end = position + size
            budget.spend(abs(count))
            for _ in range(abs(count)):
                position = item(data, position, budget)
            if end is not None and end != position:
                raise Malformed("a block's size does not hold")

    return skip


def _sized(data: bytes, position: int, budget: Budget) -> int:
    size, position = decode_varint(data, position)
    if size < 0 or position + size > len(data):
        raise Malformed("a size passes the end")
    return position + size


def _long(data: bytes, position: int, budget: Budget) -> int:
    return decode_varint(data, position)[1]


def _int(data: bytes, position: int, budget: Budget) -> int:
    value, position = decode_varint(data, position)
    if value not in INT_RANGE:
        raise Malformed("an int beyond 32 bits")
    return position


def _double(data: bytes, position: int, budget: Budget) -> int:
    if position + 8 > len(data):
        raise Malformed("cut number")
    return position + 8


def _boolean(data: bytes, position: int, budget: Budget) -> int:
    if position >= len(data) or data[position] > 1:
        raise Malformed("neither true nor false")
    return position + 1


def _null(data: bytes, position: int, budget: Budget) -> int:
    return position


PRIMITIVES: dict[str, Skip] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "double": _double,
    "string": _sized,
    "bytes": _sized,
}
