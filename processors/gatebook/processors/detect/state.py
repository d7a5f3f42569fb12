"""One key's entry: its state, how far it has come, and the ids it saw lately.

An entry depends on nothing outside itself but the messages of its partition. That is what makes
a replay exact when only some entries reached the state topic before a crash: each goes on from
where it itself stopped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gatebook.processors.detect.access import ID_DIGEST_BYTES, Access

# Position of a document: its message's offset and its place in the message, in one number.
INDEX_BITS = 24


def position_of(offset: int, index: int) -> int:
    """Grows with the offset, and within a message with the document's place."""
    return (offset << INDEX_BITS) | index


class StoredEntry(msgspec.Struct, array_like=True):
    """An entry as it lies in the state topic."""

    position: int
    watermark_ns: int
    turned_ns: int
    recent: bytes
    previous: bytes
    state: msgspec.Raw


class Entry(msgspec.Struct):
    """One key of one detector.

    `position` is the last document applied; `watermark_ns` the greatest event time seen;
    `recent` and `previous` are two generations of event id digests, the older dropped when the
    younger is full or its time is over.
    """

    state: Any
    position: int = -1
    watermark_ns: int = -1
    turned_ns: int = -1
    recent: set[bytes] = msgspec.field(default_factory=set)
    previous: set[bytes] = msgspec.field(default_factory=set)
    stored: bool = False

    def knows(self, digest: bytes) -> bool:
        """Whether this event id was counted here lately."""
        return digest in self.recent or digest in self.previous

    def remember(self, access: Access, span_ns: int, capacity: int) -> None:
        """Keep the id for at least `span_ns` of event time, or `capacity` further ids."""
        age = access.timestamp_ns - self.turned_ns
        if age >= span_ns or len(self.recent) >= capacity:
            self.previous = set() if age >= 2 * span_ns else self.recent
            self.recent = set()
            self.turned_ns = access.timestamp_ns
        self.recent.add(access.id_digest)


def _join(digests: set[bytes]) -> bytes:
    return b"".join(sorted(digests))


def _split(joined: bytes) -> set[bytes]:
    starts = range(0, len(joined), ID_DIGEST_BYTES)
    return {joined[start : start + ID_DIGEST_BYTES] for start in starts}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredEntry)


def pack(entry: Entry) -> bytes:
    """An entry as bytes for the state topic."""
    return _encoder.encode(
        (
            entry.position,
            entry.watermark_ns,
            entry.turned_ns,
            _join(entry.recent),
            _join(entry.previous),
            entry.state,
        )
    )


def unpack(data: bytes, state_type: type[Any]) -> Entry:
    """The entry `pack` wrote. Raises msgspec.MsgspecError for anything else."""
    stored = _decoder.decode(data)
    return Entry(
        state=msgspec.msgpack.decode(stored.state, type=state_type),
        position=stored.position,
        watermark_ns=stored.watermark_ns,
        turned_ns=stored.turned_ns,
        recent=_split(stored.recent),
        previous=_split(stored.previous),
        stored=True,
    )
