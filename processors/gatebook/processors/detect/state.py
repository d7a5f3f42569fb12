"""What the engine keeps of one key: how far it has come, the ids it saw lately, and a slot for
each detector.

A key's entry in the state topic is one message: all its detectors see the same position, or a
replay would count an access for one and pass it over for another.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from gatebook.processors.detect.access import ID_DIGEST_BYTES, Access
from gatebook.processors.detect.distinct import Distinct
from gatebook.processors.detect.scopes import About

# Position of a document: its message's offset and its place in the message, in one number.
INDEX_BITS = 24
State = TypeVar("State")


def position_of(offset: int, index: int) -> int:
    """Grows with the offset, and within a message with the document's place."""
    return (offset << INDEX_BITS) | index


class Incident(msgspec.Struct, array_like=True):
    """Something that is true and was told: since when, until when at last, at most how much, how
    often; and the finding that told it, which the one that ends it repeats."""

    id: str
    began_ns: int
    last_ns: int
    observed: float
    severity: str
    occurrences: int
    finding: dict[str, Any]


class Slot(msgspec.Struct, Generic[State], array_like=True):
    """What one detector keeps of a key: a state per group, open incidents by group, and until
    when a closed one swallows what comes late."""

    groups: dict[str, State] = {}
    incidents: dict[str, Incident] = {}
    closed: dict[str, int] = {}


class StoredTrack(msgspec.Struct, array_like=True):
    """A key's entry as it lies in the state topic."""

    position: int
    watermark_ns: int
    turned_ns: int
    lag_ns: int
    recent: bytes
    previous: bytes
    about: About
    deadlines: dict[str, int]
    slots: dict[str, msgspec.Raw]


class Track:
    """One key of one scope.

    `position` is the last document applied; `watermark_ns` the greatest event time seen; `recent`
    and `previous` are two generations of event id digests, the older dropped when the younger is
    full or its time is over. `packed` holds slots as they were stored: they are opened when they
    are needed, so that a worker takes over a partition without opening everything. `deadlines` says
    by slot when something happens though nothing comes. `lag_ns` is how far its newest access was
    behind the partition's progress when it came. `size` is its length as stored last.
    """

    __slots__ = (
        "about",
        "deadlines",
        "dirty",
        "lag_ns",
        "packed",
        "position",
        "previous",
        "recent",
        "size",
        "slots",
        "stored",
        "turned_ns",
        "watermark_ns",
    )

    def __init__(self, about: About) -> None:
        self.about = about
        self.position = -1
        self.watermark_ns = -1
        self.turned_ns = -1
        self.lag_ns = 0
        self.recent: set[bytes] = set()
        self.previous: set[bytes] = set()
        self.slots: dict[str, Slot[Any]] = {}
        self.packed: dict[str, bytes] = {}
        self.dirty: set[str] = set()
        self.stored = False
        self.size = 0
        self.deadlines: dict[str, int] = {}

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


def _to_stored(value: Any) -> Any:
    if isinstance(value, Distinct):
        return value.pack()
    raise NotImplementedError(type(value).__name__)


def _from_stored(wanted: type[Any], value: Any) -> Any:
    if wanted is Distinct:
        return Distinct.unpack(value)
    raise NotImplementedError(wanted.__name__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_stored)
_decoder = msgspec.msgpack.Decoder(StoredTrack)


def slot_decoder(state_type: type[Any]) -> msgspec.msgpack.Decoder[Slot[Any]]:
    """Reads slots whose states have this type."""
    return msgspec.msgpack.Decoder(Slot[state_type], dec_hook=_from_stored)  # type: ignore[valid-type]  # made at run time


def pack(track: Track) -> bytes:
    """A key's entry as bytes for the state topic. Slots that did not change are not packed
    anew."""
    for name in sorted(track.dirty):
        track.packed[name] = _encoder.encode(track.slots[name])
    track.dirty.clear()
    return _encoder.encode(
        (
            track.position,
            track.watermark_ns,
            track.turned_ns,
            track.lag_ns,
            _join(track.recent),
            _join(track.previous),
            track.about,
            track.deadlines,
            {name: msgspec.Raw(value) for name, value in track.packed.items()},
        )
    )


def unpack(data: bytes) -> Track:
    """The entry `pack` wrote, its slots still packed. Raises msgspec.MsgspecError for junk."""
    stored = _decoder.decode(data)
    track = Track(stored.about)
    track.position = stored.position
    track.watermark_ns = stored.watermark_ns
    track.turned_ns = stored.turned_ns
    track.lag_ns = stored.lag_ns
    track.recent = _split(stored.recent)
    track.previous = _split(stored.previous)
    track.packed = {name: bytes(value) for name, value in stored.slots.items()}
    track.deadlines = stored.deadlines
    track.size = len(data)
    track.stored = True
    return track
