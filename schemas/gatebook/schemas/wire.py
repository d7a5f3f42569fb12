"""How a message says which schema it was written with.

Two formats, told apart by the first byte:

- single-object encoding (default): C3 01, then the CRC-64-AVRO fingerprint, little-endian;
- Confluent: 00, then a 4-byte big-endian schema id, when a schema registry is configured.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Protocol

from gatebook.schemas.errors import RecordRejected
from gatebook.schemas.registry import PackagedSchema, by_fingerprint, load

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_PREFIX_BYTES = 10
CONFLUENT_MARKER = b"\x00"
CONFLUENT_PREFIX_BYTES = 5


class WireFormat(Protocol):
    """Writes and reads the prefix of a message.

    A format that asks a registry may raise RegistryUnavailable from both methods: the message is
    neither good nor bad then, and the call is to be made again.
    """

    def prefix(self, schema_name: str) -> bytes:
        """The bytes before the Avro payload of this schema."""

    def identify(self, message: bytes) -> tuple[PackagedSchema, int]:
        """The writer's schema and where the payload starts; RecordRejected if unknown."""


@cache
def _single_object_prefix(schema_name: str) -> bytes:
    return SINGLE_OBJECT_MARKER + load(schema_name).fingerprint


@cache
def _by_prefix() -> dict[bytes, PackagedSchema]:
    return {
        SINGLE_OBJECT_MARKER + fingerprint: schema
        for fingerprint, schema in by_fingerprint().items()
    }


class SingleObject:
    """Avro single-object encoding; needs no registry."""

    def prefix(self, schema_name: str) -> bytes:
        return _single_object_prefix(schema_name)

    def identify(self, message: bytes) -> tuple[PackagedSchema, int]:
        schema = _by_prefix().get(bytes(message[:SINGLE_OBJECT_PREFIX_BYTES]))
        if schema is None:
            raise RecordRejected("unknown_schema", "no packaged schema has this fingerprint")
        return schema, SINGLE_OBJECT_PREFIX_BYTES


def confluent_schema_id(message: bytes) -> int:
    """The schema id of a message in the Confluent format."""
    if len(message) < CONFLUENT_PREFIX_BYTES:
        raise RecordRejected("undecodable_frame", "shorter than its prefix")
    return int(struct.unpack(">I", message[1:CONFLUENT_PREFIX_BYTES])[0])


class AnyWire:
    """Reads both formats, told apart by the first byte; writes the Confluent format where a
    registry is configured, else single-object encoding."""

    def __init__(self, confluent: WireFormat | None = None) -> None:
        self._single_object = SingleObject()
        self._confluent = confluent

    def prefix(self, schema_name: str) -> bytes:
        return (self._confluent or self._single_object).prefix(schema_name)

    def identify(self, message: bytes) -> tuple[PackagedSchema, int]:
        if message[:1] != CONFLUENT_MARKER:
            return self._single_object.identify(message)
        if self._confluent is None:
            raise RecordRejected("unknown_schema", "no schema registry is configured to look it up")
        return self._confluent.identify(message)
