"""Avro object container files: any Avro reader reads them, and ours trusts nothing in them.

Our reader takes no schema from a file (a recursive one could crash the decoder): a file whose
schema is not ours is refused. What a block unpacks to is bounded.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

import cramjam
import fastavro

from gatebook.processors.archive.errors import Differs
from gatebook.processors.archive.records import Record
from gatebook.processors.archive.store import Digested

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
BLOCK_BYTES = 256 * 1024
MAX_BLOCK_BYTES = 128 * 1024 * 1024
MAX_HEADER_ENTRIES = 16
MAX_HEADER_VALUE_BYTES = 64 * 1024
DEFLATE_LEVEL = 6
ZSTD_LEVEL = 6
SCHEMA = {
    "type": "record",
    "name": "ArchivedDocument",
    "namespace": "gatebook.archive",
    "doc": "One document of the index. gatebook-archive/1",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "timestamp_ns", "type": "long", "doc": "Nanoseconds since 1970, UTC"},
        {"name": "hash", "type": "string", "doc": "event.hash"},
        {"name": "left_out", "type": {"type": "array", "items": "string"}},
        {"name": "document", "type": "string", "doc": "Canonical JSON"},
    ],
}
SCHEMA_TEXT = json.dumps(SCHEMA, sort_keys=True)
_PARSED = fastavro.parse_schema(SCHEMA)
_LONG = "long"


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _inflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(-15)
    found = unpacker.decompress(data, MAX_BLOCK_BYTES)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("too large, or cut")
    return found


def _zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data, ZSTD_LEVEL))


def _unzstd(data: bytes) -> bytes:
    for size in (4 * BLOCK_BYTES, 64 * BLOCK_BYTES):
        with suppress(cramjam.DecompressionError):  # too little room, most likely
            return _unpacked_into(data, min(size, MAX_BLOCK_BYTES))
    return _unpacked_into(data, MAX_BLOCK_BYTES)


def _unpacked_into(data: bytes, size: int) -> bytes:
    room = bytearray(size)
    return bytes(memoryview(room)[: cramjam.zstd.decompress_into(data, room)])


# Codec -> how Avro names it, how it packs, how it unpacks.
CODECS: dict[str, tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "deflate": ("deflate", _deflate, _inflate),
    "zstd": ("zstandard", _zstd, _unzstd),
}


class AvroWriter:
    """Writes records into one file. `close` writes what is left; it does not close the file."""

    def __init__(
        self, out: Digested, codec: str, name: str, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._out = out
        self._block_bytes = block_bytes
        avro_name, self._pack, _ = CODECS[codec]
        # Not random: the same documents give the same file.
        self._sync = hashlib.sha256(name.encode()).digest()[:SYNC_BYTES]
        self._block = io.BytesIO()
        self._count = 0
        out.write(_header(avro_name, self._sync))

    def add(self, record: Record) -> None:
        """Take one record; it is in the file once its block is full."""
        fastavro.schemaless_writer(
            self._block,
            _PARSED,
            {
                "id": record.id,
                "timestamp_ns": record.timestamp_ns,
                "hash": record.hash,
                "left_out": record.left_out,
                "document": record.document,
            },
        )
        self._count += 1
        if self._block.tell() >= self._block_bytes:
            self._flush()

    def _flush(self) -> None:
        packed = self._pack(self._block.getvalue())
        self._out.write(_long(self._count) + _long(len(packed)) + packed + self._sync)
        self._block, self._count = io.BytesIO(), 0

    def close(self) -> None:
        """Write the last block."""
        if self._count:
            self._flush()


def _long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _LONG, value)
    return out.getvalue()


def _header(codec: str, sync: bytes) -> bytes:
    out = io.BytesIO()
    entries = {"avro.schema": SCHEMA_TEXT.encode(), "avro.codec": codec.encode()}
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, entries)
    return MAGIC + out.getvalue() + sync


class _Bytes:
    """Reads from a file what is there, and says where it ends too early."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name

    def exactly(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) != count:
            raise Differs("it ends too early", self._name)
        return found

    def long(self) -> int | None:
        """A zig-zag number; None at the end of the file."""
        value = shift = 0
        while True:
            byte = self._file.read(1)
            if not byte:
                if shift:
                    raise Differs("it ends too early", self._name)
                return None
            value |= (byte[0] & 0x7F) << shift
            if not byte[0] & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 63:
                raise Differs("a number in it is too long", self._name)

    def size(self, limit: int) -> int:
        found = self.long()
        if found is None or not 0 <= found <= limit:
            raise Differs("a size in it cannot be right", self._name)
        return found


def read_avro(file: IO[bytes], name: str) -> Iterator[Record]:
    """Records of a file, in order. Raises Differs at the first that cannot be read; the place
    counts the records before it."""
    source = _Bytes(file, name)
    unpack, sync = _read_header(source, name)
    number = 0
    while (count := source.long()) is not None:
        packed = source.exactly(source.size(MAX_BLOCK_BYTES))
        try:
            block = io.BytesIO(unpack(packed))
        except Exception:  # each codec has errors of its own
            raise Differs("the block cannot be unpacked", name, number + 1) from None
        for _ in range(count):
            number += 1
            yield _record(block, name, number)
        if block.read(1) or source.exactly(SYNC_BYTES) != sync:
            raise Differs("the block does not end where it should", name, number)


def _read_header(source: _Bytes, name: str) -> tuple[Callable[[bytes], bytes], bytes]:
    if source.exactly(len(MAGIC)) != MAGIC:
        raise Differs("this is no Avro file", name)
    found = _metadata(source)
    sync = source.exactly(SYNC_BYTES)
    if found.get("avro.schema") != SCHEMA_TEXT.encode():
        raise Differs("its schema is not that of an archive", name)
    codec = found.get("avro.codec", b"").decode("ascii", "replace")
    for avro_name, _, unpack in CODECS.values():
        if avro_name == codec:
            return unpack, sync
    raise Differs("its codec is not known", name)


def _metadata(source: _Bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    while count := source.size(MAX_HEADER_ENTRIES):
        for _ in range(count):
            key = source.exactly(source.size(MAX_HEADER_VALUE_BYTES)).decode("utf-8", "replace")
            found[key] = source.exactly(source.size(MAX_HEADER_VALUE_BYTES))
    return found


def _record(block: IO[bytes], name: str, number: int) -> Record:
    found: Any
    try:
        found = fastavro.schemaless_reader(block, _PARSED, None)
    except Exception:  # hostile bytes raise nearly anything
        raise Differs("the record cannot be read", name, number) from None
    left_out = tuple(found["left_out"])
    return Record(found["id"], found["timestamp_ns"], found["hash"], left_out, found["document"])
