"""What the generated codec of the access event calls; see generate_codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gatebook.schemas.avro import Budget, Malformed, decode_varint, encode_varint

MAX_LONG = (1 << 63) - 1
MIN_LONG = -(1 << 63)
SHORT_SIZES = [encode_varint(size) for size in range(64)]


class Unusual(Exception):
    """A value of another class than the usual one: fastavro decides what becomes of it."""


def write_long(out: bytearray, value: Any) -> None:
    """An Avro long."""
    if value.__class__ is not int or not MIN_LONG <= value <= MAX_LONG:
        raise Unusual
    if 0 <= value < 64:
        out.append(value << 1)
    else:
        out += encode_varint(value)


def sized(data: bytes) -> bytes:
    """Avro bytes, or a string's UTF-8: the size, then the data."""
    size = len(data)
    return (SHORT_SIZES[size] if size < 64 else encode_varint(size)) + data


def write_strings(out: bytearray, items: Any) -> None:
    """An Avro array of strings, in one block."""
    if items.__class__ is not list:
        raise Unusual
    if items:
        out += encode_varint(len(items))
        for item in items:
            out += sized(item.encode())
    out.append(0)


def write_map(out: bytearray, items: Any) -> None:
    """An Avro map of strings, in one block."""
    if items.__class__ is not dict:
        raise Unusual
    if items:
        out += encode_varint(len(items))
        for key, value in items.items():
            out += sized(key.encode()) + sized(value.encode())
    out.append(0)


def read_sized(data: bytes, position: int) -> tuple[bytes, int]:
    """Avro bytes and the position after them."""
    size, position = decode_varint(data, position)
    end = position + size
    if size < 0 or end > len(data):
        raise Malformed("a size passes the end")
    return data[position:end], end


def read_text(data: bytes, position: int) -> tuple[str, int]:
    """An Avro string and the position after it."""
    text, position = read_sized(data, position)
    return text.decode(), position


class _Blocks:
    """The blocks of an array or a map: iterate for one turn per item, moving `position` on."""

    def __init__(self, data: bytes, position: int, budget: Budget, values_per_item: int) -> None:
        self.data, self.position, self.budget = data, position, budget
        self.values_per_item = values_per_item

    def __iter__(self) -> Iterator[None]:
        while True:
            count, self.position = decode_varint(self.data, self.position)
            if count == 0:
                return
            end = None
            if count < 0:
                size, self.position = decode_varint(self.data, self.position)
                end = self.position + size
            self.budget.spend(abs(count) * self.values_per_item)
            for _ in range(abs(count)):
                yield
            if end is not None and end != self.position:
                raise Malformed("a block's size does not hold")


def read_strings(data: bytes, position: int, budget: Budget) -> tuple[list[str], int]:
    """An Avro array of strings and the position after it."""
    out: list[str] = []
    if data[position] == 0:
        return out, position + 1
    blocks = _Blocks(data, position, budget, 1)
    for _ in blocks:
        text, blocks.position = read_text(data, blocks.position)
        out.append(text)
    return out, blocks.position


def read_map(data: bytes, position: int, budget: Budget) -> tuple[dict[str, str], int]:
    """An Avro map of strings and the position after it."""
    out: dict[str, str] = {}
    if data[position] == 0:
        return out, position + 1
    blocks = _Blocks(data, position, budget, 3)  # item, key and value, as the walk counts them
    for _ in blocks:
        key, blocks.position = read_text(data, blocks.position)
        out[key], blocks.position = read_text(data, blocks.position)
    return out, blocks.position
